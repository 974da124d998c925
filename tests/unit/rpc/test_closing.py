"""
Tests for L{kaproto.rpc.closing}.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from twisted.internet import tcp
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from kaproto.errors import (
    ConnectionClosed,
    DeadlineMissed,
    KeepAliveTimeout,
)
from kaproto.keepalive.liveness import KeepAlive
from kaproto.rpc import closing as endingModule
from kaproto.rpc.closing import Closing
from kaproto.rpc.reading import Pause
from kaproto.wire.message import packMessage
from tests.support import KEEPALIVE
from tests.support_protocol import HELLO, Plain, ProtocolTestCase


class DeadlineTests(ProtocolTestCase):
    """
    Tests for deadlines.
    """

    def test_missed(self) -> None:
        """
        A peer that misses a deadline is aborted, and the reason says what it did not do, and within
        which time.
        """
        wire = self.plain()
        wire.protocol._kaproto.closing.setDeadline(2.5, "it did not sing")
        self.advance(2.4)
        self.assertFalse(wire.closing)
        self.advance(0.2)
        self.assertTrue(wire.aborted)
        reason = self.reasonOf(wire)
        assert isinstance(reason, DeadlineMissed)
        self.assertEqual((reason.seconds, str(reason)), (2.5, "it did not sing within 2.5 s"))

    def test_stall(self) -> None:
        """
        A stall of this process, however long, uses up only a part of the deadline.
        """
        wire = self.plain()
        wire.protocol._kaproto.closing.setDeadline(10, "it did not sing")
        self.advance(5)
        self.clock.advance(3600)
        self.assertFalse(wire.closing)
        self.advance(3)
        self.assertFalse(wire.closing)
        self.advance(2)
        self.assertTrue(wire.aborted)

    def test_unread(self) -> None:
        """
        A deadline is not missed while bytes from the peer wait to be read; but a peer that sends
        endlessly is given only a little longer.
        """
        unread = True
        self.patch(endingModule, "hasUnread", lambda _transport: unread)
        wire, other = self.plain(), self.plain()
        for each in (wire, other):
            each.protocol._kaproto.closing.setDeadline(8, "it did not sing")
        self.advance(8.5)
        self.assertFalse(wire.closing)
        wire.protocol._kaproto.closing.clearDeadline()
        self.advance(1)
        self.assertFalse(wire.closing)
        self.assertTrue(other.aborted)
        self.assertEqual(str(self.reasonOf(other)), "it did not sing within 8 s")

    def test_met(self) -> None:
        """
        A deadline that is met leaves no timer, and clearing it twice does no harm.
        """
        wire = self.plain()
        wire.protocol._kaproto.closing.setDeadline(2.5, "it did not sing")
        wire.protocol._kaproto.closing.clearDeadline()
        wire.protocol._kaproto.closing.clearDeadline()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_oneAtATime(self) -> None:
        """
        A second deadline replaces the first.
        """
        wire = self.plain()
        wire.protocol._kaproto.closing.setDeadline(1, "it did not sing")
        wire.protocol._kaproto.closing.setDeadline(5, "it did not dance")
        self.advance(2)
        self.assertFalse(wire.closing)
        self.advance(3)
        self.assertIn("dance", str(self.reasonOf(wire)))


class ClosingTests(ProtocolTestCase):
    """
    Tests for closing a connection.
    """

    def test_disconnect(self) -> None:
        """
        Disconnecting sends what was already written and nothing more, and stops keepalive and the
        deadline.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        wire.protocol._kaproto.closing.setDeadline(3, "it did not sing")
        wire.protocol._kaproto.send(b"before")
        reason = ConnectionClosed("enough")
        wire.protocol._kaproto.disconnect(reason)
        wire.protocol._kaproto.send(b"after")
        self.assertEqual(wire.taken(), b"before")
        self.assertTrue(wire.closing)
        self.assertFalse(wire.aborted)
        self.assertEqual(wire.protocol.keepAlive, KeepAlive(0, 0))
        self.assertEqual(len(wire.protocol._kaproto.heartbeat.pacemaker), 0)
        self.assertIs(self.reasonOf(wire), reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peerThatDoesNotRead(self) -> None:
        """
        A peer that does not read is aborted after C{closeTimeout} seconds, or after the time given
        to C{leave}.
        """
        reason = ConnectionClosed("enough")
        ends: tuple[tuple[Callable[..., None], tuple[float, ...], float], ...] = (
            (Closing.disconnect, (), 5),
            (Closing.leave, (0.5,), 0.5),
        )
        for end, arguments, expected in ends:
            wire = self.plain()
            end(wire.protocol._kaproto.closing, reason, *arguments)
            self.advance(expected - 0.1)
            self.assertFalse(wire.aborted)
            self.advance(0.2)
            self.assertTrue(wire.aborted)
            self.assertIs(self.reasonOf(wire), reason)

    def test_deadIsNotWaitedFor(self) -> None:
        """
        A connection to a dead peer is closed once all bytes are sent, and the first reason is kept.
        """
        wire = self.plain()
        reason = ConnectionClosed("dead")
        wire.protocol._kaproto.closing.leave(reason, 0.1)
        wire.protocol._kaproto.closing.leave(ConnectionClosed("again"), 0.1)
        self.assertTrue(wire.closing)
        self.assertIs(self.reasonOf(wire), reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_firstReasonStays(self) -> None:
        """
        A second reason to close is ignored; but aborting a connection that waits for its peer
        closes it at once.
        """
        wire = self.plain()
        reason = ConnectionClosed("first")
        wire.protocol._kaproto.disconnect(reason)
        wire.protocol._kaproto.disconnect(ConnectionClosed("second"))
        self.assertFalse(wire.aborted)
        wire.protocol._kaproto.abort(ConnectionClosed("third"))
        self.assertTrue(wire.aborted)
        self.assertIs(self.reasonOf(wire), reason)

    def test_abort(self) -> None:
        """
        Aborting unregisters the producer, so that the transport does not resume it later.
        """
        wire = self.plain()
        reason = KeepAliveTimeout(1, 2, 3)
        wire.protocol._kaproto.abort(reason)
        self.assertTrue(wire.aborted)
        self.assertIsNone(wire.transport.producer)
        self.assertIs(self.reasonOf(wire), reason)

    def test_peerClosed(self) -> None:
        """
        When the peer closes cleanly, the reason is a L{ConnectionClosed}.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        wire.lose()
        (reason,) = wire.protocol.reasons
        self.assertIsInstance(reason, ConnectionClosed)
        self.assertEqual(str(reason), "the peer closed the connection")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connectionLost(self) -> None:
        """
        When the connection breaks, the reason is the transport's.
        """
        wire = self.plain()
        error = ConnectionLost()
        wire.lose(error)
        self.assertEqual(wire.protocol.reasons, [error])

    def test_whenClosed(self) -> None:
        """
        C{whenClosed} fires with the reason after C{connectionClosed} has been called, even if that
        raises, and at once if the connection has closed before.
        """

        class Clumsy(Plain):
            def connectionClosed(self, reason: Exception) -> None:
                order.append("closed")
                raise ValueError("clumsy")

        order: list[str] = []
        wire = self.plain(Clumsy)
        first, second, givenUp = (wire.protocol.whenClosed() for _ in range(3))
        first.addCallback(lambda _: order.append("told"))
        givenUp.cancel()
        self.failureResultOf(givenUp, CancelledError)
        reason = ConnectionClosed("enough")
        wire.protocol._kaproto.abort(reason)
        self.assertEqual(order, [])
        wire.lose()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(order, ["closed", "told"])
        for each in (second, wire.protocol.whenClosed()):
            self.assertIs(self.successResultOf(each), reason)

    def test_noException(self) -> None:
        """
        An exception that ends the process, such as C{KeyboardInterrupt}, is not passed on as the
        reason.
        """
        wire = self.plain()
        wire.lose(KeyboardInterrupt())
        self.assertIsInstance(wire.protocol.reasons[0], ConnectionClosed)


class _Local(tcp.Connection):
    """
    A TCP transport on a UNIX socket pair.
    """

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Do nothing: a UNIX socket has no such option.
        """


class LingerTests(ProtocolTestCase):
    """
    Tests for closing while the peer is still writing.
    """

    def setUp(self) -> None:
        """
        Connect a protocol to one socket of a pair.
        """
        super().setUp()
        self.reactor = MemoryReactorClock()
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        self.peer.settimeout(1)
        self.protocol = self.plain().protocol
        self.transport = _Local(ours, self.protocol, self.reactor)
        self.transport.connected = True
        self.protocol.makeConnection(self.transport)
        self.connection = self.protocol._kaproto
        self.transport.startReading()
        self.reason = ConnectionClosed("enough")

    def turn(self) -> None:
        """
        Run one turn of the reactor.
        """
        for _ in range(3):
            if self.transport in self.reactor.getWriters():
                self.transport.doWrite()
        if self.transport in self.reactor.getReaders():
            why = self.transport.doRead()
            if isinstance(why, ConnectionDone):
                self.transport.readConnectionLost(Failure(why))

    def close(self) -> None:
        """
        Send a last message, and close.
        """
        self.connection.send(b"why")
        self.connection.disconnect(self.reason)
        self.turn()

    def test_writes(self) -> None:
        """
        A peer that is still writing can read the last message, then the end of the stream.  The
        connection ends when the peer closes.
        """
        self.close()
        for _ in range(3):
            self.peer.send(packMessage(HELLO))
            self.turn()
        self.assertEqual((self.peer.recv(10), self.peer.recv(10)), (b"why", b""))
        self.assertEqual((self.protocol.messages, self.protocol.reasons), ([], []))
        self.peer.close()
        self.turn()
        self.assertEqual(self.protocol.reasons, [self.reason])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notRead(self) -> None:
        """
        After closing, bytes from the peer are read and dropped, even if reading was paused before.
        """
        for pause in (Pause.CALLS, Pause.TURN):
            self.connection.pauseReading(pause)
        self.close()
        self.peer.send(b"more")
        self.turn()
        self.assertEqual(self.connection.incoming.bytesReceived, 4)
        self.connection.pauseReading(Pause.CONGESTION)
        self.assertIn(self.transport, self.reactor.getReaders())

    def test_stays(self) -> None:
        """
        A peer that was sent everything, and does not close, is closed after one second.
        """
        self.close()
        self.advance(0.9)
        self.reactor.advance(0)
        self.assertEqual(self.protocol.reasons, [])
        self.advance(0.2)
        self.reactor.advance(0)
        self.assertEqual(self.protocol.reasons, [self.reason])
        self.assertEqual((self.peer.recv(10), self.peer.recv(10)), (b"why", b""))

    def test_doesNotRead(self) -> None:
        """
        A peer that does not read is closed after C{closeTimeout} seconds.
        """
        self.connection.send(bytes(10_000_000))
        self.close()
        for seconds, aborted in ((4.9, False), (0.2, True)):
            self.advance(seconds)
            self.reactor.advance(0)
            self.assertEqual(bool(self.protocol.reasons), aborted)

    def test_sendsOn(self) -> None:
        """
        After closing, at most one message of the maximal size is read from a peer that keeps
        sending.
        """
        self.patch(endingModule, "MESSAGE_MAX", 1000)
        self.close()
        for size, ended in ((1000, False), (1, True)):
            self.peer.send(bytes(size))
            self.turn()
            self.reactor.advance(0)
            self.assertEqual(bool(self.protocol.reasons), ended)
        self.assertEqual((self.peer.recv(10), self.peer.recv(10)), (b"why", b""))

    def test_givenUp(self) -> None:
        """
        Aborting ends the wait, but the peer can still read what was sent.
        """
        self.close()
        self.connection.abort(ConnectionClosed("now"))
        self.reactor.advance(0)
        self.assertEqual(self.protocol.reasons, [self.reason])
        self.assertEqual((self.peer.recv(10), self.peer.recv(10)), (b"why", b""))
