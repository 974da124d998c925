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
    What the peer has to do in time.
    """

    def test_missed(self) -> None:
        """
        A peer that does not do what is expected in time is aborted, and the reason says what
        that was and how long it had.
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
        A stall of this process, however long, takes only a part of the deadline, and the peer has
        the rest of it.
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
        Nobody misses a deadline while what they have sent in time is waiting to be read, but
        whoever sends without end misses it a little later.
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
        A deadline that was met leaves no timer, and clearing it twice does no harm.
        """
        wire = self.plain()
        wire.protocol._kaproto.closing.setDeadline(2.5, "it did not sing")
        wire.protocol._kaproto.closing.clearDeadline()
        wire.protocol._kaproto.closing.clearDeadline()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_oneAtATime(self) -> None:
        """
        A second deadline takes the place of the first.
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
    How an end closes, and what it is told about it.
    """

    def test_disconnect(self) -> None:
        """
        Disconnecting sends what was written, but nothing that is written afterwards, and stops
        the pings; when the transport is gone, so is the timer.
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
        A peer that does not read what was written before disconnecting is aborted after
        C{closeTimeout}, and a dead one after the time that the caller gives.
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
        A connection to a dead peer is closed as soon as everything has been sent; its first reason
        stays.
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
        Who is closing already does not begin again, and keeps its reason; but to abort ends at
        once what would have waited for the peer.
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
        Aborting lets go of the transport as its producer, so that nobody resumes a dead end.
        """
        wire = self.plain()
        reason = KeepAliveTimeout(1, 2, 3)
        wire.protocol._kaproto.abort(reason)
        self.assertTrue(wire.aborted)
        self.assertIsNone(wire.transport.producer)
        self.assertIs(self.reasonOf(wire), reason)

    def test_peerClosed(self) -> None:
        """
        When the peer closes in good order, the reason is a L{ConnectionClosed}.
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
        When the connection breaks, the reason is what the transport reported.
        """
        wire = self.plain()
        error = ConnectionLost()
        wire.lose(error)
        self.assertEqual(wire.protocol.reasons, [error])

    def test_whenClosed(self) -> None:
        """
        Whoever asks is told when the connection is gone, and why, after the connection itself;
        also if that makes a mistake then, and if it has been gone for long.
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
        What ends a process is no reason for a connection, which is then just closed.
        """
        wire = self.plain()
        wire.lose(KeyboardInterrupt())
        self.assertIsInstance(wire.protocol.reasons[0], ConnectionClosed)


class _Local(tcp.Connection):
    """
    A connection over a socket that is not TCP's.
    """

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        There is nothing to set.
        """


class LingerTests(ProtocolTestCase):
    """
    A peer that is writing when this end closes.
    """

    def setUp(self) -> None:
        """
        Connect an end to a socket.
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
        Do what the reactor does in a turn.
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
        Say why, and close.
        """
        self.connection.send(b"why")
        self.connection.disconnect(self.reason)
        self.turn()

    def test_writes(self) -> None:
        """
        It can finish what it writes, reads why, then the end, and closes its own end; that ends
        the connection.
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
        So it is if its calls were not read before, for whatever reason.
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
        One that has been sent everything, and does not close its end, has a second for it.
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
        One that does not read has longer, until the bytes that are left are dropped.
        """
        self.connection.send(bytes(10_000_000))
        self.close()
        for seconds, aborted in ((4.9, False), (0.2, True)):
            self.advance(seconds)
            self.reactor.advance(0)
            self.assertEqual(bool(self.protocol.reasons), aborted)

    def test_sendsOn(self) -> None:
        """
        One that sends on and on is waited for as long as a message of the greatest size takes.
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
        To abort ends the wait, and leaves the peer what it has yet to read.
        """
        self.close()
        self.connection.abort(ConnectionClosed("now"))
        self.reactor.advance(0)
        self.assertEqual(self.protocol.reasons, [self.reason])
        self.assertEqual((self.peer.recv(10), self.peer.recv(10)), (b"why", b""))
