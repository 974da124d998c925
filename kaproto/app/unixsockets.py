"""
UNIX sockets whose mode restricts who can connect.

Twisted's reactor makes every UNIX socket writable by all users, even a socket that systemd passes,
regardless of its unit.  When Twisted stops listening, it also shuts down and removes the socket of
systemd, which still listens on it.  Endpoints made with a L{UNIXSocketReactor} avoid all of this.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from twisted.internet import tcp
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.unix import Port, Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, alsoProvides, directlyProvides, providedBy

__all__ = [
    "MODE",
    "IUNIXSockets",
    "UNIXPort",
    "UNIXSocketReactor",
    "fileIdentity",
    "listeningSocket",
    "removeSocket",
]

MODE: Final = 0o660
"""
The default mode of a socket: its owner and its group can connect.
"""

_log = Logger()


class IUNIXSockets(Interface):
    """
    A reactor with its own way to listen on UNIX sockets, new ones and those passed by systemd.
    """

    def listenUNIXSocket(
        address: str, factory: IProtocolFactory, backlog: int, mode: int, group: int | None
    ) -> IListeningPort:
        """
        Listen on a socket with a mode and a group.
        """

    def adoptStreamPort(
        fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        """
        Listen on a socket that is listening already.
        """


class UNIXSocketReactor:
    """
    Wraps a reactor, and listens on UNIX sockets without the problems described above.
    """

    def __init__(self, reactor: Any, group: int | None = None) -> None:  # noqa: ANN401
        """
        @param reactor: the reactor, which does everything else.
        @param group: the id of the group of new sockets, by default this process's.
        """
        self._reactor = reactor
        self._group = group
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> object:
        """
        @return: the attribute of the wrapped reactor.
        """
        return getattr(self._reactor, name)

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = MODE,
        wantPID: bool = False,  # noqa: FBT002 - the reactor's signature
    ) -> object:
        """
        Listen on a new socket.  First remove a stale socket of the same path.

        @param wantPID: ignored.  Twisted's lock file contains a process id.  After a kill, another
            process may have that id, in a container even the new server itself, and the lock is
            never released.  Instead, a connection attempt shows whether a socket is stale.
        @raise CannotListenError: when listening fails.
        """
        if IUNIXSockets.providedBy(self._reactor):
            return self._reactor.listenUNIXSocket(address, factory, backlog, mode, self._group)
        try:
            listening = listeningSocket(Path(address), backlog, mode, self._group)
        except OSError as problem:
            raise CannotListenError(None, address, problem) from problem
        return self._start(UNIXPort(listening, factory, self._reactor, removes=True))

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> object:
        """
        Listen on a socket that is listening already, and leave its mode and its file unchanged.
        """
        if addressFamily != socket.AF_UNIX or IUNIXSockets.providedBy(self._reactor):
            return self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
        listening = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        return self._start(UNIXPort(listening, factory, self._reactor, removes=False))

    def _start(self, port: UNIXPort) -> UNIXPort:
        port.startListening()
        return port


class _Connection(Server):
    """
    A connection that closes the file descriptors that a client passes, unless its protocol accepts
    them.  Twisted closes them, too, but logs each.
    """

    def __init__(self, skt: socket.socket, protocol: IProtocol, *others: object) -> None:
        if not IFileDescriptorReceiver.providedBy(protocol):
            protocol.fileDescriptorReceived = os.close  # type: ignore[attr-defined]
            alsoProvides(protocol, IFileDescriptorReceiver)
        super().__init__(skt, protocol, *others)  # type: ignore[no-untyped-call]


class UNIXPort(Port):
    """
    Accepts connections on a UNIX socket that is listening already.
    """

    transport = _Connection

    def __init__(
        self, listening: socket.socket, factory: IProtocolFactory, reactor: object, *, removes: bool
    ) -> None:
        """
        @param removes: whether this process owns the socket, and shuts it down and removes it
            when it stops listening.
        """
        name = listening.getsockname()
        super().__init__(name, factory, reactor=reactor)
        self._listening = listening
        self._path = Path(os.fsdecode(name))
        self._identity = fileIdentity(self._path) if removes else None
        # A shutdown affects all processes that share the socket.
        self._shouldShutdown = removes

    def startListening(self) -> None:
        """
        Accept connections from now on.
        """
        # The reserved file lets us accept and close a connection when no file descriptors are left.
        tcp._reservedFD.reserve()
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self.socket = self._listening
        self.fileno = self._listening.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """
        Close the socket, and remove its file if this process owns it.
        """
        removeSocket(self._path, self._identity)
        tcp.Port.connectionLost(self, reason)


def listeningSocket(path: Path, backlog: int, mode: int, group: int | None = None) -> socket.socket:
    """
    Make a listening UNIX socket.  It has its mode and group before it listens, so they apply to
    every connection.

    @param group: the id of its group, by default this process's.
    @raise OSError: when it cannot be made.
    """
    if "\0" in str(path):
        raise OSError(
            errno.EINVAL, "a socket without a file, whose name begins with NUL, has no mode"
        )
    listening = socket.socket(socket.AF_UNIX)
    identity = None
    try:
        _bind(listening, path)
        identity = fileIdentity(path)
        if group is not None:
            os.chown(path, -1, group)
        path.chmod(mode)
        listening.setblocking(False)
        listening.listen(backlog)
        # Another server may have replaced the socket as stale just before it listened.
        if fileIdentity(path) == identity:
            return listening
    except BaseException:
        listening.close()
        removeSocket(path, identity)
        raise
    listening.close()
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _bind(skt: socket.socket, path: Path) -> None:
    try:
        skt.bind(str(path))
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE or not _isAbandoned(path):
            raise
        path.unlink(missing_ok=True)
        skt.bind(str(path))
        _log.info("removed {path}, left by a server that was killed", path=str(path))


def _isAbandoned(path: Path) -> bool:
    """
    @return: whether the socket is stale: no process listens on it.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except FileNotFoundError:
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        # A socket whose backlog is full does not refuse a connection.
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def fileIdentity(path: Path) -> tuple[int, int] | None:
    """
    @return: the device and inode of a file, which differ from those of a later file at its path.
    """
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def removeSocket(path: Path, identity: tuple[int, int] | None) -> None:
    """
    Remove a socket's file, unless another file has replaced it.

    @param identity: the socket's L{fileIdentity}.
    """
    # A process that has dropped root privileges may not remove the file; the next start removes it.
    with suppress(OSError):
        if identity is not None and fileIdentity(path) == identity:
            path.unlink()
