"""
Reads connections past the reactor, which spends more on bringing a few bytes to a protocol than
many a protocol on taking them in.
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
    Waits for connections with an C{epoll} of its own, of which the reactor sees one file
    descriptor.  Subclasses override L{doRead} and L{connectionLost}.

    This is for plain connections of Twisted's own, TCP or UNIX.  It uses their public methods only.

    @cvar name: what log lines call it.
    """

    name: ClassVar[str]
    _log = Logger()

    def __init__(self, reactor: IReactorFDSet) -> None:
        """
        @param reactor: which reactor to wait in.
        """
        self._reactor = reactor
        self._poller: select.epoll | None = None
        self._reading: dict[int, _Reading] = {}

    @staticmethod
    def worksWith(clock: object) -> bool:
        """
        @param clock: a reactor or a L{twisted.internet.task.Clock}.
        @return: whether there is C{epoll}, and a reactor to wait in.
        """
        return hasattr(select, "epoll") and IReactorFDSet.providedBy(clock)

    def __len__(self) -> int:
        return len(self._reading)

    def _add(self, transport: object, reading: _Reading) -> int:
        """
        Wait for a connection, and have its transport pause.

        @param reading: what L{doRead} needs to know of it.
        @return: its file descriptor; negative if its transport is not such that this can be done,
            or the system has no room for it.
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
        Wait no more for a connection, if that was waited for.  It is not read from at all until
        C{resumeProducing} is called on its transport.
        """
        if self._reading.pop(descriptor, None) is None or self._poller is None:
            return
        # A socket that was closed has left the epoll already.
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
        @return: what the reactor waits for.
        """
        return _NONE if self._poller is None else self._poller.fileno()

    def logPrefix(self) -> str:
        """
        @return: this descriptor's name in the log.
        """
        return self.name

    def doRead(self) -> None:
        """
        Read from connections that can be read.
        """
        raise NotImplementedError

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor shuts down: tell the connections, which it does not know of.
        """
        raise NotImplementedError
