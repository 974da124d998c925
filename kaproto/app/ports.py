"""
Starts and stops a server's listeners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.app.listening import explain, isExposed, isOpenToAll, show
from kaproto.security.endpoints import TLSServerEndpoint

__all__ = ["CannotListen", "Exposed", "Place", "Ports"]


class Exposed(Exception):
    """
    Other machines could connect to a listener without authentication.
    """


class CannotListen(SystemExit, Exception):
    """
    The server cannot start; the message names the flag.

    As a L{SystemExit} it ends C{twistd -n} with its message and without a traceback.  As an
    L{Exception} it is caught by a C{twistd} that daemonizes, which reports it to the waiting
    parent process.
    """


@attrs.frozen
class Place:
    """
    A listener to start.

    @ivar flag: its setting, for error messages, such as C{"--listen=tcp:16509"}.
    @ivar endpoint: the endpoint that listens.
    @ivar factory: the factory of its connections.
    @ivar purpose: its purpose, for the log.
    @ivar exposable: whether other machines may connect, because clients are authenticated or the
        administrator allows it.
    @ivar remedy: the advice to the administrator when other machines could connect but must not.
    @ivar folder: the folder to create before listening, if it does not exist.
    @ivar connect: returns the command that connects to a UNIX socket, by path; C{None} to log no
        command.
    """

    flag: str
    endpoint: IStreamServerEndpoint
    factory: IProtocolFactory
    purpose: str
    exposable: bool = False
    remedy: str = "have clients log in (--auth, libvirttls:)"
    folder: Path | None = None
    connect: Callable[[str], str] | None = None


class Ports:
    """
    Starts all listeners, or none.

    @ivar places: the listeners to start.
    @ivar listening: the open ports.
    @ivar announces: whether to log the addresses.
    """

    _log = Logger()

    def __init__(self, places: Sequence[Place], failed: Callable[[], object]) -> None:
        """
        @param failed: called when a listener fails after L{start} has returned; the error has been
            logged by then.
        """
        self.listening: list[IListeningPort] = []
        self.places = places
        self._failed = failed
        self._problem: str | None = None
        self._started = False
        self.announces = True

    def start(self) -> Deferred[list[None]]:
        """
        Listen.

        @return: fires when all listeners have started.
        @raise CannotListen: when one cannot start.
        """
        starting = [self._listen(each) for each in self.places]
        if self._problem is not None:
            raise CannotListen(f"kaserver: {self._problem}")
        self._started = True
        return gatherResults(starting)

    def _listen(self, place: Place) -> Deferred[None]:
        listening = maybeDeferred(self._begin, place)
        listening.addCallback(self._listens, place)
        done: Deferred[None] = Deferred()
        # After a failure this Deferred never fires: the server stops.
        listening.addCallbacks(done.callback, self._cannotListen, errbackArgs=(place,))
        return done

    def _begin(self, place: Place) -> Deferred[IListeningPort]:
        if place.folder is not None:
            place.folder.mkdir(mode=0o755, exist_ok=True)
        return place.endpoint.listen(place.factory)

    def _cannotListen(self, failure: Failure, place: Place) -> None:
        problem = f"{place.flag}: {explain(failure.value)}"
        if self._started:
            self._log.critical("kaserver: {problem}", problem=problem)
            self._failed()
        elif self._problem is None:
            self._problem = problem

    def _listens(self, port: IListeningPort, place: Place) -> None:
        self.listening.append(port)
        address = port.getHost()
        if not place.exposable and isExposed(address):
            raise Exposed(
                f"{show(address)} would accept clients from other machines without "
                "authentication; add :interface=127.0.0.1 to serve this machine only, "
                f"{place.remedy}, or pass --insecure"
            )
        if not self.announces:
            return
        self._log.info(
            "listening on {address} ({purpose})",
            address=_shown(address, place),
            purpose=place.purpose,
        )
        if place.connect is not None and isinstance(address, UNIXAddress):
            self._log.info("connect with: {command}", command=place.connect(show(address)[5:]))
            if isOpenToAll(address):
                self._log.warn(
                    "every user of this machine can connect to {address}; restrict its mode "
                    "(:mode=660:group=, or SocketMode= and SocketGroup= in a socket unit)",
                    address=show(address),
                )

    async def stop(self) -> None:
        """
        Stop listening.
        """
        ports, self.listening = self.listening, []
        for each in ports:
            await maybeDeferred(each.stopListening)


def _shown(address: IAddress, place: Place) -> str:
    if not isinstance(place.endpoint, TLSServerEndpoint):
        return show(address)
    tls = f"tls (up to {place.endpoint.contextFactory.version})"
    return show(address).replace("tcp", tls, 1)
