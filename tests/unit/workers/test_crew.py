"""
Tests for L{kaproto.workers.crew}.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kaproto.admin.controltypes import CONTROL_PROGRAM, ControlProcedure, Draining
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.structs import unpack
from kaproto.workers.backoff import LASTED
from kaproto.workers.crew import CannotStart, Crew, NotReplaced
from kaproto.workers.figures import Figures, Totals
from kaproto.workers.places import SharedCounts
from kaproto.workers.team import Team, TeamRegister


class FakeWorker:
    """
    A worker without a process.

    @ivar signals: the signals it was sent.
    @ivar drained: the time limit of each order to drain, in seconds.
    """

    def __init__(self, seat: int, row: int, now: float) -> None:
        self.seat, self.row, self.startedAt = seat, row, now
        self.pid: int | None = 1
        self.leaving = False
        self.figures: Figures | None = None
        self.ready: Deferred[object] = Deferred()
        self.whenEnded: Deferred[str] = Deferred()
        self.signals: list[int] = []
        self.drained: list[float | None] = []

    def __str__(self) -> str:
        return f"worker {self.seat + 1}"

    def serve(self, accepted: int = 0) -> None:
        """
        Report the first figures, so that the worker is ready.
        """
        self.figures = Figures({"accepted": accepted}, {}, [0] * 66, [0] * 66)
        self.ready.callback(self)

    def end(self, how: str = "exited with 1") -> None:
        """
        End the process.
        """
        if not self.ready.called:
            self.ready.errback(RuntimeError(how))
        self.whenEnded.callback(how)

    def send(self, number: signal.Signals) -> None:
        """
        Record the signal.
        """
        self.signals.append(number)

    def call(self, program: int, procedure: int, payload: bytes = b"") -> Deferred[bytes]:
        """
        Record an order to drain.
        """
        assert (program, procedure) == (CONTROL_PROGRAM, ControlProcedure.DRAIN)
        self.drained.append(unpack(Draining, payload).within)
        return succeed(b"")


class CrewTests(SynchronousTestCase):
    """
    Tests for a crew with two seats.
    """

    def setUp(self) -> None:
        """
        Start two workers.
        """
        self.clock = Clock()
        self.counts = SharedCounts.create(4)
        self.addCleanup(self.counts.close)
        self.factory = KeepAliveServerFactory(clock=self.clock)
        self.team = Team(self.counts, self.clock)
        totals = Totals(self.factory)
        register = TeamRegister(self.team, totals, self.clock)
        self.started: list[FakeWorker] = []
        self.crew = Crew(2, self.start, self.team, totals, register, self.clock)
        self.crew.start()

    def start(self, seat: int, row: int) -> FakeWorker:
        """
        Create a fake worker and record it.
        """
        worker = FakeWorker(seat, row, self.clock.seconds())
        self.started.append(worker)
        return worker

    def serve(self) -> Sequence[FakeWorker]:
        """
        Let the two latest workers serve.

        @return: the workers.
        """
        for each in self.started[-2:]:
            each.serve()
        return self.started[-2:]

    def test_ready(self) -> None:
        """
        The crew is ready when all workers serve.
        """
        first, second = self.started
        self.assertEqual([(each.seat, each.row) for each in self.started], [(0, 0), (1, 1)])
        first.serve()
        self.assertNoResult(self.crew.whenReady)
        second.serve()
        self.successResultOf(self.crew.whenReady)
        self.assertEqual(self.team.members, [first, second])

    def test_cannotStart(self) -> None:
        """
        If a worker ends before the crew was ready, it is not replaced, and the start fails.
        """
        self.started[0].end("exited with 1")
        failure = self.failureResultOf(self.crew.whenReady, CannotStart)
        self.assertEqual(str(failure.value), "worker 1 has ended: exited with 1")
        self.assertNoResult(self.crew.stop(5))

    def test_replaced(self) -> None:
        """
        A worker that ends is replaced at once, with the same seat and row, or after a growing delay
        if workers end repeatedly.  Its clients no longer count, but its counters are kept.
        """
        first, second = self.started
        first.serve(accepted=3)
        second.serve(accepted=4)
        self.counts.set(first.row, 5)
        self.clock.advance(LASTED)
        with capturedLogs() as logs:
            first.end("killed by SIGKILL")
        self.assertEqual(logs[0]["clients"], 5)
        self.assertEqual((len(self.counts), self.factory.counters.accepted), (0, 7))
        self.clock.advance(0)
        third = self.started[-1]
        self.assertEqual((third.seat, third.row), (0, 0))
        self.assertEqual(self.team.members, [second])
        third.end()
        self.clock.advance(0.4)
        self.assertEqual(len(self.started), 3)
        self.clock.advance(0.1)
        self.assertEqual(len(self.started), 4)

    def test_drain(self) -> None:
        """
        After C{drain} no worker is replaced, not even one whose replacement was already scheduled,
        and C{whenEmpty} fires when all have ended.
        """
        first, second = self.serve()
        first.end()
        second.end()
        self.clock.advance(0)
        self.started[2].end()
        self.started[3].serve()
        self.crew.drain(30)
        self.assertEqual(self.started[3].drained, [30])
        empty = self.crew.whenEmpty()
        self.clock.advance(60)
        self.assertEqual(len(self.started), 4)
        self.assertNoResult(empty)
        self.started[3].end("exited with 0")
        self.successResultOf(empty)
        self.successResultOf(self.crew.whenEmpty())

    def test_drainedLate(self) -> None:
        """
        A worker that becomes ready after C{drain} is drained too.
        """
        first, second = self.started
        first.serve()
        self.crew.drain(30)
        self.assertEqual((first.drained, second.drained), ([30], []))
        second.serve()
        self.assertEqual(second.drained, [30])

    def test_stop(self) -> None:
        """
        C{stop} sends all workers SIGTERM, and kills those that do not end in time.
        """
        first, second = self.serve()
        stopped = self.crew.stop(5)
        first.end("exited with 0")
        self.clock.advance(5)
        self.assertEqual(first.signals, [signal.SIGTERM])
        self.assertEqual(second.signals, [signal.SIGTERM, signal.SIGKILL])
        self.assertNoResult(stopped)
        second.end("killed by SIGKILL")
        self.successResultOf(stopped)

    def test_stopInTime(self) -> None:
        """
        If all workers end in time, no timer is left.
        """
        workers = self.serve()
        stopped = self.crew.stop(5)
        for each in workers:
            each.end("exited with 0")
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rolling(self) -> None:
        """
        C{replace} replaces workers one after another: an old worker is drained once the new one
        serves, and its end is not logged as an error.  Until all old workers have ended, a second
        replacement is refused.
        """
        first, second = self.serve()
        replacing = Deferred.fromCoroutine(self.crew.replace(30))
        third = self.started[2]
        self.assertEqual((third.seat, third.row, first.leaving), (0, 2, False))
        again = Deferred.fromCoroutine(self.crew.replace(30))
        self.failureResultOf(again, NotReplaced)
        third.serve()
        self.assertEqual((first.drained, first.leaving, second.drained), ([30], True, []))
        self.started[3].serve()
        self.assertEqual(self.successResultOf(replacing), 2)
        self.assertEqual((second.drained, self.team.members), ([30], self.started))
        again = Deferred.fromCoroutine(self.crew.replace(30))
        self.failureResultOf(again, NotReplaced)
        with capturedLogs() as logs:
            first.end("exited with 0")
            second.end("exited with 0")
        self.assertEqual({each["log_level"].name for each in logs}, {"info"})
        self.clock.advance(60)
        self.assertEqual(len(self.started), 4)
        third.end()
        self.clock.advance(0)
        self.assertEqual((self.started[4].seat, self.started[4].row), (0, 0))

    def test_rollingFails(self) -> None:
        """
        If a new worker cannot start, for example after a broken upgrade, the old workers continue
        to serve.
        """
        first, second = self.serve()
        replacing = Deferred.fromCoroutine(self.crew.replace(30))
        self.started[2].end("exited with 1")
        failure = self.failureResultOf(replacing, NotReplaced)
        self.assertIn("exited with 1", str(failure.value))
        self.assertEqual((first.drained, second.drained), ([], []))
        self.clock.advance(60)
        self.assertEqual(len(self.started), 3)
        self.clock.advance(LASTED)
        first.end()
        self.clock.advance(0)
        self.assertEqual(len(self.started), 4)

    def test_rollingWhileStopping(self) -> None:
        """
        A server that stops does not replace workers.
        """
        self.serve()
        self.crew.stop(5)
        again = Deferred.fromCoroutine(self.crew.replace(30))
        self.assertIn("stopping", str(self.failureResultOf(again, NotReplaced).value))
