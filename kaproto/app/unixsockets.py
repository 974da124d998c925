"""
UNIX sockets that only those can use whom their mode lets.

Twisted's own reactor makes a UNIX socket writable by everybody, as it does one that systemd hands
over, whatever its unit says; when it stops, it shuts down and removes the latter too, which systemd
goes on listening on.  Endpoints that are given a L{UNIXSocketReactor} listen as they always do,
and none of that happens.
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
The mode of a socket unless told otherwise: for its owner and its group.
"""

_log = Logger()


class IUNIXSockets(Interface):
    """
    A reactor with its own way to listen on UNIX sockets, and on those that systemd passes.
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
        Listen on a socket that listens already.
        """


class UNIXSocketReactor:
    """
    A reactor, except that it listens on UNIX sockets as described above.
    """

    def __init__(self, reactor: Any, group: int | None = None) -> None:  # noqa: ANN401
        """
        @param reactor: does everything else.
        @param group: the id of the group that new sockets belong to, by default this process's.
        """
        self._reactor = reactor
        self._group = group
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> object:
        """
        @return: the reactor's own.
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
        Listen on a new socket, and first remove one in its place that nobody listens on.

        @param wantPID: is ignored.  Twisted's lock beside the socket has the number of a process
            in it, which after a kill may be another's, in a container even the new server's own;
            then the lock is never released.  Whether somebody listens is asked of the socket.
        @raise CannotListenError: when that is not possible.
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
        Listen on a socket that listens already, and leave it as it is.
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
    A connection whose protocol need not know of file descriptors.  Twisted closes those that
    nobody takes too, but writes a line into the log for each.
    """

    def __init__(self, skt: socket.socket, protocol: IProtocol, *others: object) -> None:
        if not IFileDescriptorReceiver.providedBy(protocol):
            protocol.fileDescriptorReceived = os.close  # type: ignore[attr-defined]
            alsoProvides(protocol, IFileDescriptorReceiver)
        super().__init__(skt, protocol, *others)  # type: ignore[no-untyped-call]


class UNIXPort(Port):
    """
    Accepts connections on a UNIX socket that listens already.
    """

    transport = _Connection

    def __init__(
        self, listening: socket.socket, factory: IProtocolFactory, reactor: object, *, removes: bool
    ) -> None:
        """
        @param removes: whether the socket is this process's own, to be shut down and removed when
            it stops listening.
        """
        name = listening.getsockname()
        super().__init__(name, factory, reactor=reactor)
        self._listening = listening
        self._path = Path(os.fsdecode(name))
        self._identity = fileIdentity(self._path) if removes else None
        # Shutting it down would do so for all who have the socket.
        self._shouldShutdown = removes

    def startListening(self) -> None:
        """
        Accept connections from now on.
        """
        # So that a client can be turned away when this process has no files left.
        tcp._reservedFD.reserve()
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self.socket = self._listening
        self.fileno = self._listening.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """
        Close the socket, and remove its file if it is this process's own.
        """
        removeSocket(self._path, self._identity)
        tcp.Port.connectionLost(self, reason)


def listeningSocket(path: Path, backlog: int, mode: int, group: int | None = None) -> socket.socket:
    """
    Make a UNIX socket.  Nobody can connect before it has its mode and group, because it listens
    only then.

    @param group: the id of the group it belongs to, by default this process's.
    @raise OSError: when that is not possible.
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
        # Another server may have found it abandoned just before it listened.
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
    @return: whether there is a socket that nobody listens on.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except FileNotFoundError:
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        # One with no room for another connection at present does not refuse it.
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def fileIdentity(path: Path) -> tuple[int, int] | None:
    """
    @return: what tells a file from another that takes its place.
    """
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def removeSocket(path: Path, identity: tuple[int, int] | None) -> None:
    """
    Remove a socket's file, unless another has taken its place.

    @param identity: what L{fileIdentity} said of it.
    """
    # Whoever has given up root's rights since may not remove it; the next start does.
    with suppress(OSError):
        if identity is not None and fileIdentity(path) == identity:
            path.unlink()
