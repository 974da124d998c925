"""
Listening sockets that a parent binds and its workers accept on.

For each TCP listener there is one socket per worker, all bound to the same address with
C{SO_REUSEPORT}; the kernel distributes new connections evenly among them.  The parent keeps all of
them open.  So a dead worker's replacement, which gets the same socket, accepts the connections that
wait there.  A UNIX socket, or one that systemd passes, cannot be bound twice: all workers accept on
the same one.

Endpoints listen through a reactor.  The parent's endpoints get a reactor that only binds sockets.
A worker's endpoints get a reactor that uses the sockets from the parent.  So all endpoints work
unchanged, including those with TLS or PROXY headers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from zope.interface import directlyProvides, implementer, providedBy

from kaproto.app.unixsockets import (
    IUNIXSockets,
    UNIXPort,
    fileIdentity,
    listeningSocket,
    removeSocket,
)

__all__ = ["BindingReactor", "BoundPort", "HandedReactor"]


def _tcpName(interface: str, port: int) -> str:
    return f"tcp {port} {interface}"


def _unixName(path: str) -> str:
    return f"unix {path}"


@implementer(IListeningPort)
class BoundPort:
    """
    A bound port on which other processes accept.

    @ivar name: the name of the address, by which workers find its sockets.
    @ivar sockets: the sockets, one for each worker, or one for all.
    """

    def __init__(
        self, name: str, sockets: Sequence[socket.socket], close: Callable[[], object]
    ) -> None:
        """
        @param close: called after the sockets have been closed.
        """
        self.name = name
        self.sockets = sockets
        self._close = close

    def startListening(self) -> None:
        """
        Do nothing: the sockets listen already.
        """

    def stopListening(self) -> None:
        """
        Close the sockets.  Connections waiting on them are reset unless a worker has them open too.
        """
        for each in self.sockets:
            each.close()
        self._close()

    def getHost(self) -> IAddress:
        """
        @return: the address that clients connect to.
        """
        name = self.sockets[0].getsockname()
        if isinstance(name, tuple):
            kind = IPv4Address if self.sockets[0].family == socket.AF_INET else IPv6Address
            return kind("TCP", *name[:2])
        return UNIXAddress(name)

    def socketFor(self, worker: int) -> socket.socket:
        """
        @param worker: the worker's number, from 0.
        """
        return self.sockets[worker % len(self.sockets)]


class BindingReactor:
    """
    The parent's reactor for endpoints, which binds sockets but does not accept.

    @ivar ports: the bound ports.
    @ivar passed: the sockets that systemd passed to this process, by number.
    @ivar passedNames: the value of C{LISTEN_FDNAMES}.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - the reactor, of several interfaces
        workers: int,
        environment: Mapping[str, str],
    ) -> None:
        """
        @param workers: the number of workers.
        @param environment: the environment variables, which list systemd's sockets.
        """
        self._reactor = reactor
        self._workers = workers
        self.ports: list[BoundPort] = []
        self.passed: dict[int, BoundPort] = {}
        self.passedNames = environment.get("LISTEN_FDNAMES", "")
        directlyProvides(self, IUNIXSockets, providedBy(reactor))

    def __getattr__(self, name: str) -> object:
        """
        @return: the reactor's own.
        """
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> BoundPort:
        """
        Bind one socket for each worker.

        @raise CannotListenError: when the address cannot be bound.
        """
        try:
            sockets = _reusePort(self._workers, interface, port, backlog)
        except OSError as problem:
            raise CannotListenError(interface, port, problem) from problem
        return self._bound(BoundPort(_tcpName(interface, port), sockets, _nothing))

    def listenUNIXSocket(
        self, address: str, factory: IProtocolFactory, backlog: int, mode: int, group: int | None
    ) -> BoundPort:
        """
        Bind one socket for all workers.

        @raise CannotListenError: when the path cannot be bound.
        """
        path = Path(address)
        try:
            made = listeningSocket(path, backlog, mode, group)
        except OSError as problem:
            raise CannotListenError(None, address, problem) from problem
        identity = fileIdentity(path)
        return self._bound(
            BoundPort(_unixName(address), [made], lambda: removeSocket(path, identity))
        )

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> BoundPort:
        """
        Keep a socket that systemd passes.
        """
        kept = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        port = BoundPort("", [kept], _nothing)
        self.passed[fileDescriptor] = port
        return port

    def _bound(self, port: BoundPort) -> BoundPort:
        self.ports.append(port)
        return port


def _nothing() -> None:
    """
    Do nothing.
    """


def _reusePort(count: int, interface: str, port: int, backlog: int) -> list[socket.socket]:
    """
    @return: sockets that listen on one address.
    @raise OSError: when the address is in use or invalid.
    """
    info = socket.getaddrinfo(
        interface or "0.0.0.0",  # noqa: S104 - as Twisted: no interface is all of them
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE,
    )
    family, *_, address = info[0]
    sockets: list[socket.socket] = []
    try:
        # First bind without SO_REUSEPORT, which fails if another kaserver has this port.  With
        # SO_REUSEPORT the two would share it.
        first = _tcpSocket(family)
        sockets.append(first)
        first.bind(address)
        address = first.getsockname()
        sockets.pop().close()
        for _ in range(count):
            each = _tcpSocket(family)
            sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(address)
        for each in sockets:
            each.listen(backlog)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _tcpSocket(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


class HandedReactor:
    """
    A worker's reactor for endpoints, which accepts on sockets that the parent has bound.
    """

    def __init__(self, reactor: Any, handed: Mapping[str, Sequence[int]]) -> None:  # noqa: ANN401
        """
        @param handed: the file descriptors of the sockets, by the name of their address.
        """
        self._reactor = reactor
        self._handed = {name: list(numbers) for name, numbers in handed.items()}
        directlyProvides(self, IUNIXSockets, providedBy(reactor))

    def __getattr__(self, name: str) -> object:
        """
        @return: the reactor's own.
        """
        return getattr(self._reactor, name)

    def _take(self, name: str) -> socket.socket:
        # Several listeners with one name (tcp:0) take its sockets in the order of their binding.
        return socket.socket(fileno=self._handed[name].pop(0))

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> object:
        """
        Accept on this worker's own socket.
        """
        with self._take(_tcpName(interface, port)) as taken:
            return self._reactor.adoptStreamPort(taken.fileno(), taken.family, factory)

    def listenUNIXSocket(
        self, address: str, factory: IProtocolFactory, backlog: int, mode: int, group: int | None
    ) -> UNIXPort:
        """
        Accept on a socket that all workers share.
        """
        return self._listen(self._take(_unixName(address)), factory)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> object:
        """
        Accept on a socket that systemd has passed to the parent.
        """
        if addressFamily != socket.AF_UNIX:
            return self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
        return self._listen(
            socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM), factory
        )

    def _listen(self, listening: socket.socket, factory: IProtocolFactory) -> UNIXPort:
        port = UNIXPort(listening, factory, self._reactor, removes=False)
        port.startListening()
        return port
