"""
Tests for L{kaproto.rpc.closing}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost

from kaproto.errors import (
    ConnectionClosed,
    DeadlineMissed,
    KeepAliveTimeout,
)
from kaproto.keepalive.liveness import KeepAlive
from kaproto.rpc import closing as endingModule
from tests.support import KEEPALIVE
from tests.support_protocol import Plain, ProtocolTestCase


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
        C{closeTimeout}, or sooner where the caller says so.
        """
        for timeout, expected in ((None, 5), (0.5, 0.5)):
            wire = self.plain()
            wire.protocol._kaproto.disconnect(ConnectionClosed("enough"), timeout)
            self.clock.advance(expected - 0.1)
            self.assertFalse(wire.aborted)
            self.clock.advance(0.2)
            self.assertTrue(wire.aborted)
            self.assertIsInstance(self.reasonOf(wire), ConnectionClosed)

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
