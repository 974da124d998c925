"""
Tests for L{kaproto.rpc.backpressure}.
"""

from __future__ import annotations

from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.message import (
    PONG,
)
from tests.support import (
    FEATURE_KEEPALIVE,
    KEEPALIVE,
    Probe,
    Wire,
)
from tests.support_server import (
    AUTH_LIST,
    LIMITS,
    ServerTestCase,
)


class BackpressureTests(ServerTestCase):
    """
    Tests for clients that send calls faster than they are answered, or faster than they read.
    """

    def test_fullPausesReading(self) -> None:
        """
        When too many calls wait, reading is paused: the client's silence does not count, and it
        gets a pong each second.  Reading resumes when there is room again.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        self.callLater(wire, LIMITS.runningCalls + LIMITS.waitingCalls - 1)
        self.assertTrue(wire.reading)
        wire.feed(Probe.message(Probe.LATER))
        self.assertFalse(wire.reading)
        self.advance(70)
        self.assertFalse(wire.closing)
        self.assertEqual(wire.taken(), PONG * 70)
        self.probe.waiting.pop().callback(b"")
        self.assertTrue(wire.reading)
        self.assertUsableLater(wire)

    def assertUsableLater(self, wire: Wire[KeepAliveServerProtocol]) -> None:
        """
        Check that all calls are answered in the end.
        """
        wire.take()
        wire.feed(AUTH_LIST._replace(serial=1000))
        while self.probe.waiting:
            self.answerAll()
        self.assertIn(1000, [reply.serial for reply in wire.take()])

    def test_moreInOneRead(self) -> None:
        """
        Calls that were already read when the limit is reached are kept, and reading is paused once.
        """
        wire = self.connectOpen()
        self.callLater(wire, LIMITS.runningCalls + LIMITS.waitingCalls + 50)
        self.assertFalse(wire.reading)
        self.answerAll()
        self.assertFalse(wire.reading)
        self.answerAll()
        self.answerAll()
        self.assertTrue(wire.reading)
        while self.probe.waiting:
            self.answerAll()
        self.assertEqual(len(wire.take()), LIMITS.runningCalls + LIMITS.waitingCalls + 50)

    def test_congested(self) -> None:
        """
        The calls of a client that does not read its replies are not started until it reads again.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto.pauseProducing()
        wire.feed(Probe.message(Probe.ECHO), Probe.message(Probe.ECHO))
        self.assertEqual(self.probe.calls, [])
        self.assertTrue(wire.reading)
        wire.protocol._kaproto.resumeProducing()
        self.assertFalse(wire.protocol._kaproto.outgoing.congested)
        self.assertEqual(len(wire.take()), 2)

    def test_unreadReplies(self) -> None:
        """
        A client that keeps calling and does not read has a deadline from the time when reading is
        paused.  Then it is dropped, counted and logged.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto.pauseProducing()
        self.callLater(wire, LIMITS.waitingCalls)
        self.assertFalse(wire.reading)
        self.advance(59)
        self.assertFalse(wire.closing)
        self.advance(2)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.counted(wire, opened=1, deadlinesMissed=1)
        (line,) = self.logged()
        self.assertIn("it did not read the replies to its calls within 60 s", line)

    def test_readsAgain(self) -> None:
        """
        A client that reads again before the deadline keeps its connection.
        """
        wire = self.connectOpen()
        wire.protocol._kaproto.pauseProducing()
        self.callLater(wire, LIMITS.waitingCalls)
        self.advance(59)
        wire.protocol._kaproto.resumeProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(wire.reading)

    def test_unreadRepliesLater(self) -> None:
        """
        A client that is paused because of slow calls, and then does not read their replies, has the
        same deadline, since keepalive cannot detect it.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        self.callLater(wire, LIMITS.runningCalls + LIMITS.waitingCalls)
        self.assertFalse(wire.reading)
        wire.protocol._kaproto.pauseProducing()
        self.answerAll()
        self.advance(61)
        self.assertTrue(wire.aborted)

    def test_unreadBeforeOpen(self) -> None:
        """
        A client that was paused before it opened still has to meet the deadline for opening.
        """
        wire = self.connect()
        wire.protocol._kaproto.pauseProducing()
        wire.feed(*[AUTH_LIST] * LIMITS.waitingCalls)
        self.advance(5)
        wire.protocol._kaproto.resumeProducing()
        self.advance(6)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.counted(wire, deadlinesMissed=1)
