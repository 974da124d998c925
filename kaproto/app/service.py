"""
The running server: it listens, and it stops in order.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Sequence
from ipaddress import ip_address

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReactorCore,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.app.clock import useMonotonicClock
from kaproto.app.options import Options
from kaproto.backends.gateway import Gateway
from kaproto.backends.host import EmbeddedHost
from kaproto.interfaces import IBackend
from kaproto.liveness import KeepAlive
from kaproto.server import KeepAliveServerFactory

__all__ = ["CannotListen", "Exposed", "KaServer", "Options", "makeService"]


class Exposed(Exception):
    """
    Other machines could connect without authentication.
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
    ) -> None:
        """
        @param endpoints: with the strings that describe them.
        @param description: what the log is to say of the server.
        @param grace: seconds that calls have to finish when the service stops.
        @param insecure: whether plain TCP may be served to other machines.
        """
        self.factory = factory
        self.ports: list[IListeningPort] = []
        self._endpoints = endpoints
        self._description = description
        self._grace = grace
        self._insecure = insecure
        self._reactor = reactor

    def privilegedStartService(self) -> None:
        """
        Listen.

        @raise CannotListen: when that cannot be done, with a message that names the flag.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        useMonotonicClock(self._reactor)
        _raiseFileLimit()
        for description, endpoint in self._endpoints:
            problems: list[Failure] = []
            endpoint.listen(self.factory).addCallback(self._listening).addErrback(problems.append)
            for problem in problems:
                raise CannotListen(
                    f"kaserver: --listen={description}: {_explain(problem.value)}"
                ) from problem.value

    def _listening(self, port: IListeningPort) -> None:
        self.ports.append(port)
        address = port.getHost()
        if not self._insecure and _isExposed(address):
            raise Exposed(
                f"plain TCP without authentication lets in whoever can reach {_show(address)}; add "
                ":interface=127.0.0.1 to serve this machine only, or pass --insecure"
            )
        self._log.info(
            "listening on {address} ({description})",
            address=_show(address),
            description=self._description,
        )

    def startService(self) -> None:
        """
        From now on the signal after the one that stops the process ends it at once.
        """
        super().startService()  # type: ignore[no-untyped-call]
        IReactorCore(self._reactor).addSystemEventTrigger("before", "shutdown", _dieOfNextSignal)

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, tell the clients, let their calls finish for as long as the grace lasts,
        close.

        @return: fires when no connection is left.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        if self.factory.connections:
            self._log.info(
                "stopping: {count} connections have up to {grace:g} s to finish",
                count=len(self.factory.connections),
                grace=self._grace,
            )
        abort = self._reactor.callLater(self._grace, self.factory.abort)
        await self.factory.drain()
        if abort.active():
            abort.cancel()


def makeService(options: Options, reactor: IReactorTime | None = None) -> KaServer:
    """
    @param options: the command line, parsed.
    @param reactor: what to run on, by default the reactor.
    @return: the service.
    """
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
        )
    factory = KeepAliveServerFactory(options.policy, backend, clock=reactor)
    factory.openTimeout = options["open-timeout"]
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
    )


def _explain(problem: BaseException | None) -> str:
    if isinstance(problem, CannotListenError):
        reason = getattr(problem.socketError, "strerror", None) or problem.socketError
        return f"{reason}; choose another port or stop what is listening there"
    return str(problem)


def _isExposed(address: IAddress) -> bool:
    return (
        isinstance(address, IPv4Address | IPv6Address) and not ip_address(address.host).is_loopback
    )


def _show(address: IAddress) -> str:
    match address:
        case IPv4Address(host=host, port=port):
            return f"tcp {host}:{port}"
        case IPv6Address(host=host, port=port):
            return f"tcp [{host}]:{port}"
        case UNIXAddress(name=name):
            return f"unix {name.decode() if isinstance(name, bytes) else name}"
        case _:
            return str(address)


def _raiseFileLimit() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _dieOfNextSignal() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
