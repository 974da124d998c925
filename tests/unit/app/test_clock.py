"""
Tests for L{kaproto.app.clock}.
"""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.clock import useMonotonicClock

HOUR = 3600.0


class Reactor(ReactorBase):
    """
    As much of a reactor as has timers, by a wall clock that the test sets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wall = 1_700_000_000.0
        self.seconds = self.readWall

    def readWall(self) -> float:
        """
        @return: what the clock on the wall shows.
        """
        return self.wall

    def installWaker(self) -> None:
        """
        Nobody sleeps.
        """


class UseMonotonicClockTests(SynchronousTestCase):
    """
    A reactor that does not mind when somebody sets the wall clock.
    """

    def setUp(self) -> None:
        """
        Make a reactor that goes by the wall clock.
        """
        self.reactor = Reactor()
        self.fired: list[str] = []

    def left(self, seconds: float, expected: float) -> None:
        """
        Check how much time is left until a point in time.
        """
        self.assertApproximates(seconds - time.monotonic(), expected, 1)

    def test_wallClock(self) -> None:
        """
        Without it, a timer fires an hour early when the clock is set forward by an hour.
        """
        self.reactor.callLater(HOUR / 2, self.fired.append, "early")
        self.reactor.wall += HOUR
        self.reactor.runUntilCurrent()
        self.assertEqual(self.fired, ["early"])

    def test_scheduledLater(self) -> None:
        """
        Timers that are scheduled from now on go by the monotonic clock, whatever happens to the
        one on the wall.
        """
        useMonotonicClock(self.reactor)
        call = self.reactor.callLater(HOUR / 2, self.fired.append, "early")
        self.reactor.callLater(0, self.fired.append, "due")
        self.reactor.wall += HOUR
        self.reactor.runUntilCurrent()
        self.reactor.wall -= 2 * HOUR
        self.reactor.runUntilCurrent()
        self.assertEqual(self.fired, ["due"])
        self.left(call.getTime(), HOUR / 2)

    def test_scheduledBefore(self) -> None:
        """
        Timers that were scheduled already keep the time they have left, also when they are put
        off afterwards.
        """
        call = self.reactor.callLater(HOUR, self.fired.append, "early")
        due = self.reactor.callLater(10, self.fired.append, "due")
        self.reactor.wall += 10
        useMonotonicClock(self.reactor)
        self.left(call.getTime(), HOUR - 10)
        self.reactor.runUntilCurrent()
        self.assertEqual(self.fired, ["due"])
        self.assertFalse(due.active())
        call.reset(60)
        self.left(call.getTime(), 60)

    def test_twice(self) -> None:
        """
        Doing it again changes nothing.
        """
        call = self.reactor.callLater(60, self.fired.append, "early")
        useMonotonicClock(self.reactor)
        at = call.getTime()
        useMonotonicClock(self.reactor)
        self.assertEqual(call.getTime(), at)

    def test_foreignTimer(self) -> None:
        """
        A timer that is none of Twisted's own is left alone.
        """
        self.patch(self.reactor, "getDelayedCalls", lambda: [object()])
        useMonotonicClock(self.reactor)
        self.assertIs(self.reactor.seconds, time.monotonic)

    def test_notAReactor(self) -> None:
        """
        What is none of Twisted's own reactors is left alone.
        """
        clock = Clock()
        useMonotonicClock(clock)
        self.assertEqual(clock.seconds(), 0)
