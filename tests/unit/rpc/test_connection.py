"""
Tests for L{kaproto.rpc.connection}.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.testing import StringTransport
from zope.interface import alsoProvides

from kaproto.errors import (
    ConnectionClosed,
    RemoteProtocolError,
)
from kaproto.rpc.connection import Connection
from kaproto.wire.filter import MessageFilter
from kaproto.wire.message import (
    HEADER_SIZE,
    PING,
    PONG,
    packMessage,
)
from tests.support import KEEPALIVE, Probe, Wire
from tests.support_protocol import HELLO, Plain, ProtocolTestCase, keepsKeepAlive


class ConnectionTests(ProtocolTestCase):
    """
    One end of a connection.
    """

    def test_noDelay(self) -> None:
        """
        Small messages are not held back on TCP; other transports have nothing to hold them.
        """
        asked: list[bool] = []

        class TCPTransport(StringTransport):
            def setTcpNoDelay(self, enabled: bool) -> None:
                asked.append(enabled)

        transport = TCPTransport()
        alsoProvides(transport, ITCPTransport)
        factory = self.plain().protocol.factory
        cast(Plain, factory.buildProtocol(None)).makeConnection(transport)
        self.assertEqual(asked, [True])

    def test_subclassMustReceive(self) -> None:
        """
        The base class does not know what messages mean, and what to do first.
        """
        connection = self.plain().protocol._kaproto
        self.assertRaises(NotImplementedError, Connection.start, connection)
        self.assertRaises(NotImplementedError, Connection.messageReceived, connection, HELLO)

    def test_congested(self) -> None:
        """
        The transport tells when the peer is behind with reading, and when it no longer is.
        """
        wire = self.plain()
        self.assertIs(wire.transport.producer, wire.protocol._kaproto)
        self.assertTrue(wire.transport.streaming)
        wire.protocol._kaproto.pauseProducing()
        self.assertTrue(wire.protocol._kaproto.outgoing.congested)
        wire.protocol._kaproto.resumeProducing()
        self.assertFalse(wire.protocol._kaproto.outgoing.congested)

    def test_drainedBuffer(self) -> None:
        """
        That the transport's buffer is empty again gives the peer no more time: its kernel may have
        taken everything for a program that is stopped.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.advance(2.5)
        wire.protocol._kaproto.pauseProducing()
        wire.protocol._kaproto.resumeProducing()
        self.advance(0.4)
        self.assertFalse(wire.closing)
        self.advance(0.2)
        self.assertTrue(wire.aborted)

    def test_nothingAfterClosing(self) -> None:
        """
        Nothing more is sent once the connection closes.
        """
        wire = self.plain()
        connection = wire.protocol._kaproto
        connection.disconnect(ConnectionClosed("enough"))
        connection.send(PONG)
        connection.sendNow(PONG)
        self.assertEqual(wire.taken(), b"")

    def test_stopProducing(self) -> None:
        """
        The transport may say that it takes no more; that it is lost, it says as well.
        """
        wire = self.plain()
        wire.protocol._kaproto.stopProducing()
        self.assertFalse(wire.closing)


class RelayTests(ProtocolTestCase):
    """
    An end that is one half of a relay.

    C{left} and C{right} are the two halves.  What comes to one goes out at the other.
    """

    def setUp(self) -> None:
        """
        Make two ends, which are not connected to each other yet.
        """
        super().setUp()
        self.left = self.plain()
        self.right = self.plain()
        self.toLeft = self.sieve(self.right, self.left.transport)
        self.toRight = self.sieve(self.left, self.right.transport)

    def sieve(self, source: Wire[Plain], target: StringTransport) -> MessageFilter:
        """
        @return: what lets everything through from one end's peer to the other's, but keepalive.
        """
        return MessageFilter(
            keepsKeepAlive,
            lambda message, _raw: source.protocol._kaproto.received(message),
            target.write,
        )

    def start(self) -> None:
        """
        Make the two ends one connection.
        """
        self.left.protocol._kaproto.startRelay(
            self.toRight, self.toLeft, self.right.protocol._kaproto
        )
        self.right.protocol._kaproto.startRelay(
            self.toLeft, self.toRight, self.left.protocol._kaproto
        )

    def test_relayed(self) -> None:
        """
        Whatever comes, whole messages or parts of them, goes out at the other half as it is.
        """
        self.start()
        packed = packMessage(Probe.message(1, bytes(100)))
        self.left.feed(packed, packed[:40])
        self.assertEqual(self.right.taken(), packed + packed[:40])
        self.left.feed(packed[40:])
        self.assertEqual(self.right.taken(), packed[40:])
        self.right.feed(packed)
        self.assertEqual(self.left.taken(), packed)
        self.assertEqual(self.left.protocol.messages, [])

    def test_rest(self) -> None:
        """
        What had come before and was no whole message yet is relayed as well.
        """
        packed = packMessage(HELLO)
        self.left.feed(packed[:20])
        self.start()
        self.left.feed(packed[20:])
        self.assertEqual(self.right.taken(), packed)

    def test_ownPings(self) -> None:
        """
        Each half answers its own peer's pings and sends its own, between two relayed messages
        and not in the middle of one.
        """
        self.start()
        packed = packMessage(HELLO)
        self.left.feed(PING)
        self.assertEqual((self.left.taken(), self.right.taken()), (PONG, b""))
        self.right.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.left.feed(packed[:30])
        self.advance(1.1)
        self.right.feed(PING)
        self.assertEqual(self.right.taken(), packed[:30])
        self.left.feed(packed[30:])
        self.assertEqual(self.right.taken(), packed[30:] + PONG)
        self.advance(1.1)
        self.assertEqual(self.right.taken(), PING)
        self.right.feed(PONG)
        self.assertEqual(self.left.taken(), b"")

    def test_garbage(self) -> None:
        """
        A length word that no message can have closes the half it came to, and nothing of what
        follows is relayed.
        """
        self.start()
        self.left.feed(bytes(HEADER_SIZE))
        self.assertTrue(self.left.aborted)
        self.left.feed(HELLO)
        self.assertEqual(self.right.taken(), b"")
        self.assertIsInstance(self.reasonOf(self.left), RemoteProtocolError)

    def test_quietInTheMiddle(self) -> None:
        """
        While the other side is slow to end a message, of which a peer has read all there is, the
        peer can neither be pinged nor blamed for its silence; when it does not read what there
        is, it can.
        """
        self.start()
        self.right.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.left.feed(packMessage(HELLO)[:30])
        self.advance(10)
        self.assertFalse(self.right.closing)
        self.right.protocol._kaproto.pauseProducing()
        self.advance(4.1)
        self.assertTrue(self.right.aborted)

    def test_backpressure(self) -> None:
        """
        While one peer is behind with reading, nothing is read from the other, and that one's
        silence does not count.
        """
        self.start()
        self.right.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.left.protocol._kaproto.pauseProducing()
        self.assertFalse(self.right.reading)
        self.advance(10)
        self.assertFalse(self.right.closing)
        self.left.protocol._kaproto.resumeProducing()
        self.assertTrue(self.right.reading)

    def test_congestedBefore(self) -> None:
        """
        A peer that was behind with reading before the relay began holds up the other as well.
        """
        self.left.protocol._kaproto.pauseProducing()
        self.start()
        self.assertFalse(self.right.reading)
        self.left.protocol._kaproto.resumeProducing()
        self.assertTrue(self.right.reading)

    def test_bothStuck(self) -> None:
        """
        When neither peer reads, neither can be judged by its silence, so they have a deadline.
        """
        self.start()
        self.left.protocol._kaproto.pauseProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.right.protocol._kaproto.pauseProducing()
        self.advance(60)
        self.assertTrue(self.right.aborted)
        self.assertIn("did not read on within 60 s", str(self.reasonOf(self.right)))

    def test_unstuck(self) -> None:
        """
        When one of two peers that were stuck reads on, the deadline is gone.
        """
        for first in (self.left, self.right):
            self.start()
            self.left.protocol._kaproto.pauseProducing()
            self.right.protocol._kaproto.pauseProducing()
            first.protocol._kaproto.resumeProducing()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.left.protocol._kaproto.resumeProducing()
            self.right.protocol._kaproto.resumeProducing()
