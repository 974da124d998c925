"""
Tests for L{kaproto.keepalive.liveness}.

Times that are compared are multiples of 1/64 s, so that none is rounded.
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
Ticks, the tests' unit of time, per second.
"""


class KeepAliveTests(SynchronousTestCase):
    """
    Tests for L{KeepAlive}.
    """

    def test_defaults(self) -> None:
        """
        The defaults are libvirtd's: 5 s and 5 pings.
        """
        self.assertEqual(KeepAlive(), KeepAlive(5, 5))

    @given(keepAlives())
    def test_zeroMeansNone(self, keepAlive: KeepAlive) -> None:
        """
        Keepalive is enabled if neither interval nor count is zero.
        """
        self.assertEqual(keepAlive.enabled, keepAlive.interval > 0 and keepAlive.count > 0)

    def test_zeros(self) -> None:
        """
        A zero interval or count disables keepalive, whether it is an int or a float.
        """
        for interval, count in [(0, 5), (5, 0), (0, 0), (0.0, 1), (-0.0, 1)]:
            self.assertFalse(KeepAlive(interval, count).enabled)
        for interval, count in [(1, 1), (0.001, 1), (INTERVAL_MAX, 2**40)]:
            self.assertTrue(KeepAlive(interval, count).enabled)

    def test_notNumbers(self) -> None:
        """
        An argument of the wrong type raises L{TypeError} with its name and value.
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
        An argument out of bounds raises L{ValueError} with its name and value.
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
        A L{KeepAlive} is immutable, so it can be shared.
        """
        self.assertRaises(AttributeError, setattr, KeepAlive(), "interval", 1)


class LivenessTests(SynchronousTestCase):
    """
    Tests for L{Liveness}.
    """

    def started(self, interval: float, count: int, now: float = 0) -> Liveness:
        """
        @return: the liveness of a peer that was heard just now.
        """
        liveness = Liveness(now)
        liveness.start(KeepAlive(interval, count))
        return liveness

    def history(self, liveness: Liveness, until: float) -> list[tuple[float, Verdict]]:
        """
        @return: the time and verdict of each check, at every tick, that was not C{WAIT}.
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
        A silent peer is pinged C{count} times, once an interval, and is dead an interval after the
        last ping.
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
        A silent peer is dead exactly C{interval * (count + 1)} after its last byte, after C{count}
        pings.
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
        Any sign of life answers all pings, and the silence begins again.
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
        The receive path may set the attributes that L{Liveness.hear} sets, with the same effect.
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
        A peer that is not watched is neither pinged nor dead.
        """
        liveness = Liveness(0)
        self.assertEqual(liveness.check(10**9), Verdict.WAIT)
        liveness.start(KeepAlive(1, 1))
        self.assertEqual(liveness.check(1), Verdict.PING)
        liveness.stop()
        self.assertEqual(liveness.check(10**9), Verdict.WAIT)

    def test_nothingToStart(self) -> None:
        """
        A start with zeros is refused, and the current terms stay in force.
        """
        liveness = self.started(1, 1)
        for zero in (KeepAlive(0, 5), KeepAlive(5, 0)):
            error = self.assertRaises(ValueError, liveness.start, zero)
            self.assertIn("stop()", str(error))
        self.assertEqual(liveness.check(1), Verdict.PING)

    def test_silenceBeforeStart(self) -> None:
        """
        Silence before the start counts: the first ping is due an interval after the last byte, not
        after the start.
        """
        liveness = Liveness(0)
        liveness.hear(3)
        liveness.start(KeepAlive(5, 2))
        self.assertEqual(liveness.due(), 8)
        self.assertEqual(liveness.check(7.75), Verdict.WAIT)
        self.assertEqual(liveness.check(8), Verdict.PING)

    def test_replacedSettings(self) -> None:
        """
        A second start applies at once to the silence so far, with shorter or longer terms, and
        forgets earlier pings.
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
        Small delays of checks do not add up: the peer is dead at the time it would have been
        without them.
        """
        liveness = self.started(2, 3)
        for due in (2, 4, 6):
            self.assertEqual(liveness.check(due + 0.25), Verdict.PING)
        self.assertEqual(liveness.check(7.75), Verdict.WAIT)
        self.assertEqual(liveness.check(8), Verdict.DEAD)

    def test_greatDelays(self) -> None:
        """
        A very late check counts as one interval, and the peer has at least half an interval before
        the next ping and before death.
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
        A dead peer stays dead until it is heard.
        """
        liveness = self.started(1, 1)
        self.assertEqual(liveness.check(1), Verdict.PING)
        for now in (2, 2, 50):
            self.assertEqual(liveness.check(now), Verdict.DEAD)
        liveness.hear(51)
        self.assertEqual(liveness.check(51), Verdict.WAIT)

    def test_heardInTimeTakenBack(self) -> None:
        """
        If the clock went back after a peer was heard, its silence begins at the next check.
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
        The error for a dead peer has the interval, the count and the silence.
        """
        liveness = self.started(1.5, 2, 10)
        error = liveness.timeout(14.5)
        self.assertEqual((error.interval, error.count, error.silence), (1.5, 2, 4.5))


class PauseTests(SynchronousTestCase):
    """
    Tests for pauses, during which this end does not read.
    """

    def test_silenceDoesNotCount(self) -> None:
        """
        A pause does not count: afterwards as much of the interval is left as before.
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
        A pause does not count in the time that a peer has to answer a ping, either.
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
        Bytes received during a pause are a sign of life, and the silence begins at its end.
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
        A second pause or resume in a row is ignored.
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
        A start during a pause counts the silence before the pause.
        """
        liveness = Liveness(0)
        liveness.pause(1)
        liveness.start(KeepAlive(2, 1))
        self.assertEqual(liveness.check(50), Verdict.WAIT)
        liveness.resume(101)
        self.assertEqual(liveness.due(), 102)


class Model(RuleBasedStateMachine):
    """
    Compares L{Liveness} with a simple model of the same events: a list of the pings since the peer
    was last heard, on a clock of whole ticks that stands still during pauses.
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
        @return: the time for L{Liveness}, in seconds.
        """
        return self.now / TICKS

    def nextDue(self) -> int:
        """
        @return: the tick at which the next ping, or death, is due: an interval after the last byte,
            then an interval after each due time. After a ping that was more than half an interval
            late, it is half an interval after that ping.
        """
        assert self.running is not None
        interval, _count = self.running
        if not self.pings:
            return self.heardAt + interval
        return max(self.dues[-1] + interval, self.pings[-1] + interval // 2)

    def expected(self) -> Verdict:
        """
        @return: the model's verdict.
        """
        if self.running is None or self.paused or self.looked < self.nextDue():
            return Verdict.WAIT
        return Verdict.DEAD if len(self.pings) == self.running[1] else Verdict.PING

    @rule(ticks=st.integers(0, 40) | st.integers(0, 5000))
    def elapse(self, ticks: int) -> None:
        """
        Time passes.
        """
        self.now += ticks
        if not self.paused:
            self.looked += ticks

    @precondition(lambda self: self.running is not None and not self.paused)
    @rule(late=st.integers(0, 3))
    def elapseUntilDue(self, late: int) -> None:
        """
        Time passes until the next check is due, or a moment longer.
        """
        self.elapse(max(0, self.nextDue() + late - self.looked))

    @rule()
    def hear(self) -> None:
        """
        The peer is heard.
        """
        self.liveness.hear(self.seconds())
        self.heardAt = self.looked
        self.pings, self.dues = [], []

    @rule(ticks=st.integers(1, 5000))
    def hearInTimeTakenBack(self, ticks: int) -> None:
        """
        The peer is heard during a stall, whose time is then taken back.
        """
        self.liveness.hear((self.now + ticks) / TICKS)
        assert self.liveness.check(self.seconds()) is Verdict.WAIT
        self.heardAt = self.looked
        self.pings, self.dues = [], []

    @rule()
    def check(self) -> None:
        """
        Check the peer, compare the verdicts, and check that the silence justifies them.
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
        Start to watch, or change the interval and count.
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
        Continue reading.
        """
        self.liveness.resume(self.seconds())
        self.paused = False

    @precondition(lambda self: self.running is not None and not self.paused)
    @rule()
    def ask(self) -> None:
        """
        Compare when the next check is due.
        """
        assert self.liveness.due() - self.seconds() == (self.nextDue() - self.looked) / TICKS


class ModelTests(SynchronousTestCase):
    """
    Tests for L{Liveness} against the model.
    """

    def test_anyEvents(self) -> None:
        """
        In any order of events the verdicts are the model's: no ping before an interval of silence,
        at most C{count} unanswered, and no death before C{interval * (count + 1)} after the last
        byte.
        """
        run_state_machine_as_test(Model, settings=settings(max_examples=80, stateful_step_count=40))


class TimeTakenBackTests(SynchronousTestCase):
    """
    Tests for a clock that goes back.
    """

    def test_paused(self) -> None:
        """
        A pause that ends before it began does not shorten the time that a peer has to answer.
        """
        liveness = Liveness(0)
        liveness.start(KeepAlive(2, 1))
        self.assertEqual(liveness.check(2), Verdict.PING)
        liveness.pause(103)
        liveness.resume(3.5)
        self.assertEqual(liveness.check(3.5), Verdict.WAIT)

    def test_hugeInterval(self) -> None:
        """
        An interval too large for a float is refused.
        """
        self.assertRaises(ValueError, KeepAlive, 10**400, 5)


class SlowTests(SynchronousTestCase):
    """
    Tests for a peer that has yet to take bytes written before a ping.
    """

    def test_tookAll(self) -> None:
        """
        When it has taken those bytes, the ping counts as sent just now: the next one is due two
        intervals later, then death.
        """
        liveness = Liveness(0)
        liveness.start(KeepAlive(1, 2))
        self.assertIs(liveness.check(1), Verdict.PING)
        self.assertIs(liveness.takes(2, 1.75), Verdict.WAIT)
        liveness.tookAll(2.5)
        for now, verdict in ((4.4, "WAIT"), (4.5, "PING"), (5.4, "WAIT"), (5.5, "DEAD")):
            self.assertIs(liveness.check(now), Verdict[verdict], now)
