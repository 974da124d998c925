"""
Reads connections without the reactor, whose dispatch costs more than handling a few bytes.
"""

from __future__ import annotations

import select
from contextlib import suppress
from typing import ClassVar, Final, Generic, TypeVar

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["DirectReader"]

_NONE: Final = -1

_Reading = TypeVar("_Reading")


@implementer(IReadDescriptor)
class DirectReader(Generic[_Reading]):
    """
    Polls connections with a separate C{epoll}.  The reactor polls only the file descriptor of that
    C{epoll}.  Subclasses override L{doRead} and L{connectionLost}.

    This works for Twisted's own TCP and UNIX connections without TLS, and uses only their public
    methods.

    @cvar name: its name in log lines.
    """

    name: ClassVar[str]
    _log = Logger()

    def __init__(self, reactor: IReactorFDSet) -> None:
        """
        @param reactor: the reactor that polls this reader.
        """
        self._reactor = reactor
        self._poller: select.epoll | None = None
        self._reading: dict[int, _Reading] = {}

    @staticmethod
    def worksWith(clock: object) -> bool:
        """
        @param clock: a reactor or a L{twisted.internet.task.Clock}.
        @return: whether the system has C{epoll}, and C{clock} is a reactor that can poll it.
        """
        return hasattr(select, "epoll") and IReactorFDSet.providedBy(clock)

    def __len__(self) -> int:
        return len(self._reading)

    def _add(self, transport: object, reading: _Reading) -> int:
        """
        Read a connection from now on, instead of the reactor.

        @param reading: the data that L{doRead} needs for this connection.
        @return: its file descriptor; negative if it is not one of Twisted's plain connections, or
            C{epoll} has reached its limit.
        """
        if (
            not isinstance(transport, Connection)
            or transport.TLS
            or not transport.connected
            or transport.disconnecting
        ):
            return _NONE
        descriptor = transport.fileno()
        try:
            if self._poller is None:
                self._poller = select.epoll()
                self._reactor.addReader(self)
            self._poller.register(descriptor, select.EPOLLIN)
        except OSError as error:
            self._log.debug("no epoll for {name}: {error}", name=self.name, error=error)
            self._rest()
            return _NONE
        transport.pauseProducing()
        self._reading[descriptor] = reading
        return descriptor

    def _remove(self, descriptor: int) -> None:
        """
        Stop reading a connection, if this reader reads it.  The reactor reads it again once
        C{resumeProducing} is called on its transport.
        """
        if self._reading.pop(descriptor, None) is None or self._poller is None:
            return
        # The kernel has already removed a closed socket from the epoll.
        with suppress(OSError):
            self._poller.unregister(descriptor)
        self._rest()

    def _rest(self) -> None:
        if self._poller is not None and not self._reading:
            self._reactor.removeReader(self)
            self._poller.close()
            self._poller = None

    def fileno(self) -> int:
        """
        @return: the file descriptor that the reactor polls.
        """
        return _NONE if self._poller is None else self._poller.fileno()

    def logPrefix(self) -> str:
        """
        @return: this descriptor's name in the log.
        """
        return self.name

    def doRead(self) -> None:
        """
        Read from all connections that are readable.
        """
        raise NotImplementedError

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor shuts down.  It does not know the connections, so notify them.
        """
        raise NotImplementedError
