"""
Tests for L{kaproto.workers.parent}.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.python.usage import UsageError

from kaproto.admin.controltypes import CONTROL_PROGRAM, ControlProcedure, Document
from kaproto.app.options import Options
from kaproto.app.service import makeService
from kaproto.keepalive.liveness import KeepAlive
from kaproto.registry.interfaces import Node
from kaproto.wire.structs import pack
from kaproto.workers.administration import TeamAdmin, TeamControl
from kaproto.workers.parent import Parent, patience, workerSettings
from tests.support import ClockTestCase
from tests.support_workers import SpawningReactor


class ParentTests(ClockTestCase):
    """
    Tests for the service of a server with workers.
    """

    def make(self, *arguments: str) -> Parent:
        """
        @return: the service for a command line.
        """
        self.reactor = SpawningReactor()
        options = Options(self.reactor)
        options.parseOptions(
            ["--listen=tcp:0:interface=127.0.0.1", "--workers=2", "--max-clients=9", *arguments]
        )
        service = makeService(options, cast(Any, self.reactor))
        self.options = options
        assert isinstance(service, Parent)
        self.addCleanup(lambda: Deferred.fromCoroutine(service.ports.stop()))
        return service

    def test_start(self) -> None:
        """
        The service binds the sockets and starts the workers.  They get the settings, without the
        parent's own, and not on their command line.
        """
        service = self.make("--mode=2", "--insecure")
        service.privilegedStartService()
        listening = list(service.ports.listening)
        service.startService()
        self.assertEqual(service.ports.listening, listening)
        for trigger, arguments, keywords in self.reactor.whenRunningHooks:
            trigger(*arguments, **keywords)
        self.assertEqual(len(self.reactor.started), 2)
        self.assertEqual(len(self.reactor.connected), 2)
        (_first, arguments, handover), (_second, _, other) = self.reactor.started
        self.assertEqual(arguments[1:3], ["-m", "kaproto.workers.serve"])
        self.assertEqual((handover.worker, handover.row, handover.rows), (1, 0, 4))
        self.assertEqual((other.worker, other.row, other.workers), (2, 1, 2))
        self.assertIn('mode = "2"', handover.settings)
        self.assertIn("max-clients = 9", handover.settings)
        self.assertIn("insecure = true", handover.settings)
        self.assertNotIn("workers =", handover.settings)
        self.assertEqual(list(handover.sockets), ["tcp 0 127.0.0.1"])
        control, admin = service.adminPrograms()[::-1]
        self.assertIsInstance(control, TeamControl)
        self.assertIsInstance(admin, TeamAdmin)
        self.assertEqual(service.certificateExpiry(), {})

    def test_cannotStart(self) -> None:
        """
        If a worker cannot start, the service stops and logs a critical error.
        """
        service = self.make()
        service.startService()
        with capturedLogs() as logs:
            service.crew.whenReady.errback(RuntimeError("worker 1 has ended"))
        self.assertEqual(logs[-1]["log_level"].name, "critical")
        self.assertEqual(self.reactor.stops, 1)

    def test_orders(self) -> None:
        """
        Reloading, replacing, draining and stopping are passed on to the workers.
        """
        service = self.make()
        asked: list[object] = []

        class Member:
            row, pid, leaving, figures = 0, 1, False, None

            def call(self, program: int, procedure: int, payload: bytes = b"") -> Deferred[bytes]:
                asked.append((program, procedure))
                answer: Deferred[bytes] = Deferred()
                answer.callback(pack(Document(json.dumps(["no such file"]))))
                return answer

        service._team.members += [cast(Any, Member()), cast(Any, Member())]
        reloading = Deferred.fromCoroutine(service.reload())
        self.assertEqual(self.successResultOf(reloading), ["no such file"])
        self.assertEqual(asked, [(CONTROL_PROGRAM, ControlProcedure.RELOAD)] * 2)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(service.replace())), 0)
        service.startService()
        service.drain(5)
        self.assertEqual((service.draining, self.reactor.stops), (True, 1))
        self.successResultOf(service.stopService())
        service.crew.whenReady.errback(RuntimeError("stopping"))
        self.assertEqual(self.reactor.stops, 1)

    def test_registry(self) -> None:
        """
        The parent registers all workers as one node, and workers get no settings of the registry.
        A reload reads the password again.
        """
        path = Path(self.mktemp())
        path.write_text("secret")
        service = self.make(
            "--registry=redis://127.0.0.1",
            f"--registry-password-file={path}",
            "--registry-orders=none",
            "--node=host7",
        )
        settings = workerSettings(self.options.configuration(), service.factory)
        self.assertNotIn("registry", settings)
        self.assertNotIn("node", settings)
        self.assertEqual(service.registry.node, "host7")
        nodes: list[Node] = []
        changes: list[int] = []
        self.patch(service.registry, "start", nodes.append)
        service.startService()
        (node,) = nodes
        node.follow(changes.append)
        self.assertEqual(node.about()["clients"], 0)
        path.unlink()
        (problem,) = self.successResultOf(Deferred.fromCoroutine(service.reload()))
        self.assertIn(f"{path}: No such file", problem)
        self.successResultOf(service.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_patience(self) -> None:
        """
        Workers are pinged with the clients' interval and count, but never so strictly that a busy
        worker would be killed.
        """
        self.assertEqual(patience(KeepAlive(5, 5)), KeepAlive(5, 5))
        self.assertEqual(patience(KeepAlive(0.1, 1)), KeepAlive(0.5, 3))

    def test_options(self) -> None:
        """
        With C{--workers=auto} there is one worker per processor.  Invalid numbers, and endpoints
        that cannot be shared, are usage errors.
        """
        self.patch(os, "sched_getaffinity", lambda _: {1, 2, 3})
        options = Options(MemoryReactorClock())
        options.parseOptions(["--workers=auto"])
        self.assertEqual(options.workers, 3)
        for wrong, message in (
            (["--workers=0"], "takes auto, or a whole number from 1 up"),
            (["--workers=2", "--listen=stdio:"], "cannot be shared"),
        ):
            with self.assertRaisesRegex(UsageError, message):
                Options(MemoryReactorClock()).parseOptions(wrong)
