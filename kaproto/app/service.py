"""
The service that C{twistd kaserver} runs, made from its settings.
"""

from __future__ import annotations

from functools import partial

import attrs
from twisted.internet.interfaces import IAddress, IReactorCore, IReactorTime
from twisted.internet.protocol import Factory

from kaproto.admin.factory import adminFactory
from kaproto.app.kaserver import KaServer
from kaproto.app.listeners import Listener, virshCommand
from kaproto.app.logs import installLog
from kaproto.app.operations import adminPlace, agentPlace, statusPlace
from kaproto.app.options import Options
from kaproto.app.ports import CannotListen, Place, Ports
from kaproto.app.process import OwnProcess, clientsFor
from kaproto.app.registered import defaultNode
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
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.status.agent import AgentFactory
from kaproto.status.site import StatusFactory

__all__ = ["CannotListen", "KaServer", "Options", "makeService"]


class _ListenerFactory(Factory):
    """
    Builds one listener's connections with the server's factory and the listener's access control.
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
    @param reactor: the reactor to run on; by default the global one, in a process that runs
        nothing else.
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
        maxClients = clientsFor(1 if options.upstream is None else 2) * (options.workers or 1)
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
    kind: type[KaServer] = KaServer
    if options.workers:
        from kaproto.workers.parent import Parent

        kind = partial(Parent, options)  # type: ignore[assignment]
    server = kind(
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
        places.append(
            adminPlace(
                options["admin"], options.admin, adminFactory(server, server.adminPrograms())
            )
        )
    if options.statusPage is not None:
        insecure = options["insecure"]
        status = StatusFactory(server)
        places.append(statusPlace(options["status"], options.statusPage, status, insecure=insecure))
    if options.agent is not None:
        places.append(agentPlace(options["agent"], options.agent, AgentFactory(server)))
    server.operations = Ports(places, server.stop)
    return server


def _registry(options: Options, clock: IReactorTime) -> IRegistry:
    node = options["node"] or defaultNode()
    if options.redis is None:
        return LocalRegistry(node)
    location, password, endpoint = options.redis
    factory = RedisFactory(location, password, clock)
    orders = options["registry-orders"]
    return RedisRegistry(node, str(location), endpoint, factory, clock, orders)


def _backend(options: Options, reactor: IReactorTime) -> IBackend:
    if options.upstream is None:
        return EmbeddedHost()
    keepAlive = KeepAlive(options["upstream-interval"], options["upstream-count"])
    gateway = Gateway(
        options.upstream.endpoint,
        options["upstream"],
        keepAlive,
        reactor,
        forwardIdentity=options["forward-identity"],
        authentication=options.upstream.authentication,
        ask=options.upstream.asked,
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
