"""
The running server: it listens, reloads, drains and stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorCore, IReactorTime
from twisted.logger import FileLogObserver, ILogObserver, Logger
from twisted.python.components import Componentized

from kaproto.admin.control import ControlProgram
from kaproto.admin.virtadmin import AdminProgram
from kaproto.app.ports import Ports
from kaproto.app.process import OwnProcess
from kaproto.app.registered import RegisteredNode, defaultNode
from kaproto.app.reloading import Reloader
from kaproto.backends.gateway import Gateway
from kaproto.program import Program
from kaproto.registry.interfaces import IRegistry, Node
from kaproto.registry.local import LocalRegistry
from kaproto.security.tls import ServerContextFactory
from kaproto.server import KeepAliveServerFactory
from kaproto.status.register import LocalRegister, Register

__all__ = ["MARGIN", "KaServer"]


MARGIN: Final = 10.0
"""
Seconds that the process may take to exit after the grace period.
"""


_LAST_WORDS: Final = 0.5
"""
Seconds from the end of the grace period until connections are aborted.
"""


class KaServer(Service):
    """
    The server.  To stop, it stops listening, lets calls finish, and closes all connections.

    @ivar factory: the factory of its connections.
    @ivar ports: its listeners for clients.
    @ivar operations: its listeners for administration and monitoring, which stay open until all
        clients have left.
    @ivar gateway: its backend, if the server is a gateway.
    @ivar register: its clients, for monitoring and administration.
    @ivar registry: lists its clients together with those of other servers.
    @ivar draining: whether it accepts no new clients, and stops when the present ones have left.
    """

    _log = Logger()

    def __init__(
        self,
        factory: KeepAliveServerFactory,
        ports: Ports,
        reloader: Reloader,
        reactor: IReactorTime,
        *,
        grace: float,
        drainTimeout: float,
        gateway: Gateway | None = None,
        contexts: Mapping[str, ServerContextFactory] = MappingProxyType({}),
        registry: IRegistry | None = None,
        process: OwnProcess | None = None,
        logObserver: FileLogObserver | None = None,
    ) -> None:
        """
        @param reloader: reloads files.
        @param grace: seconds that calls have to finish when the service stops.
        @param drainTimeout: seconds that clients have to leave when the service is drained.
        @param contexts: the TLS certificates, by listener.
        @param registry: lists the clients; by default only within this process.
        @param process: the process, if it runs nothing but this service.
        @param logObserver: the log observer for C{twistd}.
        """
        self.factory = factory
        self.ports = ports
        self.operations = Ports((), self.stop)
        self.draining = False
        self.gateway = gateway
        self.register: Register = LocalRegister(factory, gateway)
        self.registry = registry or LocalRegistry(defaultNode())
        self._contexts = contexts
        self._reloader = reloader
        self._reactor = reactor
        self._grace = grace
        self._drainTimeout = drainTimeout
        self._process = process
        self._logObserver = logObserver
        self._listening: Deferred[Any] | None = None
        self._drained: IDelayedCall | None = None
        self._stopping = False

    def setServiceParent(self, parent: Any) -> None:  # noqa: ANN401 - an application or a service
        """
        Attach the service to an application, and give the application the log observer.
        """
        if self._logObserver is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._logObserver)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """
        Listen.  C{twistd} calls this before it drops root privileges.

        @raise CannotListen: when a listener cannot start; the message names the flag.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        if self._process is not None:
            self._process.prepare()
        self._listening = gatherResults([self.ports.start(), self.operations.start()])

    def startService(self) -> None:
        """
        Start the service.  Listen now if L{privilegedStartService} was not called: C{twist}, which
        drops no privileges, does not call it.
        """
        if self._listening is None:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        self.registry.start(self.asNode())
        if self._process is not None and self._listening is not None:
            self._process.start(self, self.factory.clock)
            self._listening.addCallback(self._ready, self._process)

    def _ready(self, listening: object, process: OwnProcess) -> None:
        IReactorCore(self._reactor).callWhenRunning(process.notifier.ready)

    async def reload(self) -> Sequence[str]:
        """
        Reload files: certificates, rules, users.

        @return: an error message for each file that could not be read.  The previous contents of
            such a file stay in use.
        """
        return self._reloader.reload()

    @property
    def listeners(self) -> Sequence[str]:
        """
        The endpoint strings on which it listens.
        """
        return [each.flag.partition("=")[2] for each in self.ports.places]

    def certificateExpiry(self) -> Mapping[str, float]:
        """
        @return: when the certificates expire, in seconds since 1970, by listener.
        """
        return {listener: each.expiry for listener, each in self._contexts.items()}

    def asNode(self) -> Node:
        """
        @return: an adapter of this server for its registry.
        """
        return RegisteredNode(self)

    def adminPrograms(self) -> Sequence[Program]:
        """
        @return: the RPC programs for administrators.
        """
        return [AdminProgram(self), ControlProgram(self)]

    def busy(self) -> bool:
        """
        @return: whether there are clients.
        """
        return bool(len(self.register))

    def connections(self) -> tuple[int, int]:
        """
        @return: the numbers of open connections, and of connections that ended since the start.
        """
        present = len(self.register)
        return present, self.factory.journal.counters.accepted - present

    def status(self) -> str:
        """
        @return: the state of the server, in one line.
        """
        count = len(self.register)
        clients = "1 client" if count == 1 else f"{count:,} clients"
        return f"draining, {clients} left" if self.draining else clients

    def drain(self, within: float | None = None) -> None:
        """
        Stop listening, and stop the process when the present clients have left or their time is
        over.

        @param within: seconds that clients have to leave; by default the configured time.
        """
        if self.draining:
            return
        self.draining = True
        seconds = self._drainTimeout if within is None else within
        self._log.info(
            "draining: no new clients; {count} connections have up to {seconds:g} s to leave",
            count=len(self.register),
            seconds=seconds,
        )
        self._drained = self.factory.clock.callLater(seconds, self.stop)
        Deferred.fromCoroutine(self._leave(seconds)).addCallback(lambda _: self.stop())

    async def _leave(self, seconds: float) -> None:
        """
        Accept no new clients, and wait until the present ones have left.
        """
        await self.ports.stop()
        await self.factory.clients.whenEmpty()

    def stop(self) -> None:
        """
        Stop the process gracefully, as on SIGTERM.
        """
        if self.running:
            IReactorCore(self._reactor).stop()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, notify the clients, let their calls finish within the grace period, and
        close all connections.

        @return: fires when all connections are closed.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._drained is not None and self._drained.active():
            self._drained.cancel()
        if self._process is not None:
            self._process.notifier.stopping(self._grace + MARGIN)
        await self.ports.stop()
        if len(self.register):
            self._log.info(
                "stopping: {count} connections have up to {grace:g} s to finish",
                count=len(self.register),
                grace=self._grace,
            )
        await self._finish(self._grace)
        await self.registry.stop()
        await self.operations.stop()
        if self._process is not None:
            self._process.stop()

    async def _finish(self, grace: float) -> None:
        """
        Let calls finish, and close all connections.

        @param grace: seconds that calls have to finish.  Then outstanding calls are answered with
            an error, which clients have L{_LAST_WORDS} seconds to read.
        """
        clock, factory = self.factory.clock, self.factory
        expel = clock.callLater(grace, factory.expel)
        abort = clock.callLater(grace + _LAST_WORDS, factory.abort)
        await factory.drain()
        for each in (expel, abort):
            if each.active():
                each.cancel()
        if self.gateway is not None:
            self.gateway.health.close()
