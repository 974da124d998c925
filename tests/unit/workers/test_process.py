"""
Tests for L{kaproto.workers.process}.
"""

from __future__ import annotations

import signal
from typing import Any, cast

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.python.failure import Failure

from kaproto.admin.controltypes import CONTROL_PROGRAM, ControlProcedure, Document
from kaproto.client import KeepAliveClientFactory
from kaproto.errors import ConnectionClosed
from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.liveness import KeepAlive
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.structs import pack
from kaproto.workers.channel import WORKER_PROGRAM, WorkerProcedure, WorkerProgram
from kaproto.workers.figures import Figures
from kaproto.workers.process import WorkerProcess
from tests.support_admin import AdminTestCase


class FakeTransport:
    """
    A process that only records signals.
    """

    pid = 77

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.exited = False

    def signalProcess(self, number: int) -> None:
        """
        Record a signal.

        @raise ProcessExitedAlready: if the process has ended.
        """
        if self.exited:
            raise ProcessExitedAlready
        self.signals.append(number)


class WorkerProcessTests(AdminTestCase):
    """
    Tests for a worker as the parent sees it.
    """

    def setUp(self) -> None:
        """
        Create a worker that is not connected yet.
        """
        super().setUp()
        self.worker = WorkerProcess(0, 3, KeepAlive(1, 3), self.clock)
        self.process = FakeTransport()
        self.worker.makeConnection(cast(Any, self.process))  # type: ignore[no-untyped-call]
        self.worker.ready.addErrback(lambda _: None)
        self.traced: list[bytes] = []

    def begin(self) -> None:
        """
        Connect the worker to a server for its figures.
        """
        factory = KeepAliveServerFactory(
            programs=[WorkerProgram(self.daemon, Histogram())], clock=self.clock, startsOpen=True
        )
        client = KeepAliveClientFactory(clock=self.clock)
        client.startsOpen = True
        self.wires = self.pair(factory, client)
        self.worker.attach(self.wires.client, self.traced.append)
        self.wires.flush()

    def end(self, reason: Exception) -> None:
        """
        Report that the process has ended.
        """
        self.process.exited = True
        self.worker.processEnded(Failure(reason))

    def test_life(self) -> None:
        """
        A worker is ready after it has sent figures.  Trace events are passed on, and its last
        figures are kept.  It has ended when both its process and its connection have.
        """
        self.assertEqual(str(self.worker), "worker 1 (pid 77)")
        self.failureResultOf(self.worker.call(1, 1), ConnectionClosed)
        self.begin()
        self.assertEqual(self.successResultOf(self.worker.ready), self.worker)
        server = self.wires.server
        server.sendEvent(CONTROL_PROGRAM, ControlProcedure.TRACED, b"event")
        last = Figures({"accepted": 9}, {}, [0], [0])
        server.sendEvent(WORKER_PROGRAM, WorkerProcedure.LAST, pack(Document(last.toJSON())))
        self.wires.flush()
        self.assertEqual(self.traced, [b"event"])
        assert self.worker.figures is not None
        self.assertEqual(self.worker.figures.counters, {"accepted": 9})
        self.end(ProcessDone(0))
        self.assertNoResult(self.worker.whenEnded)
        server.disconnect(ConnectionClosed("the end"))
        self.wires.flush()
        self.assertEqual(self.successResultOf(self.worker.whenEnded), "exited with 0")
        self.worker.send(signal.SIGTERM)
        self.assertEqual(self.process.signals, [])

    def test_killed(self) -> None:
        """
        The end of a killed worker has the signal's name, even before it was ready.
        """
        self.end(ProcessTerminated(None, signal.SIGKILL, 9))
        self.assertEqual(self.successResultOf(self.worker.whenEnded), "killed by SIGKILL")

    def test_slowStart(self) -> None:
        """
        A worker that is not ready within 60 seconds is killed.
        """
        self.clock.advance(60)
        self.assertEqual(self.process.signals, [signal.SIGKILL])
        self.end(ProcessTerminated(None, signal.SIGKILL, 9))
        self.assertIn("60 s", self.successResultOf(self.worker.whenEnded))

    def test_wedged(self) -> None:
        """
        A worker that does not answer pings is killed, and its end has that reason.
        """
        self.begin()
        self.clock.pump([0.25] * 40)
        self.assertEqual(self.process.signals, [signal.SIGKILL])
        self.end(ProcessTerminated(None, signal.SIGKILL, 9))
        self.assertIn("it did not answer", self.successResultOf(self.worker.whenEnded))

    def test_disconnected(self) -> None:
        """
        A worker that closes its connection without ending is killed after five seconds.
        """
        self.begin()
        self.wires.server.abort(ConnectionClosed("why"))
        self.wires.flush()
        self.assertEqual(self.process.signals, [])
        self.clock.advance(5)
        self.assertEqual(self.process.signals, [signal.SIGKILL])
        self.end(ProcessTerminated(None, signal.SIGKILL, 9))
        self.assertIn("did not end in 5 s", self.successResultOf(self.worker.whenEnded))
