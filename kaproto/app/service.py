"""
The running server: it listens, reloads, drains and stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorCore, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import FileLogObserver, ILogObserver, Logger
from twisted.python.components import Componentized

from kaproto.admin.factory import adminFactory
from kaproto.app.listeners import Listener, virshCommand
from kaproto.app.logs import installLog
from kaproto.app.operations import adminPlace, statusPlace
from kaproto.app.options import Options
from kaproto.app.ports import CannotListen, Place, Ports
from kaproto.app.process import OwnProcess, clientsFor
from kaproto.app.registered import RegisteredNode, defaultNode
from kaproto.app.reloading import Reloader
from kaproto.backends.gateway import Gateway
from kaproto.backends.host import EmbeddedHost
from kaproto.interfaces import IBackend
from kaproto.keepalive.kernelwatch import TCPKeepAlive
from kaproto.keepalive.liveness import KeepAlive
from kaproto.registry.interfaces import IRegistry
from kaproto.registry.link import RedisFactory
from kaproto.registry.local import LocalRegistry
from kaproto.registry.redis import RedisRegistry
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.security.endpoints import TLSServerEndpoint
from kaproto.security.tls import ServerContextFactory
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.status.register import LocalRegister, Register
from kaproto.status.site import StatusFactory

__all__ = ["CannotListen", "KaServer", "Options", "makeService"]


_MARGIN: Final = 10.0
"""
Seconds from the end of the grace until the process has ended.
"""


class KaServer(Service):
    """
    Serves at some places.  To stop, it stops listening, lets calls finish, and closes.

    @ivar factory: the factory of its connections.
    @ivar ports: where it listens for clients.
    @ivar operations: where it is administered and watched, until its clients have left.
    @ivar gateway: what answers its clients, if that is a gateway.
    @ivar register: its clients, for those who watch and steer it.
    @ivar registry: where its clients are listed beside those of other servers.
    @ivar draining: whether it accepts no new clients, and stops when those that are there have
        left.
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
        @param reloader: reads files again.
        @param grace: seconds that calls have to finish when the service stops.
        @param drainTimeout: seconds that clients have to leave when the service is drained.
        @param contexts: the TLS certificates, by listener.
        @param registry: where to list the clients, by default nowhere else.
        @param process: the process, if this service has it to itself.
        @param logObserver: what C{twistd} is to write the log with.
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
        self._listening: Deferred[list[list[None]]] | None = None
        self._drained: IDelayedCall | None = None

    def setServiceParent(self, parent: Any) -> None:  # noqa: ANN401 - an application or a service
        """
        Become a part of an application.
        """
        if self._logObserver is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._logObserver)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """
        Listen.  C{twistd} calls this before it gives up root's rights.

        @raise CannotListen: when that is not possible; the message names the flag.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        if self._process is not None:
            self._process.prepare()
        self._listening = gatherResults([self.ports.start(), self.operations.start()])

    def startService(self) -> None:
        """
        Listen, if that has not been done: C{twist} has no rights to give up.
        """
        if self._listening is None:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        self.registry.start(RegisteredNode(self))
        if self._process is not None and self._listening is not None:
            self._process.start(self, self.factory.clock)
            self._listening.addCallback(self._ready, self._process)

    def _ready(self, listening: object, process: OwnProcess) -> None:
        IReactorCore(self._reactor).callWhenRunning(process.notifier.ready)

    def reload(self) -> Sequence[str]:
        """
        Read again what comes from files: certificates, rules, the list of those who may log in.

        @return: what could not be read, and is in use as it was before.
        """
        return self._reloader.reload()

    @property
    def listeners(self) -> Sequence[str]:
        """
        Where clients connect.
        """
        return [each.flag.partition("=")[2] for each in self.ports.places]

    def certificateExpiry(self) -> Mapping[str, float]:
        """
        @return: when the certificates end, in seconds since 1970, by listener.
        """
        return {listener: each.expiry for listener, each in self._contexts.items()}

    def busy(self) -> bool:
        """
        @return: whether there are clients.
        """
        return bool(self.factory.clients)

    def connections(self) -> tuple[int, int]:
        """
        @return: how many connections there are, and how many have ended since the start.
        """
        present = len(self.factory.clients)
        return present, self.factory.journal.counters.accepted - present

    def status(self) -> str:
        """
        @return: how the server is, in a line.
        """
        count = len(self.factory.clients)
        clients = "1 client" if count == 1 else f"{count:,} clients"
        return f"draining, {clients} left" if self.draining else clients

    def drain(self, within: float | None = None) -> None:
        """
        Stop softly: stop listening, and stop the process when the clients that are there have
        left, or have had their time.

        @param within: seconds that they have, by default what the command line says.
        """
        if self.draining:
            return
        self.draining = True
        seconds = self._drainTimeout if within is None else within
        self._log.info(
            "draining: no new clients; {count} connections have up to {seconds:g} s to leave",
            count=len(self.factory.clients),
            seconds=seconds,
        )
        self._drained = self.factory.clock.callLater(seconds, self.stop)
        Deferred.fromCoroutine(self.ports.stop()).addCallback(
            lambda _: self.factory.clients.whenEmpty()
        ).addCallback(lambda _: self.stop())

    def stop(self) -> None:
        """
        Stop the process in order, as on SIGTERM.
        """
        if self.running:
            IReactorCore(self._reactor).stop()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, tell the clients, let their calls finish for as long as the grace lasts,
        close.

        @return: fires when no connection is left.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._drained is not None and self._drained.active():
            self._drained.cancel()
        if self._process is not None:
            self._process.notifier.stopping(self._grace + _MARGIN)
        await self.ports.stop()
        if self.factory.clients:
            self._log.info(
                "stopping: {count} connections have up to {grace:g} s to finish",
                count=len(self.factory.clients),
                grace=self._grace,
            )
        abort = self.factory.clock.callLater(self._grace, self.factory.abort)
        await self.factory.drain()
        if abort.active():
            abort.cancel()
        if self.gateway is not None:
            self.gateway.health.close()
        await self.registry.stop()
        await self.operations.stop()
        if self._process is not None:
            self._process.stop()


class _ListenerFactory(Factory):
    """
    One listener's way to the server's factory: the connections have its access control.
    """

    noisy = False

    def __init__(self, listener: Listener, factory: KeepAliveServerFactory) -> None:
        self._listener = listener
        self._factory = factory

    def startFactory(self) -> None:
        self._factory.doStart()  # type: ignore[no-untyped-call]

    def stopFactory(self) -> None:
        self._factory.doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> KeepAliveServerProtocol:
        protocol = self._factory.buildProtocol(addr)
        assert isinstance(protocol, KeepAliveServerProtocol)
        protocol._kaprotoConnection = partial(
            ServerConnection,
            accessControl=self._listener.accessControl,
            listener=self._listener.description,
        )
        return protocol


def makeService(options: Options, reactor: IReactorTime | None = None) -> KaServer:
    """
    @param options: the settings.
    @param reactor: what to run on, by default the reactor, in a process that does nothing else.
    @return: the service.
    """
    process, observer = None, None
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = IReactorTime(installed)
        process = OwnProcess(reactor)
        observer = installLog(options.parent, options["log-format"], process.handle)
    backend = _backend(options, reactor)
    limits = options.limits
    if not limits.maxClients:
        maxClients = clientsFor(1 if options.upstream is None else 2)
        limits = attrs.evolve(limits, maxClients=maxClients)
    factory = KeepAliveServerFactory(options.policy, backend, clock=reactor, limits=limits)
    factory.tcpKeepAlive = TCPKeepAlive(options["tcp-keepalive"], options.keepAlive)
    factory.journal.audits = True
    purpose = (
        f"mode {options.policy.name}, interval {options.keepAlive.interval:g} s, "
        f"count {options.keepAlive.count}, backend {backend}"
    )
    ports = Ports(
        [_place(each, factory, purpose, options) for each in options.listeners],
        IReactorCore(reactor).stop,
    )
    contexts = {
        each.description: each.endpoint.contextFactory
        for each in options.listeners
        if isinstance(each.endpoint, TLSServerEndpoint)
    }
    registryPassword = options.redis and options.redis[1]
    server = KaServer(
        factory,
        ports,
        Reloader([options.basePolicy, *contexts.values(), *options.checkers, registryPassword]),
        reactor,
        grace=options["grace"],
        drainTimeout=options["drain-timeout"],
        gateway=backend if isinstance(backend, Gateway) else None,
        contexts=contexts,
        registry=_registry(options, factory.clock),
        process=process,
        logObserver=observer,
    )
    places = []
    if options.admin is not None:
        places.append(adminPlace(options["admin"], options.admin, adminFactory(server)))
    if options.statusPage is not None:
        insecure = options["insecure"]
        status = StatusFactory(server)
        places.append(statusPlace(options["status"], options.statusPage, status, insecure=insecure))
    server.operations = Ports(places, server.stop)
    return server


def _registry(options: Options, clock: IReactorTime) -> IRegistry:
    node = options["node"] or defaultNode()
    if options.redis is None:
        return LocalRegistry(node)
    location, password, endpoint = options.redis
    factory = RedisFactory(location, password, clock)
    return RedisRegistry(node, str(location), endpoint, factory, clock)


def _backend(options: Options, reactor: IReactorTime) -> IBackend:
    if options.upstream is None:
        return EmbeddedHost()
    keepAlive = KeepAlive(options["upstream-interval"], options["upstream-count"])
    gateway = Gateway(
        options.upstream,
        options["upstream"],
        keepAlive,
        reactor,
        forwardIdentity=options["forward-identity"],
        authentication=options.upstreamAuthentication,
        ask=options.upstreamAsk,
    )
    gateway.limits = attrs.evolve(gateway.limits, openTimeout=options["upstream-timeout"])
    gateway.tcpKeepAlive = TCPKeepAlive(options["tcp-keepalive"], keepAlive)
    return gateway


def _place(
    listener: Listener, factory: KeepAliveServerFactory, purpose: str, options: Options
) -> Place:
    return Place(
        f"--listen={listener.description}",
        listener.endpoint,
        _ListenerFactory(listener, factory),
        f"{purpose}, read-only" if listener.accessControl.readOnly else purpose,
        exposable=options["insecure"] or listener.authenticates,
        folder=listener.folder,
        connect=partial(virshCommand, upstream=options["upstream"]),
    )
