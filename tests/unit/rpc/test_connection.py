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
    Tests for one end of a connection.
    """

    def test_noDelay(self) -> None:
        """
        C{TCP_NODELAY} is set on TCP transports.
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
        Subclasses have to implement C{start} and C{messageReceived}.
        """
        connection = self.plain().protocol._kaproto
        self.assertRaises(NotImplementedError, Connection.start, connection)
        self.assertRaises(NotImplementedError, Connection.messageReceived, connection, HELLO)

    def test_congested(self) -> None:
        """
        The connection is congested while the transport pauses it as a producer.
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
        A transport that has emptied its buffer does not extend the peer's time: the kernel may have
        taken the bytes for a peer that is stopped.
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
        Nothing is sent after closing.
        """
        wire = self.plain()
        connection = wire.protocol._kaproto
        connection.disconnect(ConnectionClosed("enough"))
        connection.send(PONG)
        connection.sendNow(PONG)
        self.assertEqual(wire.taken(), b"")

    def test_stopProducing(self) -> None:
        """
        C{stopProducing} does not close: the transport reports separately that the connection is
        lost.
        """
        wire = self.plain()
        wire.protocol._kaproto.stopProducing()
        self.assertFalse(wire.closing)


class RelayTests(ProtocolTestCase):
    """
    Tests for relaying between two connections, C{left} and C{right}.
    """

    def setUp(self) -> None:
        """
        Create two connections that are not relayed yet.
        """
        super().setUp()
        self.left = self.plain()
        self.right = self.plain()
        self.toLeft = self.sieve(self.right, self.left.transport)
        self.toRight = self.sieve(self.left, self.right.transport)

    def sieve(self, source: Wire[Plain], target: StringTransport) -> MessageFilter:
        """
        @return: a filter that forwards all messages but keepalive from one peer to the other.
        """
        return MessageFilter(
            keepsKeepAlive,
            lambda message, _raw: source.protocol._kaproto.received(message),
            target.write,
        )

    def start(self) -> None:
        """
        Start relaying in both directions.
        """
        self.left.protocol._kaproto.startRelay(
            self.toRight, self.toLeft, self.right.protocol._kaproto
        )
        self.right.protocol._kaproto.startRelay(
            self.toLeft, self.toRight, self.left.protocol._kaproto
        )

    def test_relayed(self) -> None:
        """
        Whole and partial messages are forwarded unchanged.
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
        A partial message received before the relay started is forwarded as well.
        """
        packed = packMessage(HELLO)
        self.left.feed(packed[:20])
        self.start()
        self.left.feed(packed[20:])
        self.assertEqual(self.right.taken(), packed)

    def test_ownPings(self) -> None:
        """
        Each side answers its own peer's pings, and sends its own pings, only between two relayed
        messages.
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
        An invalid length closes the connection it arrived on, and nothing after it is forwarded.
        """
        self.start()
        self.left.feed(bytes(HEADER_SIZE))
        self.assertTrue(self.left.aborted)
        self.left.feed(HELLO)
        self.assertEqual(self.right.taken(), b"")
        self.assertIsInstance(self.reasonOf(self.left), RemoteProtocolError)

    def test_quietInTheMiddle(self) -> None:
        """
        A peer that has read the first part of a message, and waits for the rest, is neither pinged
        nor timed out.  If it is congested, it is timed out.
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
        While one peer is congested, the other is not read, and its silence does not count.
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
        A peer that was congested before the relay started pauses the other as well.
        """
        self.left.protocol._kaproto.pauseProducing()
        self.start()
        self.assertFalse(self.right.reading)
        self.left.protocol._kaproto.resumeProducing()
        self.assertTrue(self.right.reading)

    def test_bothStuck(self) -> None:
        """
        If neither peer reads, keepalive cannot judge either, so there is a deadline.
        """
        self.start()
        self.left.protocol._kaproto.pauseProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.right.protocol._kaproto.pauseProducing()
        self.advance(60)
        self.assertTrue(self.right.aborted)
        self.assertIn("read anything within 60 s", str(self.reasonOf(self.right)))

    def test_unstuck(self) -> None:
        """
        The deadline is cleared as soon as one of the two reads again.
        """
        for first in (self.left, self.right):
            self.start()
            self.left.protocol._kaproto.pauseProducing()
            self.right.protocol._kaproto.pauseProducing()
            first.protocol._kaproto.resumeProducing()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.left.protocol._kaproto.resumeProducing()
            self.right.protocol._kaproto.resumeProducing()
