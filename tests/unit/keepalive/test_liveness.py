"""
Tests for L{kaproto.keepalive.liveness}.

Times are multiples of 1/64 s wherever they are compared, so that no rounding comes into it.
"""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive.liveness import INTERVAL_MAX, KeepAlive, Liveness, Verdict
from tests.strategies import keepAlives

TICKS = 64
"""
How many of the tests' units of time make a second.
"""


class KeepAliveTests(SynchronousTestCase):
    """
    An interval and a count.
    """

    def test_defaults(self) -> None:
        """
        The defaults are libvirtd's: 5 s and 5 pings.
        """
        self.assertEqual(KeepAlive(), KeepAlive(5, 5))

    @given(keepAlives())
    def test_zeroMeansNone(self, keepAlive: KeepAlive) -> None:
        """
        There is no keepalive if either is zero, and there is if neither is.
        """
        self.assertEqual(keepAlive.enabled, keepAlive.interval > 0 and keepAlive.count > 0)

    def test_zeros(self) -> None:
        """
        Zero in either or both is no keepalive, whole numbers and fractions alike.
        """
        for interval, count in [(0, 5), (5, 0), (0, 0), (0.0, 1), (-0.0, 1)]:
            self.assertFalse(KeepAlive(interval, count).enabled)
        for interval, count in [(1, 1), (0.001, 1), (INTERVAL_MAX, 2**40)]:
            self.assertTrue(KeepAlive(interval, count).enabled)

    def test_notNumbers(self) -> None:
        """
        What is no number of seconds or no whole number of pings is a type error, which names the
        argument and what was given.
        """
        for interval in ("5", None, True, Fraction(1, 2), 5j, b"5"):
            error = self.assertRaises(TypeError, KeepAlive, interval, 5)
            self.assertIn("interval", str(error))
            self.assertIn(repr(interval), str(error))
        for count in ("5", None, True, 5.0, math.nan):
            error = self.assertRaises(TypeError, KeepAlive, 5, count)
            self.assertIn("count", str(error))
            self.assertIn(repr(count), str(error))

    def test_numbersOutOfBounds(self) -> None:
        """
        Negative numbers, infinity, what is not a number, and intervals longer than libvirt takes
        are value errors, which name the argument and what was given.
        """
        for interval in (-1, -0.001, math.inf, -math.inf, math.nan, 2147484, 2147483.5):
            error = self.assertRaises(ValueError, KeepAlive, interval, 5)
            self.assertIn("interval is from 0 to 2147483 seconds", str(error))
            self.assertIn(repr(interval), str(error))
        self.assertEqual(KeepAlive(2147483, 5).interval, INTERVAL_MAX)
        error = self.assertRaises(ValueError, KeepAlive, 5, -1)
        self.assertIn("count", str(error))
        self.assertIn("-1", str(error))

    def test_unchangeable(self) -> None:
        """
        Nobody can change one that somebody else may hold.
        """
        self.assertRaises(AttributeError, setattr, KeepAlive(), "interval", 1)


class LivenessTests(SynchronousTestCase):
    """
    One peer's life, on paper.
    """

    def started(self, interval: float, count: int, now: float = 0) -> Liveness:
        """
        Watch a peer that was heard just now.
        """
        liveness = Liveness(now)
        liveness.start(KeepAlive(interval, count))
        return liveness

    def history(self, liveness: Liveness, until: float) -> list[tuple[float, Verdict]]:
        """
        Check at every tick up to a time, and list all that there was to do.
        """
        found: list[tuple[float, Verdict]] = []
        for tick in range(int(until * TICKS) + 1):
            verdict = liveness.check(tick / TICKS)
            if verdict is not Verdict.WAIT:
                found.append((tick / TICKS, verdict))
                if verdict is Verdict.DEAD:
                    break
        return found

    def test_deathOfASilentPeer(self) -> None:
        """
        A silent peer is pinged after each interval, as many times as the count says, and is dead
        an interval after the last ping.
        """
        self.assertEqual(
            self.history(self.started(2, 3), 60),
            [
                (2, Verdict.PING),
                (4, Verdict.PING),
                (6, Verdict.PING),
                (8, Verdict.DEAD),
            ],
        )

    @given(st.integers(1, 200), st.integers(1, 20), st.integers(0, 10**6))
    def test_timeOfDeath(self, interval: int, count: int, begin: int) -> None:
        """
        Checked when due, a silent peer is dead C{interval * (count + 1)} after its last byte,
        whatever the two are, after exactly C{count} pings.
        """
        liveness = self.started(interval / TICKS, count, begin / TICKS)
        for pings in range(count):
            self.assertEqual(liveness.unanswered, pings)
            self.assertEqual(liveness.check(liveness.due() - 1 / TICKS), Verdict.WAIT)
            self.assertEqual(liveness.check(liveness.due()), Verdict.PING)
        self.assertEqual(liveness.check(liveness.due() - 1 / TICKS), Verdict.WAIT)
        self.assertEqual(liveness.due(), (begin + interval * (count + 1)) / TICKS)
        self.assertEqual(liveness.check(liveness.due()), Verdict.DEAD)

    def test_anySignOfLife(self) -> None:
        """
        Hearing anything answers all pings so far, and silence is counted anew from then.
        """
        liveness = self.started(1, 2)
        for now in (1.0, 2.0):
            self.assertEqual(liveness.check(now), Verdict.PING)
        liveness.hear(2.75)
        self.assertEqual(liveness.unanswered, 0)
        self.assertEqual(liveness.due(), 3.75)
        self.assertEqual(liveness.check(3), Verdict.WAIT)
        for now in (3.75, 4.75):
            self.assertEqual(liveness.check(now), Verdict.PING)
        self.assertEqual(liveness.check(5.75), Verdict.DEAD)

    def test_signsSetWithoutACall(self) -> None:
        """
        The receive path may set what L{Liveness.hear} sets, to the same effect.
        """
        liveness = self.started(1, 1)
        self.assertEqual(liveness.check(1), Verdict.PING)
        liveness.heard = 1.5
        liveness.unanswered = 0
        self.assertEqual(liveness.due(), 2.5)
        self.assertEqual(liveness.check(2), Verdict.WAIT)
        self.assertEqual(liveness.check(2.5), Verdict.PING)

    def test_notWatched(self) -> None:
        """
        A peer that is not watched, not yet or not any more, is neither pinged nor dead.
        """
        liveness = Liveness(0)
        self.assertEqual(liveness.check(10**9), Verdict.WAIT)
        liveness.start(KeepAlive(1, 1))
        self.assertEqual(liveness.check(1), Verdict.PING)
        liveness.stop()
        self.assertEqual(liveness.check(10**9), Verdict.WAIT)

    def test_nothingToStart(self) -> None:
        """
        Zeros cannot be started, and what was running goes on.
        """
        liveness = self.started(1, 1)
        for zero in (KeepAlive(0, 5), KeepAlive(5, 0)):
            error = self.assertRaises(ValueError, liveness.start, zero)
            self.assertIn("stop()", str(error))
        self.assertEqual(liveness.check(1), Verdict.PING)

    def test_silenceBeforeStart(self) -> None:
        """
        Silence before the watch began counts: the first ping is due an interval after the last
        byte, not after the start.
        """
        liveness = Liveness(0)
        liveness.hear(3)
        liveness.start(KeepAlive(5, 2))
        self.assertEqual(liveness.due(), 8)
        self.assertEqual(liveness.check(7.75), Verdict.WAIT)
        self.assertEqual(liveness.check(8), Verdict.PING)

    def test_replacedSettings(self) -> None:
        """
        A second start applies at once, in either direction, to the silence that there was, and
        earlier pings are not held against the peer.
        """
        liveness = self.started(10, 5)
        liveness.start(KeepAlive(1, 2))
        self.assertEqual(
            self.history(liveness, 60), [(1, Verdict.PING), (2, Verdict.PING), (3, Verdict.DEAD)]
        )
        liveness = self.started(1, 1)
        self.assertEqual(liveness.check(1), Verdict.PING)
        liveness.start(KeepAlive(4, 1))
        self.assertEqual(liveness.unanswered, 0)
        self.assertEqual(self.history(liveness, 60), [(4, Verdict.PING), (8, Verdict.DEAD)])

    def test_smallDelays(self) -> None:
        """
        Checks that are a little late, as all timers are, do not add up: death comes when it
        would have come anyway.
        """
        liveness = self.started(2, 3)
        for due in (2, 4, 6):
            self.assertEqual(liveness.check(due + 0.25), Verdict.PING)
        self.assertEqual(liveness.check(7.75), Verdict.WAIT)
        self.assertEqual(liveness.check(8), Verdict.DEAD)

    def test_greatDelays(self) -> None:
        """
        A check that is very late counts one interval, however many have passed, and gives the
        peer half an interval at least before the next ping, and before death.
        """
        liveness = self.started(2, 2)
        self.assertEqual(liveness.check(100), Verdict.PING)
        for now in (100, 100.25, 100.75):
            self.assertEqual(liveness.check(now), Verdict.WAIT)
        self.assertEqual(liveness.check(101), Verdict.PING)
        self.assertEqual(liveness.check(102.75), Verdict.WAIT)
        self.assertEqual(liveness.check(103), Verdict.DEAD)

    def test_deathIsLasting(self) -> None:
        """
        The dead stay dead until they are heard.
        """
        liveness = self.started(1, 1)
        self.assertEqual(liveness.check(1), Verdict.PING)
        for now in (2, 2, 50):
            self.assertEqual(liveness.check(now), Verdict.DEAD)
        liveness.hear(51)
        self.assertEqual(liveness.check(51), Verdict.WAIT)

    def test_heardInTimeTakenBack(self) -> None:
        """
        A peer that was heard at a time that has been taken back since, because nobody was
        looking, counts as heard when that is found: silence begins then.
        """
        liveness = self.started(1, 1)
        liveness.hear(3600)
        self.assertEqual(liveness.check(2), Verdict.WAIT)
        self.assertEqual(liveness.heard, 2)
        self.assertEqual(liveness.due(), 3)
        self.assertEqual(
            [liveness.check(now) for now in (2.75, 3, 3.75, 4)],
            [Verdict.WAIT, Verdict.PING, Verdict.WAIT, Verdict.DEAD],
        )

    def test_timeout(self) -> None:
        """
        The error about a dead peer has the interval, the count and the silence.
        """
        liveness = self.started(1.5, 2, 10)
        error = liveness.timeout(14.5)
        self.assertEqual((error.interval, error.count, error.silence), (1.5, 2, 4.5))


class PauseTests(SynchronousTestCase):
    """
    Times at which this end does not read.
    """

    def test_silenceDoesNotCount(self) -> None:
        """
        A pause, however long, does not count: what was left of the interval is left after it.
        """
        liveness = Liveness(0)
        liveness.start(KeepAlive(2, 1))
        liveness.pause(1.5)
        self.assertEqual(liveness.check(1000), Verdict.WAIT)
        liveness.resume(1001.5)
        self.assertEqual(liveness.due(), 1002)
        self.assertEqual(liveness.check(1001.75), Verdict.WAIT)
        self.assertEqual(liveness.check(1002), Verdict.PING)
        self.assertEqual(liveness.timeout(1002).silence, 2)

    def test_unansweredPings(self) -> None:
        """
        The time that a ping was given to be answered is made up for as well.
        """
        liveness = Liveness(0)
        liveness.start(KeepAlive(2, 1))
        self.assertEqual(liveness.check(2), Verdict.PING)
        liveness.pause(3)
        self.assertEqual(liveness.check(500), Verdict.WAIT)
        liveness.resume(1003)
        self.assertEqual(liveness.check(1003.75), Verdict.WAIT)
        self.assertEqual(liveness.check(1004), Verdict.DEAD)
        self.assertEqual(liveness.timeout(1004).silence, 4)

    def test_heardDuringAPause(self) -> None:
        """
        Bytes that were on their way when the pause began are a sign of life, and the silence
        begins when reading does.
        """
        liveness = Liveness(0)
        liveness.start(KeepAlive(2, 1))
        self.assertEqual(liveness.check(2), Verdict.PING)
        liveness.pause(3)
        liveness.hear(4)
        liveness.resume(10)
        self.assertEqual(liveness.unanswered, 0)
        self.assertEqual(liveness.due(), 12)

    def test_twice(self) -> None:
        """
        Pausing twice is pausing once, from the first time on; resuming twice is resuming once;
        and resuming what was not paused is nothing.
        """
        liveness = Liveness(0)
        liveness.start(KeepAlive(2, 1))
        liveness.resume(1)
        self.assertEqual(liveness.due(), 2)
        liveness.pause(1)
        liveness.pause(5)
        liveness.resume(11)
        liveness.resume(100)
        self.assertEqual(liveness.due(), 12)

    def test_startedDuringAPause(self) -> None:
        """
        A watch that begins during a pause begins with the silence that there was before it.
        """
        liveness = Liveness(0)
        liveness.pause(1)
        liveness.start(KeepAlive(2, 1))
        self.assertEqual(liveness.check(50), Verdict.WAIT)
        liveness.resume(101)
        self.assertEqual(liveness.due(), 102)


class Model(RuleBasedStateMachine):
    """
    L{Liveness}, and beside it a naive account of the same events: a list of the pings sent since
    the peer was last heard, on a clock of whole ticks that stands still while nobody is reading.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.looked = 0
        self.paused = False
        self.heardAt = 0
        self.pings: list[int] = []
        self.dues: list[int] = []
        self.running: tuple[int, int] | None = None
        self.liveness = Liveness(0)

    def seconds(self) -> float:
        """
        The time as L{Liveness} is told.
        """
        return self.now / TICKS

    def nextDue(self) -> int:
        """
        When the next ping, or death, is due: an interval after the last byte, and from then on an
        interval after the one before was due, but if that one was sent more than half an
        interval late, half an interval from then.
        """
        assert self.running is not None
        interval, _count = self.running
        if not self.pings:
            return self.heardAt + interval
        return max(self.dues[-1] + interval, self.pings[-1] + interval // 2)

    def expected(self) -> Verdict:
        """
        What there should be to do.
        """
        if self.running is None or self.paused or self.looked < self.nextDue():
            return Verdict.WAIT
        return Verdict.DEAD if len(self.pings) == self.running[1] else Verdict.PING

    @rule(ticks=st.integers(0, 40) | st.integers(0, 5000))
    def elapse(self, ticks: int) -> None:
        """
        Let time pass.
        """
        self.now += ticks
        if not self.paused:
            self.looked += ticks

    @precondition(lambda self: self.running is not None and not self.paused)
    @rule(late=st.integers(0, 3))
    def elapseUntilDue(self, late: int) -> None:
        """
        Let time pass until there is something to do, or a moment longer.
        """
        self.elapse(max(0, self.nextDue() + late - self.looked))

    @rule()
    def hear(self) -> None:
        """
        Hear something.
        """
        self.liveness.hear(self.seconds())
        self.heardAt = self.looked
        self.pings, self.dues = [], []

    @rule(ticks=st.integers(1, 5000))
    def hearInTimeTakenBack(self, ticks: int) -> None:
        """
        Hear something during a stall, before that time is taken back.
        """
        self.liveness.hear((self.now + ticks) / TICKS)
        assert self.liveness.check(self.seconds()) is Verdict.WAIT
        self.heardAt = self.looked
        self.pings, self.dues = [], []

    @rule()
    def check(self) -> None:
        """
        Check, compare, and see that the verdict is one that the peer deserves.
        """
        expected = self.expected()
        verdict = self.liveness.check(self.seconds())
        assert verdict is expected, (verdict, expected)
        if verdict is Verdict.WAIT:
            return
        assert self.running is not None
        interval, count = self.running
        silence = self.looked - self.heardAt
        assert silence >= interval * (len(self.pings) + 1)
        if self.pings:
            assert self.looked - self.pings[-1] >= interval / 2
        if verdict is Verdict.DEAD:
            assert len(self.pings) == count
            assert self.liveness.timeout(self.seconds()).silence == silence / TICKS
            return
        self.dues.append(self.nextDue())
        self.pings.append(self.looked)
        assert self.liveness.unanswered == len(self.pings) <= count

    @rule(halfInterval=st.integers(1, 64), count=st.integers(1, 4))
    def start(self, halfInterval: int, count: int) -> None:
        """
        Start to watch, or go on with another interval and count.
        """
        self.liveness.start(KeepAlive(2 * halfInterval / TICKS, count))
        self.running = (2 * halfInterval, count)
        self.pings, self.dues = [], []

    @rule()
    def stop(self) -> None:
        """
        Stop watching.
        """
        self.liveness.stop()
        self.running = None

    @rule()
    def pause(self) -> None:
        """
        Stop reading.
        """
        self.liveness.pause(self.seconds())
        self.paused = True

    @rule()
    def resume(self) -> None:
        """
        Read on.
        """
        self.liveness.resume(self.seconds())
        self.paused = False

    @precondition(lambda self: self.running is not None and not self.paused)
    @rule()
    def ask(self) -> None:
        """
        Ask when there will be something to do.
        """
        assert self.liveness.due() - self.seconds() == (self.nextDue() - self.looked) / TICKS


class ModelTests(SynchronousTestCase):
    """
    L{Liveness} against the naive account.
    """

    def test_anyEvents(self) -> None:
        """
        Whatever happens in whatever order, the verdicts are those of the naive account: no ping
        before an interval of silence, never more than C{count} unanswered, death no sooner than
        C{interval * (count + 1)} after the last byte.
        """
        run_state_machine_as_test(Model, settings=settings(max_examples=80, stateful_step_count=40))


class TimeTakenBackTests(SynchronousTestCase):
    """
    The caller's clock may go back.
    """

    def test_paused(self) -> None:
        """
        A pause that ends before it began takes nothing from the time a peer has to answer.
        """
        liveness = Liveness(0)
        liveness.start(KeepAlive(2, 1))
        self.assertEqual(liveness.check(2), Verdict.PING)
        liveness.pause(103)
        liveness.resume(3.5)
        self.assertEqual(liveness.check(3.5), Verdict.WAIT)

    def test_hugeInterval(self) -> None:
        """
        An interval that is no float is too long like any other.
        """
        self.assertRaises(ValueError, KeepAlive, 10**400, 5)


class SlowTests(SynchronousTestCase):
    """
    A peer that has bytes to take in front of a ping.
    """

    def test_tookAll(self) -> None:
        """
        When it has taken them it is as if the ping had just been sent after an interval of
        silence: the next comes two intervals later, and then death.
        """
        liveness = Liveness(0)
        liveness.start(KeepAlive(1, 2))
        self.assertIs(liveness.check(1), Verdict.PING)
        self.assertIs(liveness.takes(2, 1.75), Verdict.WAIT)
        liveness.tookAll(2.5)
        for now, verdict in ((4.4, "WAIT"), (4.5, "PING"), (5.4, "WAIT"), (5.5, "DEAD")):
            self.assertIs(liveness.check(now), Verdict[verdict], now)
