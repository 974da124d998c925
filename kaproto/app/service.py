"""
The running server: it listens, and it stops in order.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Final, Protocol, cast

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorCore,
    IReactorFromThreads,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.app.collector import GCTuning
from kaproto.app.listening import explain, isExposed, show
from kaproto.app.options import Options
from kaproto.app.stalesocket import listenReplacingStale
from kaproto.app.turns import limitEventsPerTurn
from kaproto.backends.gateway import Gateway
from kaproto.backends.host import EmbeddedHost
from kaproto.interfaces import IBackend
from kaproto.keepalive.liveness import KeepAlive
from kaproto.security.endpoints import TLSServerEndpoint, transportOf
from kaproto.server import KeepAliveServerFactory

__all__ = ["CannotListen", "Exposed", "KaServer", "Options", "Reloadable", "makeService"]


class Exposed(Exception):
    """
    Other machines could connect without authentication.
    """


class Reloadable(Protocol):
    """
    Something that was read from a file.
    """

    def reload(self) -> None:
        """
        Read it again.

        @raise ValueError: when it cannot be used; what was there stays in use.
        """


class CannotListen(SystemExit, Exception):
    """
    The server cannot start; the message names the flag.

    As a L{SystemExit} it ends C{twistd -n} with its message and no traceback; as an L{Exception}
    it is what a C{twistd} that becomes a daemon tells the process that waits for it.
    """


class KaServer(Service):
    """
    Listens on some endpoints with one factory; stops listening, lets calls finish, closes.

    @ivar factory: the factory.
    @ivar ports: what is listening.
    """

    _log = Logger()

    def __init__(
        self,
        factory: KeepAliveServerFactory,
        endpoints: Sequence[tuple[str, IStreamServerEndpoint]],
        description: str,
        grace: float,
        *,
        insecure: bool,
        reactor: IReactorTime,
        reloadables: Sequence[Reloadable] = (),
        alone: bool = False,
    ) -> None:
        """
        @param endpoints: with the strings that describe them.
        @param description: what the log is to say of the server.
        @param grace: seconds that calls have to finish when the service stops.
        @param insecure: whether plain TCP may be served to other machines.
        @param reloadables: what has files to read again when the process gets SIGHUP.
        @param alone: whether this is all that the process does, so that its garbage collector can
            be set for it: see L{GCTuning}.
        """
        self.factory = factory
        self.ports: list[IListeningPort] = []
        self._endpoints = endpoints
        self._description = description
        self._grace = grace
        self._insecure = insecure
        self._reactor = reactor
        self._reloadables = reloadables
        self._problem: str | None = None
        self._started = False
        self._collector = GCTuning(factory.clock, lambda: bool(factory.clients))
        self._alone = alone

    def privilegedStartService(self) -> None:
        """
        Listen, and from now on read files again on SIGHUP, if there are any.

        @raise CannotListen: when that cannot be done, with a message that names the flag.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        if self._reloadables:
            signal.signal(signal.SIGHUP, self._hangUp)
        limitEventsPerTurn(self._reactor)
        _raiseFileLimit()
        for description, endpoint in self._endpoints:
            listening = listenReplacingStale(endpoint, self.factory)
            listening.addCallback(self._listening, description, endpoint)
            listening.addErrback(self._cannotListen, description)
        if self._problem is not None:
            raise CannotListen(self._problem)
        self._started = True

    def _cannotListen(self, failure: Failure, description: str) -> None:
        problem = f"kaserver: --listen={description}: {explain(failure.value)}"
        if self._started:
            self._log.critical("{problem}", problem=problem)
            IReactorCore(self._reactor).stop()
        elif self._problem is None:
            self._problem = problem

    def _listening(
        self, port: IListeningPort, description: str, endpoint: IStreamServerEndpoint
    ) -> None:
        self.ports.append(port)
        address = port.getHost()
        tls = endpoint.contextFactory if isinstance(endpoint, TLSServerEndpoint) else None
        knows = self.factory.accessControl.portal is not None or (tls is not None and tls.verify)
        transport = transportOf(description)
        if not self._insecure and not knows and isExposed(address):
            kind = "plain TCP" if transport == "tcp" else "TLS without client certificates"
            raise Exposed(
                f"{kind} without authentication lets in whoever can reach {show(address)}; add "
                ":interface=127.0.0.1 to serve this machine only, or pass --insecure"
            )
        shown = show(address)
        if transport == "tls":
            shown = shown.replace("tcp", "tls" if tls is None else f"tls (up to {tls.version})", 1)
        self._log.info(
            "listening on {address} ({description})",
            address=shown,
            description=self._description,
        )

    def startService(self) -> None:
        """
        From now on the signal after the one that stops the process ends it at once.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._alone:
            self._collector.start()
        IReactorCore(self._reactor).addSystemEventTrigger("before", "shutdown", _dieOfNextSignal)

    def _hangUp(self, number: int, frame: FrameType | None) -> None:
        cast(IReactorFromThreads, self._reactor).callFromThread(self.reload)

    def reload(self) -> None:
        """
        Read again what comes from files: certificates, rules, the list of those who may log in.
        What cannot be used does not replace what was read before.
        """
        for each in self._reloadables:
            try:
                each.reload()
            except ValueError as error:
                self._log.error("not reloaded, and as it was before: {error}", error=error)
            else:
                self._log.info("reloaded {what}", what=type(each).__name__)

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, tell the clients, let their calls finish for as long as the grace lasts,
        close.

        @return: fires when no connection is left.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._collector.running:
            self._collector.stop()
        if self._reloadables:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for port in self.ports:
            await maybeDeferred(port.stopListening)
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


def makeService(options: Options, reactor: IReactorTime | None = None) -> KaServer:
    """
    @param options: the command line, parsed.
    @param reactor: what to run on, by default the reactor, in a process that does nothing else.
    @return: the service.
    """
    alone = reactor is None
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = IReactorTime(installed)
    backend: IBackend
    if options.upstream is None:
        backend = EmbeddedHost()
    else:
        upstreamKeepAlive = KeepAlive(options["upstream-interval"], options["upstream-count"])
        backend = Gateway(
            options.upstream,
            options["upstream"],
            upstreamKeepAlive,
            reactor,
            forwardIdentity=bool(options["forward-identity"]),
            login=options.upstreamLogin,
            ask=options.upstreamAsk,
        )
    limits = options.limits
    if not limits.maxClients:
        maxClients = _clientsFor(2 if isinstance(backend, Gateway) else 1)
        limits = attrs.evolve(limits, maxClients=maxClients)
    factory = KeepAliveServerFactory(
        options.policy,
        backend,
        clock=reactor,
        accessControl=options.accessControl,
        limits=limits,
    )
    description = (
        f"mode {options.policy.name}, interval {options.keepAlive.interval:g} s, "
        f"count {options.keepAlive.count}, backend {backend}"
    )
    return KaServer(
        factory,
        options.endpoints,
        description,
        options["grace"],
        insecure=bool(options["insecure"]),
        reactor=reactor,
        reloadables=_reloadables(options),
        alone=alone,
    )


def _reloadables(options: Options) -> list[Reloadable]:
    """
    @return: all that the command line has named that has files.
    """
    endpoints = [endpoint for _description, endpoint in options.endpoints]
    candidates = [
        options.policy,
        *(each.contextFactory for each in endpoints if isinstance(each, TLSServerEndpoint)),
        *options.get("credCheckers", []),
    ]
    return [each for each in candidates if hasattr(each, "reload")]


def _clientsFor(files: int) -> int:
    """
    @param files: how many open files a client needs.
    @return: how many clients there can be; 0 for any number.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return 0
    return max(1, (hard - _OTHER_FILES) // files)


_OTHER_FILES: Final = 64
"""
Open files that are not clients', generously counted.
"""


def _raiseFileLimit() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _dieOfNextSignal() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
