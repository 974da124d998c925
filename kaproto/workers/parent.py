"""
The service of a server with workers: it listens, starts the workers, and is monitored and
administered on behalf of all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.admin.controltypes import CONTROL_PROGRAM, ControlProcedure, Document
from kaproto.app.config import Config, writeConfig
from kaproto.app.kaserver import MARGIN, KaServer
from kaproto.app.options import Options
from kaproto.app.process import clientsFor
from kaproto.app.reloading import Reloader
from kaproto.keepalive.liveness import KeepAlive
from kaproto.program import Program
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.structs import unpack
from kaproto.workers.administration import TeamAdmin, TeamControl
from kaproto.workers.crew import ROWS_EACH, Crew
from kaproto.workers.figures import Totals
from kaproto.workers.logs import LogTarget
from kaproto.workers.node import TeamNode
from kaproto.workers.places import SharedCounts
from kaproto.workers.sharedbooks import createBooks
from kaproto.workers.start import Starter
from kaproto.workers.team import Team, TeamRegister

__all__ = ["Parent", "patience", "workerSettings"]

_OWN: Final = frozenset(
    {
        "workers",
        "admin",
        "status",
        "log-format",
        "agent",
        "registry",
        "registry-password-file",
        "registry-orders",
        "node",
    }
)
"""
Settings that workers do not get.
"""


class Parent(KaServer):
    """
    The parent of workers.  Its factory has no connections; its counters are the sums of the
    workers' counters.

    @ivar crew: the workers.
    """

    _log = Logger()

    def __init__(self, options: Options, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401
        """
        @param options: the settings, with the bound sockets.  The other arguments are those of
            L{KaServer}.
        """
        super().__init__(*arguments, **keywords)
        reactor: Any = self._reactor
        factory, clock = self.factory, self.factory.clock
        assert options.binding is not None, "workers share what was bound for them"
        counts = SharedCounts.create(options.workers * ROWS_EACH)
        self._team = Team(counts, clock)
        self._password = None if options.redis is None else options.redis[1]
        self._totals = Totals(factory)
        register = TeamRegister(self._team, self._totals, clock)
        self.register = register
        self._node = TeamNode(self, self._team, clock)
        self._control = TeamControl(self, self._team, self.replace)
        starter = Starter(
            reactor,
            clock,
            options.binding,
            counts,
            createBooks(),
            lambda: workerSettings(options.configuration(), factory),
            options.workers,
            clientsFor(1 if options.upstream is None else 2),
            options.statusPage is not None,
            lambda worker: attrs.asdict(
                LogTarget.of(options.parent, options["log-format"], worker)
            ),
            LogTarget.output(options.parent),
            patience(options.keepAlive),
            self._control.traced,
        )
        self.crew = Crew(options.workers, starter.start, self._team, self._totals, register, clock)

    def asNode(self) -> TeamNode:
        """
        @return: an adapter of this server for its registry.
        """
        return self._node

    def adminPrograms(self) -> Sequence[Program]:
        """
        @return: the programs that administrators may call.
        """
        return [TeamAdmin(self, self._team), self._control]

    def startService(self) -> None:
        """
        Start the workers once the reactor runs, and notify systemd when all of them serve.
        """
        if self._listening is None:
            self.privilegedStartService()
        assert self._listening is not None, "it has begun"
        serve: Deferred[object] = Deferred()
        self.crew.whenReady.addCallbacks(serve.callback, self._cannotStart)
        self._listening = gatherResults([self._listening, serve])
        super().startService()
        IReactorCore(self._reactor).callWhenRunning(self.crew.start)

    def _cannotStart(self, failure: Failure) -> None:
        if not self._stopping:
            self._log.critical("kaserver: {reason}", reason=failure.value)
            self.stop()

    def certificateExpiry(self) -> Mapping[str, float]:
        """
        @return: when the workers' certificates expire, in seconds since 1970, by listener.
        """
        return self._totals.certificates

    async def reload(self) -> Sequence[str]:
        """
        Make all workers read their files again, and read the registry's password.

        @return: error messages for files that could not be read.
        """
        problems: dict[str, None] = {}
        if self._password is not None:
            problems |= dict.fromkeys(Reloader([self._password]).reload())
        for member, answer in await self._team.askAll(CONTROL_PROGRAM, ControlProcedure.RELOAD):
            found = json.loads(unpack(Document, answer).json)
            self._log.info("{worker} has reloaded", worker=member)
            problems |= dict.fromkeys(found)
        return list(problems)

    async def replace(self) -> int:
        """
        Replace the workers one after another.

        @return: the number of workers replaced.
        @raise kaproto.workers.crew.NotReplaced: when workers cannot be replaced; the message says
            why.
        """
        return await self.crew.replace(self._drainTimeout)

    async def _leave(self, seconds: float) -> None:
        await self.ports.stop()
        self.crew.drain(seconds)
        await self.crew.whenEmpty()

    async def _finish(self, grace: float) -> None:
        await self.crew.stop(grace + MARGIN)
        self._node.stop()


def patience(keepAlive: KeepAlive) -> KeepAlive:
    """
    @param keepAlive: the clients' interval and count.
    @return: the interval and count for pinging workers.  They are those of clients, so the parent
        detects a hung worker when its clients do, but at least 0.5 s and 3, so that a busy worker
        is not killed.
    """
    return KeepAlive(max(keepAlive.interval, 0.5), max(keepAlive.count, 3))


def workerSettings(config: Config, factory: KeepAliveServerFactory) -> str:
    """
    @param config: the parent's settings.
    @param factory: the factory with the current limits, which an administrator may have changed.
    @return: a worker's settings, as a configuration file.
    """
    values = {name: value for name, value in config.values.items() if name not in _OWN}
    values["max-clients"] = factory.limits.maxClients
    values["max-anonymous-clients"] = factory.limits.maxAnonymousClients
    origins = dict.fromkeys(values, "the parent")
    return writeConfig(Config(values, config.listen), origins)
