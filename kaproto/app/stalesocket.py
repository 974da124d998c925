"""
What a server that was killed leaves behind: the file of its UNIX socket.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger

__all__ = ["listenReplacingStale"]

_log = Logger()


def listenReplacingStale(
    endpoint: IStreamServerEndpoint, factory: IProtocolFactory
) -> Deferred[IListeningPort]:
    """
    Listen, and first remove a UNIX socket that is in the way and that nobody listens on.

    Twisted's own way is a lock beside the socket that has the number of a process in it. After a
    kill another process may have that number, in a container it mostly is the new server itself,
    and then the lock is never released. Whether somebody listens is better asked of the socket.

    @return: what the endpoint's C{listen} returns.
    """
    return Deferred.fromCoroutine(_listen(endpoint, factory))


async def _listen(endpoint: IStreamServerEndpoint, factory: IProtocolFactory) -> IListeningPort:
    try:
        return await endpoint.listen(factory)
    except CannotListenError as problem:
        path = _pathInUse(problem)
        if path is None:
            raise
        try:
            with _alone(path.parent):
                _remove(path)
                return await endpoint.listen(factory)
        except OSError:
            raise problem from None


def _remove(path: Path) -> None:
    """
    @raise OSError: when it cannot be removed, or should not be.
    """
    if not _isAbandoned(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    path.unlink()
    _log.info("removed {path}, which a server that was killed had left", path=str(path))


def _pathInUse(problem: CannotListenError) -> Path | None:
    """
    @return: the path of the UNIX socket that is there already, if that is the problem.
    """
    if not isinstance(problem.port, bytes):
        return None
    if getattr(problem.socketError, "errno", None) != errno.EADDRINUSE:
        return None
    if problem.port.startswith(b"\0"):
        # That is no file, and goes away with who listens there.
        return None
    return Path(os.fsdecode(problem.port))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """
    Keep out others that are about to do the same with a socket in this folder, one of which could
    remove what another has just made.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _isAbandoned(path: Path) -> bool:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        # Somebody may listen and have no room for one more at present.
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED
