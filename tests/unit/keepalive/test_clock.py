"""
Tests for L{kaproto.keepalive.clock}.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, LoopingCall
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive.clock import MonotonicClock, monotonicClock


class FakeAlarm:
    """
    An alarm that the test rings.

    @ivar due: seconds until it should ring, infinite if it is stopped.
    @ivar sets: how often it was set.
    """

    def __init__(self, reactor: IReactorTime, ring: Callable[[], object]) -> None:
        self.due = inf
        self.ring = ring
        self.sets = 0

    def set(self, delay: float) -> None:
        """
        Record the delay.
        """
        self.due = delay
        self.sets += 1

    def stop(self) -> None:
        """
        Record that it is stopped.
        """
        self.due = inf


class TestClock(MonotonicClock):
    """
    A clock with a fake time and alarm.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.seconds = lambda: self.now
        super().__init__(Clock(), self.makeAlarm)

    def makeAlarm(self, reactor: IReactorTime, ring: Callable[[], object]) -> FakeAlarm:
        """
        Create and keep the alarm.
        """
        self.alarm = FakeAlarm(reactor, ring)
        return self.alarm

    def advance(self, seconds: float) -> None:
        """
        Advance the time, and ring the alarm whenever it is due.
        """
        end = self.now + seconds
        while self.alarm.due <= end - self.now:
            before = self.now
            self.now += self.alarm.due
            self.alarm.due = inf
            self.alarm.ring()
            if self.now == before and not self.alarm.due:
                # A call scheduled without delay waits for the next turn.
                return
        if self.alarm.due < inf:
            self.alarm.due -= end - self.now
        self.now = end


class MonotonicClockTests(SynchronousTestCase):
    """
    Tests for L{MonotonicClock}.
    """

    def setUp(self) -> None:
        """
        Create a clock.
        """
        self.clock = TestClock()
        self.made: list[object] = []

    def test_inOrder(self) -> None:
        """
        Calls are made when due, the earliest first, with their arguments.
        """
        self.clock.callLater(3, self.made.append, "late")
        self.clock.callLater(1, lambda *args, **kw: self.made.append((args, kw)), 1, two=2)
        self.clock.advance(0.9)
        self.assertEqual(self.made, [])
        self.clock.advance(0.2)
        self.assertEqual(self.made, [((1,), {"two": 2})])
        self.clock.advance(2)
        self.assertEqual(self.made[1:], ["late"])

    def test_alarmIsSetWhenNeeded(self) -> None:
        """
        The alarm is set again only for an earlier call, and stopped after the last one.
        """
        first = self.clock.callLater(5, self.made.append, 1)
        later = self.clock.callLater(9, self.made.append, 2)
        self.assertEqual((self.clock.alarm.due, self.clock.alarm.sets), (5, 1))
        earlier = self.clock.callLater(2, self.made.append, 3)
        self.assertEqual((self.clock.alarm.due, self.clock.alarm.sets), (2, 2))
        for call in (earlier, first, later):
            self.assertLess(self.clock.alarm.due, inf)
            call.cancel()
        self.assertEqual(self.clock.alarm.due, inf)
        self.clock.callLater(1, self.made.append, 4)
        self.clock.advance(1)
        self.assertEqual((self.made, self.clock.alarm.due), ([4], inf))

    def test_noDelay(self) -> None:
        """
        A call that schedules another without delay lets the reactor's turn end in between.
        """

        def again() -> None:
            self.made.append(self.clock.now)
            self.clock.callLater(0, again)

        again()
        for turn in range(2, 5):
            self.clock.alarm.ring()
            self.assertEqual(len(self.made), turn)

    def test_noDelayAfterManyCancelled(self) -> None:
        """
        A call that schedules another without delay is made once a turn, even if it cancels other
        calls.
        """

        def again() -> None:
            self.made.append(self.clock.now)
            others = [self.clock.callLater(1, again) for _ in range(3)]
            self.clock.callLater(0, again)
            for each in others:
                each.cancel()

        self.clock.callLater(0, again)
        self.clock.alarm.ring()
        self.assertEqual(len(self.made), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_overdue(self) -> None:
        """
        An overdue call is made at the next turn.
        """
        self.clock.callLater(5, self.made.append, 1)
        self.clock.now += 60
        self.clock.callLater(70, self.made.append, 2)
        self.clock.alarm.ring()
        self.assertEqual((self.made, self.clock.alarm.due), ([1], 70))

    def test_cancelledByAnother(self) -> None:
        """
        A call can cancel another one that is due at the same time.
        """
        other = self.clock.callLater(1.1, self.made.append, 1)
        self.clock.callLater(1, other.cancel)
        self.clock.now += 2
        self.clock.alarm.ring()
        self.assertEqual((self.made, self.clock.getDelayedCalls()), ([], []))

    def test_cancelledBefore(self) -> None:
        """
        A call that was cancelled before it was due is not made.
        """
        for delay in (1, 2):
            self.clock.callLater(delay, self.made.append, delay)
        self.clock.advance(0.5)
        self.clock.getDelayedCalls()[0].cancel()
        self.clock.now += 3
        self.clock.alarm.ring()
        self.assertEqual(self.made, [2])

    def test_moved(self) -> None:
        """
        A call can be delayed and reset; for an earlier time the alarm is set again.
        """
        call = self.clock.callLater(5, self.made.append, 1)
        call.delay(10)
        self.clock.advance(6)
        self.assertEqual((self.made, self.clock.alarm.due), ([], 9))
        call.reset(20)
        call.reset(2)
        self.assertEqual(self.clock.alarm.due, 2)
        call.delay(-1)
        self.assertEqual(self.clock.alarm.due, 1)
        self.clock.advance(1)
        self.assertEqual(self.made, [1])

    def test_failure(self) -> None:
        """
        A call that raises an error is logged, and later calls are made.
        """
        self.clock.callLater(1, lambda: 1 / 0)
        self.clock.callLater(1.1, self.made.append, 1)
        self.clock.advance(2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.made, [1])

    def test_loopingCall(self) -> None:
        """
        A L{LoopingCall} runs on this clock.
        """
        loop = LoopingCall(lambda: self.made.append(self.clock.now))
        loop.clock = self.clock
        loop.start(0.5, now=False)
        self.clock.advance(2.2)
        self.assertEqual(self.made, [1000.5, 1001.0, 1001.5, 1002.0])
        loop.stop()
        self.assertEqual((self.clock.getDelayedCalls(), self.clock.alarm.due), ([], inf))

    def test_manyCancelled(self) -> None:
        """
        Cancelled calls do not accumulate.
        """
        keep = self.clock.callLater(5, self.made.append, 1)
        for _ in range(1000):
            self.clock.callLater(10, self.made.append, 2).cancel()
            self.assertLess(len(self.clock._calls) + len(self.clock._new), 5)
        self.assertEqual(self.clock.getDelayedCalls(), [keep])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["call", "call", "cancel", "reset", "delay", "advance"]),
                st.integers(0, 40),
                st.integers(0, 9),
            ),
            max_size=40,
        )
    )
    def test_likeTwisteds(self, steps: list[tuple[str, int, int]]) -> None:
        """
        Calls are made at the same times as on L{twisted.internet.task.Clock}, in any order of
        events.
        """
        clock, model = TestClock(), Clock()
        model.rightNow = clock.now
        made: list[tuple[float, int]] = []
        expected: list[tuple[float, int]] = []
        calls = []
        for number, (step, quarters, which) in enumerate([*steps, ("advance", 400, 0)]):
            seconds = quarters / 4
            if step == "call":
                calls.append(
                    (
                        clock.callLater(seconds, lambda n: made.append((clock.now, n)), number),
                        model.callLater(
                            seconds, lambda n: expected.append((model.seconds(), n)), number
                        ),
                    )
                )
            elif step == "advance":
                # A quarter of a second at a time, so that both make their calls at the same times.
                for _ in range(quarters + 1):
                    clock.advance(0)
                    model.advance(0)
                    clock.advance(0.25)
                    model.advance(0.25)
            elif which < len(calls):
                for call in calls[which]:
                    if call.active() and step == "cancel":
                        call.cancel()
                    elif call.active():
                        getattr(call, step)(seconds)
        self.assertEqual(sorted(made), sorted(expected))
        self.assertEqual([time for time, _ in made], sorted(time for time, _ in made))
        self.assertEqual((clock.getDelayedCalls(), clock.alarm.due), ([], inf))


class MonotonicClockOfTests(SynchronousTestCase):
    """
    Tests for L{monotonicClock}.
    """

    def test_reactor(self) -> None:
        """
        The clock of a reactor is created once.
        """
        ours = IReactorTime(reactor)
        clock = monotonicClock(ours)
        assert isinstance(clock, MonotonicClock)
        self.assertIs(clock.reactor, ours)
        self.assertIs(monotonicClock(ours), clock)
        self.assertIs(monotonicClock(clock), clock)

    def test_standIn(self) -> None:
        """
        A test's clock or reactor is used as it is.
        """
        for clock in (Clock(), MemoryReactorClock()):
            self.assertIs(monotonicClock(clock), clock)
