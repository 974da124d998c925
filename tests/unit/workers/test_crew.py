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

    @ivar signals: what it was sent.
    @ivar drained: within how many seconds its clients were to leave, each time it was told.
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
        Begin to serve.
        """
        self.figures = Figures({"accepted": accepted}, {}, [0] * 66, [0] * 66)
        self.ready.callback(self)

    def end(self, how: str = "exited with 1") -> None:
        """
        End.
        """
        if not self.ready.called:
            self.ready.errback(RuntimeError(how))
        self.whenEnded.callback(how)

    def send(self, number: signal.Signals) -> None:
        """
        Remember a signal.
        """
        self.signals.append(number)

    def call(self, program: int, procedure: int, payload: bytes = b"") -> Deferred[bytes]:
        """
        Be drained.
        """
        assert (program, procedure) == (CONTROL_PROGRAM, ControlProcedure.DRAIN)
        self.drained.append(unpack(Draining, payload).within)
        return succeed(b"")


class CrewTests(SynchronousTestCase):
    """
    Two seats, and who takes them.
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
        Start a worker.
        """
        worker = FakeWorker(seat, row, self.clock.seconds())
        self.started.append(worker)
        return worker

    def serve(self) -> Sequence[FakeWorker]:
        """
        @return: two workers that serve.
        """
        for each in self.started[-2:]:
            each.serve()
        return self.started[-2:]

    def test_ready(self) -> None:
        """
        It is ready when all seats are taken.
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
        One that ends before it ever served is not replaced, and the server cannot start.
        """
        self.started[0].end("exited with 1")
        failure = self.failureResultOf(self.crew.whenReady, CannotStart)
        self.assertEqual(str(failure.value), "worker 1 has ended: exited with 1")
        self.assertNoResult(self.crew.stop(5))

    def test_replaced(self) -> None:
        """
        One that ends is replaced, at the same seat and with the same row, at once; if it ends again
        and again, later and later.  Its clients are not counted any more, but what it has counted
        is.
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
        When they are drained, all end when they can and none is replaced, not even one that waits
        for that, nor one that has not served yet.
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
        One that begins to serve after that is drained, too.
        """
        first, second = self.started
        first.serve()
        self.crew.drain(30)
        self.assertEqual((first.drained, second.drained), ([30], []))
        second.serve()
        self.assertEqual(second.drained, [30])

    def test_stop(self) -> None:
        """
        To stop, all are told; one that does not stop is killed.
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
        Nothing is left to be done when all have stopped.
        """
        workers = self.serve()
        stopped = self.crew.stop(5)
        for each in workers:
            each.end("exited with 0")
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rolling(self) -> None:
        """
        Workers are replaced one after another: an old one is drained when the new one serves, and
        not before, and its end is in order.  Meanwhile, and until all old ones have ended, none is
        replaced again.
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
        When a new one cannot start, such as after a broken upgrade, the old ones serve on.
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
        Nobody is replaced in a server that stops.
        """
        self.serve()
        self.crew.stop(5)
        again = Deferred.fromCoroutine(self.crew.replace(30))
        self.assertIn("stopping", str(self.failureResultOf(again, NotReplaced).value))
