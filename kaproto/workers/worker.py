"""
A worker: a server that accepts on the parent's sockets and is administered only by the parent.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kaproto.admin.control import ControlProgram
from kaproto.admin.controltypes import Document
from kaproto.admin.virtadmin import AdminProgram
from kaproto.app.options import Options
from kaproto.app.service import KaServer, makeService
from kaproto.security.loginqueue import LoginQueue
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.status.sampler import Sampler
from kaproto.wire.structs import pack
from kaproto.workers.channel import WORKER_PROGRAM, WorkerProcedure, WorkerProgram
from kaproto.workers.figures import Figures
from kaproto.workers.handover import Handover
from kaproto.workers.logs import LogTarget
from kaproto.workers.places import Elsewhere, SharedCounts
from kaproto.workers.sharedbooks import sharedBooks
from kaproto.workers.sockets import HandedReactor

__all__ = ["Worker"]


class _Channel(KeepAliveServerProtocol):
    """
    The connection to the parent.
    """

    factory: _ChannelFactory

    def connectionClosed(self, reason: Exception) -> None:
        """
        Stop the worker: without its parent it could not be administered.
        """
        self.factory.closed(reason)


class _ChannelFactory(KeepAliveServerFactory):
    protocol = _Channel

    def __init__(self, server: KaServer, sampler: Sampler) -> None:
        programs = [
            AdminProgram(server),
            ControlProgram(server),
            WorkerProgram(server, sampler.turns),
        ]
        super().__init__(programs=programs, clock=server.factory.clock, startsOpen=True)
        self._server = server

    def closed(self, reason: Exception) -> None:
        """
        The connection has ended.
        """
        self._server.stop()


class Worker:
    """
    One worker.
    """

    _log = Logger()

    def __init__(self, handover: Handover, reactor: Any) -> None:  # noqa: ANN401 - the reactor
        """
        @raise twisted.python.usage.UsageError: when the settings are no longer valid, for example
            because a file has been removed.
        """
        self._handover = handover
        self._reactor = reactor
        options = Options(HandedReactor(reactor, handover.sockets))
        settings = os.memfd_create("kaserver-settings")
        path = Path(f"/proc/self/fd/{settings}")
        path.write_text(handover.settings, "utf-8")
        options.parseOptions([f"--config={path}"])
        os.close(settings)
        self._server = makeService(options)
        # The parent has logged where the server listens.
        self._server.ports.announces = False
        factory = self._server.factory
        counts = SharedCounts(handover.rows, handover.counts)
        factory.journal.numbers = counts.numbers(handover.row)
        factory.clients.elsewhere = Elsewhere(counts, handover.row, handover.workers, handover.room)
        factory.loginQueue = LoginQueue(
            factory.clock, lambda: factory.limits, sharedBooks(handover.books)
        )
        self._sampler = Sampler(self._server)
        self._channel = _ChannelFactory(self._server, self._sampler)

    def run(self) -> None:
        """
        Serve until a signal, or until the parent is gone.
        """
        worker = self._handover.worker
        LogTarget(**self._handover.log).begin(worker, self._reactor)
        self._server.startService()
        if self._handover.sampled:
            self._sampler.start()
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        channel = socket.socket(fileno=self._handover.channel)
        with channel:
            self._reactor.adoptStreamConnection(channel.fileno(), socket.AF_UNIX, self._channel)
        self._reactor.run()

    def _stop(self) -> Deferred[None]:
        # The worker may get SIGTERM twice: from the parent, and from systemd.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        await self._server.stopService()
        last = Figures.of(self._server, self._sampler.turns)
        self._sampler.stop()
        for each in self._channel.connections:
            each.sendEvent(WORKER_PROGRAM, WorkerProcedure.LAST, pack(Document(last.toJSON())))
        await self._channel.drain()
