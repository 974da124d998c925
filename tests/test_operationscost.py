"""
Tests that administration and the status page of a server with ten thousand clients block the
reactor for no more than 20 ms.

The tests measure processor time, so that other programs on the machine do not matter.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kaproto.admin.control import ControlProgram
from kaproto.admin.controltypes import Page as ListPage
from kaproto.admin.factory import adminFactory
from kaproto.errors import ConnectionClosed
from kaproto.policies import Optional
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.status.metrics import Metrics
from kaproto.status.page import Page, View
from kaproto.status.sampler import Sampler
from kaproto.wire.message import packMessage
from kaproto.wire.programs import ADMIN_PROGRAM, AdminProcedure
from tests.machine import useMachine
from tests.support import FEATURE_KEEPALIVE, OPEN, call
from tests.support_daemon import FakeDaemon

CLIENTS = 10_000
LONGEST = 0.020
"""
The most processor time for one turn, in seconds.
"""

TRIES = 3
"""
How often each operation is measured.  The best counts, because other programs slow down this one
through the processor's caches.
"""


class ManyClientsTests(SynchronousTestCase):
    """
    Tests for operations of a server with many clients.
    """

    def start(self) -> None:
        """
        Connect the clients.
        """
        useMachine(self, alone=True)
        self.clock = Clock()
        server = KeepAliveServerFactory(Optional(), clock=self.clock)
        opening = packMessage(FEATURE_KEEPALIVE) + packMessage(OPEN)
        with capturedLogs():
            for number in range(CLIENTS):
                address = IPv4Address("TCP", f"10.0.{number >> 8}.{number & 255}", 1024)
                self.connect(server, address).dataReceived(opening)
            for connection in server.clients:
                server.journal.ended(connection.peer, ConnectionClosed("closed"))
                server.journal.warned(connection.peer, "mode 2 would refuse it")
        self.daemon = FakeDaemon(server)
        self.daemon.becomeGateway().health.works()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

    def runWithoutTracer(self) -> None:
        """
        Run the test in another process, without the tracer of C{coverage}, whose cost it would
        measure.
        """
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("COVERAGE_", "COV_"))
        }
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "twisted.trial", f"--temp-directory={folder}/trial"]
            done = subprocess.run(
                [*command, self.id()],
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        self.assertEqual(done.returncode, 0, done.stdout)

    def connect(self, factory: KeepAliveServerFactory, address: IPv4Address) -> Protocol:
        """
        @return: the server's end of a new connection.
        """
        protocol = factory.buildProtocol(address)
        assert isinstance(protocol, KeepAliveServerProtocol)
        protocol.makeConnection(StringTransport(peerAddress=address))
        return protocol

    def longest(self, start: Callable[[], object]) -> float:
        """
        Start an operation, and run the reactor's turns until it is done.

        @return: the processor time of the longest turn, in seconds.
        """
        turns = [took(start)]
        while due := [
            cast(DelayedCall, each)
            for each in self.clock.getDelayedCalls()
            if each.getTime() <= self.clock.seconds()
        ]:
            work = [partial(each.func, *each.args, **each.kw) for each in due]
            for each in due:
                each.cancel()
            # A reactor runs all due calls in one turn.
            turns.append(took(lambda work=work: [each() for each in work]))  # type: ignore[misc]
        return max(turns)

    def test_turns(self) -> None:
        """
        C{virt-admin client-list}, C{kaproto}'s queries, the page and the metrics take no turn
        longer than L{LONGEST}.
        """
        if "coverage" in sys.modules:
            self.runWithoutTracer()
            return
        self.start()
        factory = adminFactory(self.daemon)
        factory.policy = Optional()
        administrator = self.connect(factory, IPv4Address("TCP", "127.0.0.1", 1))
        arguments = b"\0\0\0\x08kaserver\0\0\0\1\0\0\0\0"
        message = call(AdminProcedure.SERVER_LIST_CLIENTS, arguments, program=ADMIN_PROGRAM)
        program, anybody = ControlProgram(self.daemon), cast(KeepAliveServerProtocol, None)
        sampler = Sampler(self.daemon)
        page, metrics = Page(self.daemon, sampler), Metrics(self.daemon, sampler)
        rendered: list[Deferred[Any]] = []

        def run(work: Callable[..., Any], *arguments: object) -> None:
            rendered.append(Deferred.fromCoroutine(work(*arguments)))

        work: dict[str, Callable[[], object]] = {
            "client-list": partial(administrator.dataReceived, packMessage(message)),
            "list": partial(program.listClients, anybody, ListPage(0)),
            "list on": partial(program.listClients, anybody, ListPage(CLIENTS // 2)),
            "status": partial(run, program.status, anybody),
            "ended": partial(run, program.ended, anybody),
            "refused": partial(run, program.refused, anybody),
            "page": partial(run, page.document, View()),
            "page, one found": partial(run, page.document, View("10.0.1.1")),
            "page, none found": partial(run, page.document, View("nobody")),
            "events": partial(run, page.sections, View()),
            "metrics": partial(metrics.render, ""),
        }
        found = {
            name: min(self.longest(each) for _try in range(TRIES)) for name, each in work.items()
        }
        self.assertEqual({name: each for name, each in found.items() if each > LONGEST}, {})
        listed = cast(StringTransport, administrator.transport).value()
        self.assertEqual(listed[28:32], CLIENTS.to_bytes(4, "big"))
        for each in rendered:
            self.successResultOf(each)


def took(work: Callable[[], object]) -> float:
    """
    @return: the processor time of some work, in seconds.
    """
    began = time.thread_time()
    work()
    return time.thread_time() - began
