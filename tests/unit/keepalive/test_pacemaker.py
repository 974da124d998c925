"""
Tests for L{kaproto.keepalive.pacemaker}.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive.liveness import KeepAlive, Liveness, Verdict
from kaproto.keepalive.pacemaker import (
    BUDGET,
    MAX_CLOSES_PER_TURN,
    STALL,
    STEP,
    TICK,
    Pacemaker,
)

ENDLESS = 10_000
"""
More calls than any test needs: so many mean an endless loop.
"""

ROUNDING = 1e-6
"""
The tolerance when times are compared, in seconds.
"""


class BusyClock(Clock):
    """
    A clock that calls C{read} before each call scheduled without delay, as a reactor reads its
    sockets between two turns.

    @ivar turns: the times of these reads.
    @ivar read: does the reading.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[float] = []
        self.read: Callable[[], object] = lambda: None

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 - its name in the interface
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        """
        Schedule a call, after a read if it has no delay.
        """
        if delay == 0:
            assert len(self.turns) < ENDLESS, "this has no end"
            super().callLater(0, self._turn)
        return super().callLater(delay, callable, *args, **kw)

    def _turn(self) -> None:
        self.turns.append(self.seconds())
        self.read()


class Peer:
    """
    A peer that records its calls.

    @ivar beats: the times of calls to L{due}.
    @ivar pings: the times of pings.
    """

    slot = -1
    exact = False

    def __init__(self, clock: Clock, answer: Callable[[float], float | None]) -> None:
        """
        @param answer: returns the time of the next call.
        """
        self.beats: list[float] = []
        self.pings: list[float] = []
        self._clock = clock
        self._answer = answer

    def sendPing(self) -> None:
        """
        Record the time.
        """
        self.pings.append(self._clock.seconds())

    def due(self, now: float, /) -> float | None:
        """
        Record the time, and ask the test for the next.
        """
        assert len(self.beats) < ENDLESS, "this has no end"
        self.beats.append(self._clock.seconds())
        return self._answer(now)


class Patient(Peer):
    """
    A peer with a L{Liveness}, which is dead only if two checks in a row say so.

    @ivar verdicts: the time and verdict of each check with a ping or a death.
    """

    def __init__(self, clock: Clock, pacemaker: Pacemaker, keepAlive: KeepAlive) -> None:
        super().__init__(clock, self.check)
        self.liveness = Liveness(pacemaker.now)
        self.liveness.start(keepAlive)
        self.verdicts: list[tuple[float, Verdict]] = []
        self._seemedDead = False
        pacemaker.watch(self, self.liveness.due())

    def check(self, now: float) -> float | None:
        """
        Check the peer.
        """
        verdict = self.liveness.check(now)
        if verdict is Verdict.DEAD and not self._seemedDead:
            self._seemedDead = True
            return now
        self._seemedDead = False
        if verdict is not Verdict.WAIT:
            self.verdicts.append((self._clock.seconds(), verdict))
        return None if verdict is Verdict.DEAD else self.liveness.due()


class PacemakerTestCase(SynchronousTestCase):
    """
    A test case with a clock and a pacemaker, which checks that no timer is left.
    """

    def setUp(self) -> None:
        """
        Create a pacemaker.
        """
        self.restart()

    def restart(self) -> None:
        """
        Create another clock and pacemaker.
        """
        self.clock = BusyClock()
        self.pacemaker = Pacemaker(self.clock)

    def tearDown(self) -> None:
        """
        Check that no peer is watched and no timer is left.
        """
        self.assertEqual(len(self.pacemaker), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def peer(self, answer: Callable[[float], float | None] = lambda _: None) -> Peer:
        """
        Create a peer.

        @param answer: returns the time of its next call; by default none.
        """
        return Peer(self.clock, answer)

    def advance(self, seconds: float) -> None:
        """
        Advance the clock in steps shorter than a tick.
        """
        self.clock.pump([TICK / 4] * round(seconds / (TICK / 4)))

    def assertOnTime(self, beat: float, due: float) -> None:
        """
        Check that a call was neither early nor late.
        """
        self.assertTrue(
            due - ROUNDING <= beat <= due + TICK + ROUNDING, f"due {due}, called upon {beat}"
        )


class TimingTests(PacemakerTestCase):
    """
    Tests for when peers are called.
    """

    @given(
        st.integers(0, 4096),
        st.lists(st.integers(0, 3000), min_size=1, max_size=20),
    )
    def test_everyoneWhenDue(self, begin: int, milliseconds: list[int]) -> None:
        """
        Each peer is called once with the current time, at most a tick after it is due and never
        before.
        """
        self.restart()
        self.clock.advance(begin / 1024)

        def watch(due: float) -> Peer:
            def answer(now: float) -> None:
                self.assertAlmostEqual(now, self.pacemaker.now)
                self.assertOnTime(now, due)

            peer = self.peer(answer)
            self.pacemaker.watch(peer, due)
            return peer

        start = self.pacemaker.now
        peers = [watch(start + each / 1000) for each in milliseconds]
        self.advance(3.25)
        self.assertEqual([len(peer.beats) for peer in peers], [1] * len(peers))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.tearDown()

    def test_exactly(self) -> None:
        """
        A peer due exactly at a turn is called in that turn.
        """
        peers = [self.peer() for _ in range(100)]
        for number, peer in enumerate(peers, start=1):
            self.pacemaker.watch(peer, number * TICK)
        self.advance(101 * TICK)
        for number, peer in enumerate(peers, start=1):
            self.assertEqual(peer.beats, [number * TICK])

    def test_manyIntervals(self) -> None:
        """
        Hundreds of peers with different intervals are called each time they are due, with one timer
        for all.
        """
        peers: dict[float, Peer] = {}
        for number in range(300):
            interval = 0.1 + number / 256

            def answer(now: float, interval: float = interval) -> float:
                return len(peers[interval].beats) * interval + interval

            peers[interval] = self.peer(answer)
            self.pacemaker.watch(peers[interval], interval)
        for _ in range(32):
            self.advance(0.125)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for interval, peer in peers.items():
            self.assertTrue(int((4 - TICK) / interval) <= len(peer.beats) <= int(4 / interval))
            for number, beat in enumerate(peer.beats, start=1):
                self.assertOnTime(beat, number * interval)
            self.pacemaker.forget(peer)

    @given(st.data())
    def test_anyOrderOfEvents(self, data: st.DataObject) -> None:
        """
        In any order of events, exactly the peers that are watched and due are called.
        """
        self.restart()
        dues: dict[Peer, float] = {}

        def make() -> Peer:
            def answer(now: float) -> None:
                self.assertOnTime(now, max(dues.pop(peer), watchedAt[peer]))

            peer = self.peer(answer)
            return peer

        peers = [make() for _ in range(4)]
        watchedAt = dict.fromkeys(peers, 0.0)
        which = st.sampled_from(peers)
        events = st.lists(
            st.tuples(st.just("watch"), which, st.integers(-10, 40))
            | st.tuples(st.just("forget"), which, st.just(0))
            | st.tuples(st.just("elapse"), which, st.integers(1, 30)),
            max_size=30,
        )
        for event, peer, ticks in data.draw(events):
            if event == "watch":
                watchedAt[peer] = self.pacemaker.now
                dues[peer] = watchedAt[peer] + ticks * TICK / 2
                self.pacemaker.watch(peer, dues[peer])
            elif event == "forget":
                dues.pop(peer, None)
                self.pacemaker.forget(peer)
            else:
                self.advance(ticks * TICK / 2)
            self.assertEqual(self.flushLoggedErrors(), [])
            self.assertEqual(len(self.pacemaker), len(dues))
            self.assertEqual(len(self.clock.getDelayedCalls()), bool(dues))
            for each, due in dues.items():
                self.assertGreater(max(due, watchedAt[each]) + TICK, self.pacemaker.now)
        for peer in peers:
            self.pacemaker.forget(peer)


class ExactTests(PacemakerTestCase):
    """
    Tests for peers with C{exact} times.
    """

    def exactPeer(self, due: float, answer: Callable[[float], float | None]) -> Peer:
        """
        Watch a peer with C{exact} set.
        """
        peer = self.peer(answer)
        peer.exact = True
        self.pacemaker.watch(peer, due)
        return peer

    @given(st.integers(0, 4096), st.lists(st.integers(0, 3000), min_size=1, max_size=20))
    def test_everyoneWhenDue(self, begin: int, milliseconds: list[int]) -> None:
        """
        Each peer is called at most a L{STEP} after it is due, and at most once before: in the
        preceding turn, which asks whether an exact call is still needed.
        """
        self.restart()
        self.clock.advance(begin / 1024)
        start = self.pacemaker.now

        def watch(due: float) -> list[float]:
            def answer(now: float) -> float | None:
                beats.append(now)
                return None if now >= due - ROUNDING else due

            beats: list[float] = []
            self.exactPeer(due, answer)
            return beats

        dues = [start + each / 1000 for each in milliseconds]
        all_ = [watch(due) for due in dues]
        self.clock.pump([STEP / 4] * round(3.25 / (STEP / 4)))
        for due, (*before, last) in zip(dues, all_, strict=True):
            self.assertTrue(due - ROUNDING <= last <= due + STEP + ROUNDING, (due, last))
            self.assertLessEqual(len(before), 1)
            for beat in before:
                self.assertTrue(due - TICK - STEP <= beat < due, (due, beat))
        self.tearDown()

    def test_heardMeanwhile(self) -> None:
        """
        A peer that is heard before the preceding turn causes no separate wake-up.
        """
        peer = self.exactPeer(1 + TICK / 2, lambda _: 50)
        peer.exact = True
        wakeUps: list[float] = []
        callLater = self.clock.callLater

        def noted(delay: float, *rest: Any, **more: Any) -> IDelayedCall:
            if delay != TICK:
                wakeUps.append(delay)
            return callLater(delay, *rest, **more)

        self.patch(self.clock, "callLater", noted)
        self.advance(3)
        self.assertEqual(peer.beats, [1])
        self.assertEqual([each for each in wakeUps if each < TICK / 2], [])
        self.pacemaker.forget(peer)

    def test_oneWakeUpForAll(self) -> None:
        """
        The number of wake-ups between two turns is bounded, and none is left when all peers are
        forgotten.
        """
        peers = [self.exactPeer(number * TICK / 1000, lambda _: None) for number in range(1, 1000)]
        self.assertEqual(len(self.clock.getDelayedCalls()), round(TICK / STEP))
        for peer in peers:
            self.pacemaker.forget(peer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stall(self) -> None:
        """
        After a stall just before they are due, peers still have their full time.
        """
        patient = Patient(self.clock, self.pacemaker, KeepAlive(1, 1))
        patient.exact = True
        self.clock.pump([TICK] * 63)
        self.assertEqual(len(patient.verdicts), 1)
        self.pacemaker.watch(patient, patient.liveness.due())
        resumed = self.clock.seconds() + 3600
        self.clock.advance(3600)
        self.clock.pump([STEP] * 32)
        (_, (moment, verdict)) = patient.verdicts
        self.assertEqual(verdict, Verdict.DEAD)
        self.assertTrue(resumed <= moment <= resumed + STALL, moment - resumed)


class LoopTests(PacemakerTestCase):
    """
    Tests for when the loop runs.
    """

    def test_restsWithoutPeers(self) -> None:
        """
        The timer runs only while a peer is watched.
        """
        self.assertEqual(self.clock.getDelayedCalls(), [])
        first, second = self.peer(), self.peer()
        self.pacemaker.watch(first, 10)
        self.pacemaker.watch(second, 10)
        self.assertEqual(len(self.pacemaker), 2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.pacemaker.forget(first)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.pacemaker.forget(second)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_restsAfterTheLastOne(self) -> None:
        """
        The timer stops when the last peer wants no further call.
        """
        self.pacemaker.watch(self.peer(), 0.1)
        self.advance(0.5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_afterAPause(self) -> None:
        """
        After any time without peers, a new peer is called when due, and an old one is not.
        """
        old = self.peer()
        self.pacemaker.watch(old, 7000)
        self.advance(1)
        self.pacemaker.forget(old)
        self.clock.advance(5000.1)
        peer = self.peer()
        start = self.clock.seconds()
        self.pacemaker.watch(peer, self.pacemaker.now + 2)
        self.advance(3)
        (beat,) = peer.beats
        self.assertTrue(start + 2 <= beat <= start + 2 + 2 * TICK, beat - start)
        self.assertEqual(old.beats, [])

    def test_watchedTwice(self) -> None:
        """
        Watching a peer again moves its call, to an earlier or a later time.
        """
        sooner, later = self.peer(), self.peer()
        self.pacemaker.watch(sooner, 10)
        self.pacemaker.watch(later, 1)
        self.pacemaker.watch(sooner, 2)
        self.pacemaker.watch(later, 3)
        self.assertEqual(len(self.pacemaker), 2)
        self.advance(12)
        for peer, due in ((sooner, 2), (later, 3)):
            (beat,) = peer.beats
            self.assertOnTime(beat, due)

    def test_forgotten(self) -> None:
        """
        A forgotten peer is not called; forgetting a peer that is not watched is harmless.
        """
        peer, other = self.peer(), self.peer()
        self.pacemaker.forget(peer)
        self.pacemaker.watch(other, 2)
        self.pacemaker.watch(peer, 1)
        self.pacemaker.forget(peer)
        self.pacemaker.forget(peer)
        self.assertEqual(len(self.pacemaker), 1)
        self.advance(3)
        self.assertEqual(peer.beats, [])
        self.assertEqual(len(other.beats), 1)

    def test_thousandsForgottenAtOnce(self) -> None:
        """
        No timer is left after thousands of peers are forgotten at once.
        """
        peers = [self.peer() for _ in range(5000)]
        for number, peer in enumerate(peers):
            self.pacemaker.watch(peer, number / 100)
        self.advance(0.5)
        for peer in peers:
            self.pacemaker.forget(peer)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class MemoryTests(PacemakerTestCase):
    """
    Tests for memory left by past slots and peers.
    """

    def growth(self, action: Callable[[], object]) -> int:
        """
        @return: how many bytes of memory an action adds.
        """
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _peak = tracemalloc.get_traced_memory()
        action()
        after, _peak = tracemalloc.get_traced_memory()
        return after - before

    def test_slotsThatArePast(self) -> None:
        """
        A wheel that turns for a minute does not grow.
        """

        def answer(now: float) -> float:
            peer.beats.clear()
            return now + TICK

        peer = self.peer(answer)
        self.pacemaker.watch(peer, TICK)
        self.advance(1)
        self.assertLess(self.growth(lambda: self.advance(60)), 10_000)
        self.pacemaker.forget(peer)

    def test_slotsOfThoseForgotten(self) -> None:
        """
        Forgotten peers leave no slots behind.
        """
        peers = [self.peer() for _ in range(5000)]

        def comeAndGo() -> None:
            for number, peer in enumerate(peers):
                self.pacemaker.watch(peer, number)
            for peer in peers:
                self.pacemaker.forget(peer)

        self.assertLess(self.growth(comeAndGo), 300_000)


class StallTests(PacemakerTestCase):
    """
    Tests for stalls of the process.
    """

    def test_hourInOneStep(self) -> None:
        """
        No peer is dead after the process was suspended for an hour: only L{STALL} of it counts.
        """
        patients = [
            Patient(self.clock, self.pacemaker, KeepAlive(interval, 1)) for interval in (0.25, 1, 5)
        ]
        self.advance(0.125)
        before = self.pacemaker.now
        self.clock.advance(3600)
        self.assertTrue(STALL <= self.pacemaker.now - before < STALL + TICK)
        self.assertEqual(
            [[verdict for _, verdict in patient.verdicts] for patient in patients],
            [[Verdict.PING], [], []],
        )
        for patient in patients:
            self.pacemaker.forget(patient)

    def test_heardBeforeTheFirstTurn(self) -> None:
        """
        A peer heard after a stall, before the first turn, is pinged an interval later.
        """
        patient = Patient(self.clock, self.pacemaker, KeepAlive(1, 1))
        self.advance(0.5)
        self.clock.rightNow += 3600
        patient.liveness.hear(self.pacemaker.now)
        resumed = self.clock.seconds()
        self.advance(4)
        self.assertLess(self.pacemaker.now, 5)
        self.assertEqual([verdict for _, verdict in patient.verdicts], [Verdict.PING, Verdict.DEAD])
        for number, (moment, _) in enumerate(patient.verdicts, start=1):
            self.assertTrue(
                number <= moment - resumed <= number + STALL + 2 * TICK, moment - resumed
            )

    def test_oneStallAfterAnother(self) -> None:
        """
        Only L{STALL} of each of several stalls counts.
        """
        patient = Patient(self.clock, self.pacemaker, KeepAlive(1, 2))
        for _ in range(int(3 / (STALL + TICK))):
            self.clock.advance(600)
        self.assertNotIn(Verdict.DEAD, [verdict for _, verdict in patient.verdicts])
        for _ in range(3):
            self.clock.advance(600)
        self.assertEqual(
            [verdict for _, verdict in patient.verdicts],
            [Verdict.PING, Verdict.PING, Verdict.DEAD],
        )

    def test_shortDelays(self) -> None:
        """
        A delay shorter than L{STALL} counts in full.
        """
        patient = Patient(self.clock, self.pacemaker, KeepAlive(1, 2))
        self.clock.pump([0.25] * 20)
        self.assertEqual(
            patient.verdicts, [(1, Verdict.PING), (2, Verdict.PING), (3, Verdict.DEAD)]
        )

    def test_timeOfDeath(self) -> None:
        """
        Without stalls a silent peer is pinged and dead at most a tick late, and delays do not add
        up.
        """
        patient = Patient(self.clock, self.pacemaker, KeepAlive(0.3, 5))
        self.advance(2)
        self.assertEqual(
            [verdict for _, verdict in patient.verdicts], [Verdict.PING] * 5 + [Verdict.DEAD]
        )
        for number, (moment, _) in enumerate(patient.verdicts, start=1):
            self.assertOnTime(moment, number * 0.3)


class LastChanceTests(PacemakerTestCase):
    """
    Tests for peers that are called again after the sockets were read.
    """

    def askedAgain(self, due: float) -> None:
        """
        Check that a peer due at 1 s which then asks for C{due} is called again after one turn of
        the reactor.
        """
        self.restart()
        events: list[str] = []

        def answer(now: float) -> float | None:
            events.append("beat")
            return due if len(events) == 1 else None

        peer = self.peer(answer)
        self.clock.read = lambda: events.append("read")
        self.pacemaker.watch(peer, 1)
        self.advance(1)
        self.assertEqual(events, ["beat", "read", "beat"])
        self.assertEqual(peer.beats, [1, 1])
        self.tearDown()

    def test_readInBetween(self) -> None:
        """
        A peer that asks for a time in the past is called again right after the reactor's turn, long
        before the next tick.
        """
        for due in (1.0, 0.5, 0.0, -1.0):
            self.askedAgain(due)

    def test_heardAtTheLastMoment(self) -> None:
        """
        A peer that seems dead is alive if its bytes wait to be read.
        """
        patient = Patient(self.clock, self.pacemaker, KeepAlive(0.25, 1))
        self.clock.read = lambda: patient.liveness.hear(self.pacemaker.now)
        self.advance(0.5)
        self.assertEqual(len(self.clock.turns), 1)
        self.assertEqual(patient.verdicts, [(0.25, Verdict.PING)])
        self.clock.read = lambda: None
        self.advance(0.5)
        self.assertEqual(
            patient.verdicts,
            [(0.25, Verdict.PING), (0.75, Verdict.PING), (1, Verdict.DEAD)],
        )

    def test_forgottenInBetween(self) -> None:
        """
        A peer that is forgotten before its second call is not called again, and no timer is left.
        """
        peer = self.peer(lambda now: now)
        self.clock.read = lambda: self.pacemaker.forget(peer)
        self.pacemaker.watch(peer, 1)
        self.advance(1)
        self.assertEqual(peer.beats, [1])

    def test_anotherForgottenInBetween(self) -> None:
        """
        If one of two peers is forgotten before their second call, the other is still called.
        """
        peer = self.peer(lambda now: now)
        patient = Patient(self.clock, self.pacemaker, KeepAlive(0.5, 1))
        self.clock.read = lambda: self.pacemaker.forget(peer)
        self.pacemaker.watch(peer, 1)
        self.advance(1)
        self.assertEqual(peer.beats, [1])
        self.assertEqual(patient.verdicts, [(0.5, Verdict.PING), (1, Verdict.DEAD)])

    def test_alwaysOverdue(self) -> None:
        """
        A peer that is always overdue does not delay others.
        """
        eager = self.peer(lambda _: 0.0)
        other = self.peer()
        self.pacemaker.watch(eager, 0)
        self.pacemaker.watch(other, 1)

        def readForAMillisecond() -> None:
            self.clock.rightNow += 0.001
            if self.clock.seconds() > 2:
                self.pacemaker.forget(eager)

        self.clock.read = readForAMillisecond
        self.advance(2)
        (beat,) = other.beats
        self.assertTrue(1 <= beat <= 1 + TICK + 0.001, beat)
        self.assertGreater(len(eager.beats), 1000)


class BudgetTests(PacemakerTestCase):
    """
    Tests for long turns.
    """

    def busy(self, number: int, cost: float, again: float | None = None) -> list[Peer]:
        """
        Watch peers that are all due at 1 s.

        @param cost: the seconds that each call takes.
        @param again: the time of their next call.
        """

        def answer(now: float) -> float | None:
            self.clock.rightNow += cost
            return again

        peers = [self.peer(answer) for _ in range(number)]
        for peer in peers:
            self.pacemaker.watch(peer, 1)
        return peers

    def test_slices(self) -> None:
        """
        When thousands are due at once, the reactor gets a turn about every 5 ms, since the clock is
        read after every 16 peers. Each peer is called once.
        """
        cost = 0.0001
        peers = self.busy(5000, cost, again=100)
        self.advance(5)
        self.assertEqual([len(peer.beats) for peer in peers], [1] * 5000)
        beats = sorted(peer.beats[0] for peer in peers)
        for begin, end in pairwise([beats[0], *self.clock.turns, beats[-1]]):
            self.assertLessEqual(end - begin, BUDGET + 16 * cost)
        self.assertLessEqual(len(self.clock.turns), 5000 * cost / BUDGET)
        for peer in peers:
            self.pacemaker.forget(peer)

    def test_slicesOfEnds(self) -> None:
        """
        At most L{MAX_CLOSES_PER_TURN} peers end in one turn of the reactor.
        """
        peers = self.busy(5 * MAX_CLOSES_PER_TURN, 0)
        self.advance(2)
        self.assertEqual([len(peer.beats) for peer in peers], [1] * 5 * MAX_CLOSES_PER_TURN)
        self.assertEqual(len(self.clock.turns), 5)

    def test_littleToDo(self) -> None:
        """
        Work that fits into the budget is done in one turn.
        """
        peers = self.busy(1000, BUDGET / 2000, again=100)
        self.advance(2)
        self.assertEqual([len(peer.beats) for peer in peers], [1] * 1000)
        self.assertEqual(self.clock.turns, [])
        for peer in peers:
            self.pacemaker.forget(peer)

    def test_inOrder(self) -> None:
        """
        Peers that become due during a long turn are called after it, in order.
        """
        peers = self.busy(1000, 0.001)
        others = [self.peer() for _ in range(3)]
        for peer, due in zip(others, (1.25, 1.5, 2.5), strict=True):
            self.pacemaker.watch(peer, due)
        self.advance(3)
        beats = [peer.beats[0] for peer in (*peers, *others)]
        self.assertEqual(beats[-3:], sorted(beats)[-3:])
        self.assertOnTime(beats[-1], 2.5)

    def test_timeGoesOn(self) -> None:
        """
        A long turn is not a stall: its time counts.
        """
        keep = self.peer()
        self.pacemaker.watch(keep, 100)
        self.busy(1000, 0.001)
        self.advance(2)
        self.assertEqual(self.pacemaker.now, self.clock.seconds())
        self.pacemaker.forget(keep)

    def test_lastChanceAndMuchToDo(self) -> None:
        """
        A peer is called again after the sockets were read even during a long turn.
        """
        patient = Patient(self.clock, self.pacemaker, KeepAlive(0.5, 1))
        self.busy(1000, 0.001)
        self.advance(3)
        self.assertEqual(patient.verdicts[-1][1], Verdict.DEAD)

    def test_lostBetweenSlices(self) -> None:
        """
        Peers that are forgotten during a long turn are not called any more, and no timer is left.
        """
        peers = self.busy(1000, 0.001)

        def loseEverybody() -> None:
            for peer in peers:
                self.pacemaker.forget(peer)
            self.assertEqual(len(self.pacemaker), 0)
            self.assertEqual(self.clock.getDelayedCalls(), [])

        self.clock.read = loseEverybody
        self.advance(2)
        self.assertEqual(len(self.clock.turns), 1)
        self.assertEqual(sum(len(peer.beats) for peer in peers), 16)

    def test_afterTheLastOneWasLost(self) -> None:
        """
        A peer that is watched after all others were forgotten in a long turn is called on time.
        """
        peers = self.busy(1000, 0.001)
        newcomer = self.peer()
        begin = 0.0

        def loseEverybody() -> None:
            nonlocal begin
            for peer in peers:
                self.pacemaker.forget(peer)
            self.pacemaker.watch(newcomer, self.pacemaker.now + 1)
            begin = self.clock.seconds()

        self.clock.read = loseEverybody
        self.advance(3)
        (beat,) = newcomer.beats
        self.assertOnTime(beat, begin + 1)


class BeatTests(PacemakerTestCase):
    """
    Tests for what peers may do in their calls.
    """

    def test_error(self) -> None:
        """
        A peer that raises an error is logged and not called again; others are unaffected.
        """

        def fail(now: float) -> float:
            raise ValueError("not today")

        failing, other = self.peer(fail), self.peer(lambda now: now + 1)
        self.pacemaker.watch(failing, 1)
        self.pacemaker.watch(other, 1)
        self.advance(5.25)
        (failure,) = self.flushLoggedErrors(ValueError)
        self.assertEqual(failure.getErrorMessage(), "not today")
        self.assertEqual(len(failing.beats), 1)
        self.assertGreaterEqual(len(other.beats), 4)
        self.assertEqual(len(self.pacemaker), 1)
        self.pacemaker.forget(other)

    def test_lastOneFails(self) -> None:
        """
        If the only peer raises an error, the timer stops.
        """
        self.pacemaker.watch(self.peer(lambda _: 1 / 0), 1)
        self.advance(2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def watchesItself(self, returned: float | None) -> None:
        """
        Check that a peer which calls L{watch<Pacemaker.watch>} and then returns another time is
        called at the first time.
        """

        def answer(now: float) -> float | None:
            if len(peer.beats) == 2:
                return None
            self.pacemaker.watch(peer, 3)
            return returned

        peer = self.peer(answer)
        self.pacemaker.watch(peer, 1)
        self.advance(5)
        first, second = peer.beats
        self.assertOnTime(first, 1)
        self.assertOnTime(second, 3)

    def test_watchesItself(self) -> None:
        """
        A peer may schedule its next call itself instead of returning its time.
        """
        self.watchesItself(None)

    def test_watchesItselfAndAnswers(self) -> None:
        """
        The time returned by a peer that has scheduled its next call itself is ignored.
        """
        self.watchesItself(1.5)

    def test_forgetsItself(self) -> None:
        """
        A peer may forget itself, as one that closes its connection does.
        """

        def answer(now: float) -> None:
            self.pacemaker.forget(peer)

        peer = self.peer(answer)
        self.pacemaker.watch(peer, 1)
        self.advance(5)
        self.assertEqual(len(peer.beats), 1)

    def test_forgetsAnother(self) -> None:
        """
        A peer may forget another one that is due in the same turn, which is then not called.
        """

        def make(number: int) -> Peer:
            return self.peer(lambda _: self.pacemaker.forget(peers[1 - number]))

        peers = [make(0), make(1)]
        for peer in peers:
            self.pacemaker.watch(peer, 1)
        self.advance(5)
        self.assertEqual(sorted(len(peer.beats) for peer in peers), [0, 1])

    def test_pings(self) -> None:
        """
        Pings are sent after all due peers were called, in the same order, and before the reactor's
        turn. A ping that raises an error is logged.
        """
        events: list[str] = []

        def make(name: str) -> Peer:
            def answer(now: float) -> float:
                events.append(f"beat {name}")
                self.pacemaker.pingLater(peer)
                self.clock.rightNow += BUDGET / 24
                return now + 10

            def ping() -> None:
                events.append(f"ping {name}")
                if name == "3":
                    raise ValueError("not today")

            peer = self.peer(answer)
            self.patch(peer, "sendPing", ping)
            return peer

        self.clock.read = lambda: events.append("read")
        peers = [make(str(number)) for number in range(48)]
        for peer in peers:
            self.pacemaker.watch(peer, 1)
        self.advance(2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        turns = " ".join(events).split(" read ")
        self.assertEqual(len(turns), 2)
        told: list[str] = []
        for turn in turns:
            words = turn.split()
            half = len(words) // 2
            self.assertEqual(words[:half:2], ["beat"] * (half // 2))
            self.assertEqual(words[half::2], ["ping"] * (half // 2))
            self.assertEqual(words[1:half:2], words[half + 1 :: 2])
            told += words[1:half:2]
        self.assertEqual(sorted(told, key=int), [str(number) for number in range(48)])
        for peer in peers:
            self.pacemaker.forget(peer)

    def test_watchesAnother(self) -> None:
        """
        A peer may watch others, which are called when due, or soon if they are due now.
        """
        soon, later = self.peer(), self.peer()

        def answer(now: float) -> None:
            self.pacemaker.watch(soon, 0)
            self.pacemaker.watch(later, 3)

        self.pacemaker.watch(self.peer(answer), 1)
        self.advance(5)
        (beat,) = soon.beats
        self.assertTrue(1 <= beat <= 1 + TICK, beat)
        (beat,) = later.beats
        self.assertOnTime(beat, 3)


class ForgottenSlotTests(SynchronousTestCase):
    """
    Tests for slots of peers that are no longer watched.
    """

    def test_nothingIsLeft(self) -> None:
        """
        A peer that is watched and forgotten repeatedly leaves no slots behind.
        """
        clock = Clock()
        pacemaker = Pacemaker(clock)
        other, peer = StillPeer(), StillPeer()
        pacemaker.watch(other, 10**6)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for turn in range(10_000):
            pacemaker.watch(peer, 1000 + turn)
            pacemaker.forget(peer)
        self.assertLess(tracemalloc.get_traced_memory()[0], 10_000)
        self.assertLess(peer.slot, 0)


class StalledStartTests(SynchronousTestCase):
    """
    Tests for a peer that is watched after a stall, before the next turn.
    """

    def test_watchedAfterStall(self) -> None:
        """
        A peer that is watched after a stall is called on time.
        """
        clock = Clock()
        pacemaker = Pacemaker(clock)
        pacemaker.watch(StillPeer(), 10**6)
        clock.rightNow += 60
        peer = StillPeer()
        pacemaker.watch(peer, pacemaker.now + 1)
        for _ in range(40):
            clock.advance(TICK)
        self.assertEqual(peer.beats, 1)


class StillPeer:
    """
    A peer that is called once.
    """

    slot = -1
    exact = False
    beats = 0

    def sendPing(self) -> None:
        """
        Never called.
        """

    def due(self, now: float, /) -> None:
        """
        Count the call.
        """
        self.beats += 1
