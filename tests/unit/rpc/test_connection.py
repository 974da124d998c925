"""
Tests for L{kaproto.rpc.connection}.
"""

from __future__ import annotations

import os
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IFileDescriptorReceiver, IReactorTime, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import alsoProvides

from kaproto.errors import (
    ConnectionClosed,
    RemoteProtocolError,
)
from kaproto.rpc.connection import Connection, Pause
from kaproto.rpc.protocol import KeepAliveFactory
from kaproto.wire.filter import MessageFilter
from kaproto.wire.message import (
    HEADER_SIZE,
    MESSAGE_MAX,
    PING,
    PONG,
    TURN_MAX,
    Message,
    packMessage,
)
from kaproto.wire.xdr import Unpacker
from tests.strategies import garbage, pieces
from tests.support import KEEPALIVE, Probe, Wire, call
from tests.support_protocol import HELLO, Plain, ProtocolTestCase, keepsKeepAlive


class TransportTests(ProtocolTestCase):
    """
    What an end does to its transport.
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


class FramingTests(ProtocolTestCase):
    """
    Bytes become messages.
    """

    def test_whole(self) -> None:
        """
        A message in one read is delivered, and nothing is answered by itself.
        """
        wire = self.plain()
        wire.feed(HELLO)
        self.assertEqual(wire.protocol.messages, [HELLO])
        self.assertEqual(wire.taken(), b"")

    def test_byteByByte(self) -> None:
        """
        A message that comes one byte at a time is delivered with its last byte.
        """
        wire = self.plain()
        for byte in packMessage(HELLO)[:-1]:
            wire.feed(bytes([byte]))
        self.assertEqual(wire.protocol.messages, [])
        wire.feed(packMessage(HELLO)[-1:])
        self.assertEqual(wire.protocol.messages, [HELLO])

    def test_manyAtOnce(self) -> None:
        """
        Messages that come in one read, the last one in part, are delivered in order.
        """
        wire = self.plain()
        messages = [call(1, serial=serial) for serial in range(10)]
        wire.feed(*messages, packMessage(HELLO)[:30])
        self.assertEqual(wire.protocol.messages, messages)
        wire.feed(packMessage(HELLO)[30:])
        self.assertEqual(wire.protocol.messages, [*messages, HELLO])

    def test_lengthOutOfBounds(self) -> None:
        """
        A length word that no message can have closes the connection, and the reason names it.
        """
        for length in (0, HEADER_SIZE - 1, MESSAGE_MAX + 1, 2**32 - 1):
            wire = self.plain()
            wire.feed(length.to_bytes(4, "big"))
            self.assertTrue(wire.aborted)
            reason = self.reasonOf(wire)
            self.assertIsInstance(reason, RemoteProtocolError)
            self.assertIn(f"a message of {length} bytes", str(reason))

    def test_pongInsideMessage(self) -> None:
        """
        Bytes that look like a pong in the middle of a message belong to that message.
        """
        wire = self.plain()
        message = call(1, PONG)
        wire.feed(packMessage(message)[:HEADER_SIZE])
        wire.feed(PONG)
        self.assertEqual(wire.protocol.messages, [message])

    def test_nothingIsReadWhenClosing(self) -> None:
        """
        What arrives behind a message that closed the connection is not looked at, whether it
        comes in the same read or later.
        """
        wire = self.plain()
        wire.feed(bytes(4), HELLO)
        wire.feed(HELLO)
        self.assertEqual(wire.protocol.messages, [])

    def test_closedByMessage(self) -> None:
        """
        A subclass may close for what a message says; those behind it are not delivered.
        """

        class Obedient(Plain):
            def messageReceived(self, message: Message) -> None:
                super().messageReceived(message)
                self._kaproto.disconnect(ConnectionClosed("as you wish"))

        wire = self.plain(Obedient)
        wire.feed(HELLO, HELLO)
        self.assertEqual(wire.protocol.messages, [HELLO])
        self.assertIsInstance(self.reasonOf(wire), ConnectionClosed)

    def test_fileDescriptor(self) -> None:
        """
        A file descriptor is closed without a word, and the message that comes with it is received.
        """
        wire = self.plain()
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        IFileDescriptorReceiver(wire.protocol).fileDescriptorReceived(reading)
        self.assertRaises(OSError, os.fstat, reading)
        wire.feed(HELLO)
        self.assertEqual(wire.protocol.messages, [HELLO])
        self.assertEqual(self.logged(), [])

    def test_undecodable(self) -> None:
        """
        A payload that cannot be decoded closes the connection with a L{RemoteProtocolError}.
        """

        class Decoding(Plain):
            def messageReceived(self, message: Message) -> None:
                Unpacker(message.payload).uint64()

        wire = self.plain(Decoding)
        wire.feed(HELLO)
        reason = self.reasonOf(wire)
        self.assertIsInstance(reason, RemoteProtocolError)
        self.assertIn("cannot be decoded", str(reason))

    def test_protocolError(self) -> None:
        """
        A protocol error that a subclass raises closes the connection and is the reason.
        """
        error = RemoteProtocolError("something that may not be")

        class Strict(Plain):
            def messageReceived(self, message: Message) -> None:
                raise error

        wire = self.plain(Strict)
        wire.feed(HELLO)
        self.assertIs(self.reasonOf(wire), error)

    def test_subclassMustReceive(self) -> None:
        """
        The base class does not know what messages mean, and what to do first.
        """
        connection = self.plain().protocol._kaproto
        self.assertRaises(NotImplementedError, Connection.start, connection)
        self.assertRaises(NotImplementedError, Connection.messageReceived, connection, HELLO)

    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """
        Whatever bytes come, in whatever pieces, nothing is raised: the end is connected or it has
        a L{RemoteProtocolError} for closing, and no timer is left when it is closed.
        """
        clock = Clock()
        factory = KeepAliveFactory(cast(IReactorTime, clock))
        factory.protocol = Plain
        wire = Wire(cast(Plain, factory.buildProtocol(None)))
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        for piece in data.draw(garbage().flatmap(pieces)):
            wire.feed(piece)
        if wire.closing:
            self.assertIsInstance(self.reasonOf(wire), RemoteProtocolError)
        else:
            wire.lose()
        self.assertEqual(clock.getDelayedCalls(), [])


class TurnTests(ProtocolTestCase):
    """
    A peer that sends many messages at once, and others that wait meanwhile.
    """

    def many(self, count: int) -> list[Message]:
        """
        @return: so many messages.
        """
        return [call(1, serial=serial) for serial in range(count)]

    def test_turns(self) -> None:
        """
        So many messages are taken in, then the reactor does what else there is, and the peer is
        not read meanwhile.
        """
        wire = self.plain()
        messages = self.many(2 * TURN_MAX + 1)
        wire.feed(*messages)
        self.assertEqual(wire.protocol.messages, messages[:TURN_MAX])
        self.assertFalse(wire.reading)
        others: list[int] = []
        self.clock.callLater(0, lambda: others.append(len(wire.protocol.messages)))
        self.turns()
        self.assertEqual(others, [2 * TURN_MAX])
        self.assertEqual(wire.protocol.messages, messages)
        self.assertTrue(wire.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_oneTurn(self) -> None:
        """
        What can be taken in at once needs no other turn.
        """
        wire = self.plain()
        wire.feed(*self.many(TURN_MAX))
        self.assertTrue(wire.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moreComes(self) -> None:
        """
        What comes all the same, as over TLS it can, is taken in after what has come before it.
        """
        wire = self.plain()
        messages = self.many(3 * TURN_MAX)
        wire.feed(*messages[: 2 * TURN_MAX])
        wire.feed(*messages[2 * TURN_MAX :])
        self.assertEqual(wire.protocol.messages, messages[:TURN_MAX])
        self.turns()
        self.assertEqual(wire.protocol.messages, messages)
        self.assertTrue(wire.reading)

    def test_notSilence(self) -> None:
        """
        A peer that is not read because others have their turn is watched again afterwards.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        wire.feed(PONG * (TURN_MAX + 1))
        self.turns()
        self.advance(KEEPALIVE.interval + 0.25)
        self.assertEqual(wire.taken(), PING)

    def test_error(self) -> None:
        """
        What is wrong with a later message closes the connection as well.
        """
        wire = self.plain()
        wire.feed(*self.many(TURN_MAX), bytes(28))
        self.assertFalse(wire.closing)
        self.turns()
        self.assertTrue(wire.aborted)
        self.assertIsInstance(self.reasonOf(wire), RemoteProtocolError)

    def test_closing(self) -> None:
        """
        Nothing more is taken in once this end closes.
        """
        wire = self.plain()
        wire.feed(*self.many(2 * TURN_MAX))
        wire.protocol._kaproto.disconnect(ConnectionClosed("enough"))
        self.turns()
        self.assertEqual(len(wire.protocol.messages), TURN_MAX)

    def test_peerCloses(self) -> None:
        """
        What the peer sent before it closed is taken in.
        """
        wire = self.plain()
        messages = self.many(4 * TURN_MAX)
        wire.feed(*messages)
        wire.lose()
        self.assertEqual(wire.protocol.messages, messages)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peerFails(self) -> None:
        """
        When the connection has broken, nobody waits for an answer.
        """
        wire = self.plain()
        wire.feed(*self.many(4 * TURN_MAX))
        wire.lose(ConnectionLost())
        self.assertEqual(len(wire.protocol.messages), TURN_MAX)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ReadingTests(ProtocolTestCase):
    """
    When an end does not read, and when its peer does not.
    """

    def test_pausedSilence(self) -> None:
        """
        While an end does not read, it neither pings its peer nor takes it for dead; afterwards
        the silence goes on from where it was.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.advance(0.5)
        wire.protocol._kaproto.pauseReading(Pause.CALLS)
        self.assertFalse(wire.reading)
        self.assertTrue(bool(wire.protocol._kaproto.pauses))
        self.assertTrue(wire.protocol._kaproto.pauses & Pause.CALLS)
        self.advance(100)
        self.assertEqual(wire.taken(), b"")
        wire.protocol._kaproto.resumeReading(Pause.CALLS)
        self.assertTrue(wire.reading)
        self.assertFalse(wire.protocol._kaproto.pauses & Pause.CALLS)
        self.advance(0.25)
        self.assertEqual(wire.taken(), b"")
        self.advance(0.5)
        self.assertEqual(wire.taken(), PING)

    def test_reasons(self) -> None:
        """
        An end reads again when the last reason for not reading has gone.
        """
        wire = self.plain()
        wire.protocol._kaproto.resumeReading(Pause.CALLS)
        wire.protocol._kaproto.pauseReading(Pause.CALLS)
        wire.protocol._kaproto.pauseReading(Pause.CALLS)
        wire.protocol._kaproto.pauseReading(Pause.CONGESTION)
        wire.protocol._kaproto.resumeReading(Pause.CALLS)
        self.assertFalse(wire.reading)
        wire.protocol._kaproto.resumeReading(Pause.CONGESTION)
        self.assertTrue(wire.reading)

    def test_congested(self) -> None:
        """
        The transport tells when the peer is behind with reading, and when it no longer is.
        """
        wire = self.plain()
        self.assertIs(wire.transport.producer, wire.protocol._kaproto)
        self.assertTrue(wire.transport.streaming)
        wire.protocol._kaproto.pauseProducing()
        self.assertTrue(wire.protocol._kaproto.congested)
        wire.protocol._kaproto.resumeProducing()
        self.assertFalse(wire.protocol._kaproto.congested)

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
            lambda message, _raw: source.protocol._kaproto.keepAliveReceived(message),
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

    def test_pingWaits(self) -> None:
        """
        A ping that is due in the middle of a relayed message is sent after its end.
        """
        self.start()
        connection = self.right.protocol._kaproto
        packed = packMessage(HELLO)
        self.left.feed(packed[:-1])
        connection._pingBetween()
        self.assertTrue(connection._isPingWaiting())
        self.assertEqual(self.right.taken(), packed[:-1])
        self.left.feed(packed[-1:])
        self.assertFalse(connection._isPingWaiting())
        self.assertEqual(self.right.taken(), packed[-1:] + PING)

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
