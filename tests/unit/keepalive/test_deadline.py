"""
Tests for L{kaproto.keepalive.deadline}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive.deadline import PARTS, Deadline
from kaproto.keepalive.pacemaker import STALL, TICK


class DeadlineTests(SynchronousTestCase):
    """
    Tests for L{Deadline}.
    """

    def setUp(self) -> None:
        """
        Create a clock.
        """
        self.clock = Clock()
        self.expired: list[float] = []

    def deadline(
        self, seconds: float, isUnread: Callable[[], bool | None] = lambda: None
    ) -> Deadline:
        """
        Set a deadline that records when it expires.
        """
        clock = self.clock

        def expire() -> None:
            self.expired.append(clock.seconds())

        return Deadline(clock, seconds, expire, isUnread)

    def advance(self, seconds: float) -> None:
        """
        Advance the clock without a stall.
        """
        self.clock.pump([TICK] * round(seconds / TICK))

    def test_expires(self) -> None:
        """
        A deadline is active until it expires, once, at its time.
        """
        for seconds in (0.5, 10, 60):
            self.expired.clear()
            start = self.clock.seconds()
            deadline = self.deadline(seconds)
            self.advance(seconds - TICK)
            self.assertEqual(self.expired, [])
            self.assertTrue(deadline.active())
            self.advance(100)
            (at,) = self.expired
            self.assertApproximates(at - start, seconds, 2 * TICK)
            self.assertFalse(deadline.active())
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_atOnce(self) -> None:
        """
        A deadline of 0 s expires in the next turn of the reactor, not before.
        """
        self.deadline(0)
        self.assertEqual(self.expired, [])
        self.clock.advance(0)
        self.assertEqual(self.expired, [0])

    def test_lateTurns(self) -> None:
        """
        In a process whose turns are always a little late, a deadline expires hardly later.
        """
        self.deadline(10)
        self.clock.pump([0.3] * 40)
        self.assertApproximates(self.expired[0], 10, 0.6)

    def test_stall(self) -> None:
        """
        A stall counts for at most one part of the deadline and the delay of one turn.
        """
        for before in (0.0, 4.0, 9.0):
            self.expired.clear()
            start = self.clock.seconds()
            self.deadline(10)
            self.advance(before)
            self.clock.advance(1000)
            if before < 10 - 10 / PARTS:
                self.assertEqual(self.expired, [])
            self.advance(20)
            (at,) = self.expired
            used = at - start - 1000
            self.assertTrue(10 - 10 / PARTS - STALL - TICK <= used <= 10 + TICK, used)

    def test_readsFirst(self) -> None:
        """
        Before a deadline expires, the reactor reads the sockets, which may cancel it.
        """
        deadline = self.deadline(1)
        self.advance(1 - TICK)
        # Do what the reactor does in the turn after the last part.
        part = self.clock.calls.pop()
        self.clock.rightNow = part.getTime()
        part.func(*part.args, **part.kw)
        self.assertEqual(self.expired, [])
        deadline.cancel()
        self.advance(2)
        self.assertEqual(self.expired, [])

    def test_unread(self) -> None:
        """
        If bytes still wait to be read, because there are too many for one turn, the deadline
        expires one part later. Reading them may cancel it.
        """
        cases: list[tuple[Callable[[], bool | None], float]] = [
            (lambda: False, 8),
            (lambda: None, 8),
            (lambda: True, 9),
        ]
        for isUnread, expected in cases:
            self.expired.clear()
            start = self.clock.seconds()
            deadline = self.deadline(8, isUnread)
            self.advance(12)
            (at,) = self.expired
            self.assertApproximates(at - start, expected, PARTS * TICK)
            self.assertFalse(deadline.active())
        self.expired.clear()
        deadline = self.deadline(8, lambda: True)
        self.advance(8.5)
        self.assertTrue(deadline.active())
        deadline.cancel()
        self.advance(8)
        self.assertEqual((self.expired, self.clock.getDelayedCalls()), ([], []))

    def test_cancel(self) -> None:
        """
        A cancelled deadline never expires and leaves no timer. Cancelling it again, or after it has
        expired, is harmless.
        """
        deadline = self.deadline(1)
        self.advance(0.5)
        deadline.cancel()
        self.assertFalse(deadline.active())
        deadline.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.advance(2)
        self.assertEqual(self.expired, [])
        late = self.deadline(0)
        self.clock.advance(0)
        late.cancel()
        self.assertEqual(self.expired, [self.clock.seconds()])
