"""
Tests for L{kaproto.workers.start}.
"""

from __future__ import annotations

import os
import socket

from twisted.internet.error import ProcessDone
from twisted.python.failure import Failure

from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.liveness import KeepAlive
from kaproto.server import KeepAliveServerFactory
from kaproto.workers.channel import WorkerProgram
from kaproto.workers.places import SharedCounts
from kaproto.workers.process import WorkerProcess
from kaproto.workers.sharedbooks import createBooks
from kaproto.workers.sockets import BindingReactor
from kaproto.workers.start import Starter
from tests.support_admin import AdminTestCase
from tests.support_workers import SpawningReactor


class StarterTests(AdminTestCase):
    """
    Tests for starting a worker.
    """

    def setUp(self) -> None:
        """
        Create a starter without any bound sockets.
        """
        super().setUp()
        self.reactor = SpawningReactor()
        self.binding = BindingReactor(self.reactor, 2, {"LISTEN_FDNAMES": "a"})
        counts = SharedCounts.create(4)
        self.addCleanup(counts.close)
        books = createBooks()
        self.addCleanup(os.close, books)
        self.traced: list[bytes] = []
        self.starter = Starter(
            self.reactor,
            self.clock,
            self.binding,
            counts,
            books,
            lambda: 'mode = "2"\n',
            workers=2,
            room=100,
            sampled=False,
            log=lambda worker: {"worker": worker},
            output=1,
            patience=KeepAlive(1, 3),
            traced=self.traced.append,
        )

    def start(self, seat: int, row: int) -> WorkerProcess:
        """
        @return: a worker, which ends with the test.
        """
        worker = self.starter.start(seat, row)
        worker.ready.addErrback(lambda _: worker)
        self.addCleanup(worker.processEnded, Failure(ProcessDone(0)))
        return worker

    def test_passed(self) -> None:
        """
        A socket that systemd has passed has the same number in the worker, and sockets that the
        parent has bound follow.
        """
        passed = socket.socket(socket.AF_UNIX)
        self.addCleanup(passed.close)
        kept = self.binding.adoptStreamPort(passed.fileno(), socket.AF_UNIX, self.server)
        self.addCleanup(kept.stopListening)
        self.binding.passed = {3: kept}
        bound = self.binding.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(bound.stopListening)
        worker = self.start(1, 2)
        ((_, _, handover),) = self.reactor.started
        self.assertEqual((handover.passed, handover.passedNames), (1, "a"))
        self.assertEqual(handover.sockets, {"tcp 0 127.0.0.1": [4]})
        self.assertEqual((handover.worker, handover.row, worker.row), (2, 2, 2))
        for number, port in ((3, kept), (4, bound)):
            self.assertEqual(self.reactor.files[number], port.socketFor(1).fileno())

    def test_serves(self) -> None:
        """
        A worker is ready after its first answer.
        """
        worker = self.start(0, 0)
        self.assertNoResult(worker.ready)
        (client,) = self.reactor.connected
        programs = [WorkerProgram(self.daemon, Histogram())]
        server = KeepAliveServerFactory(programs=programs, clock=self.clock, startsOpen=True)
        self.pair(server, client).flush()
        self.assertIs(self.successResultOf(worker.ready), worker)
