"""
Who is connected to a server, and who of them is not open yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from kaproto.keepalive.pacemaker import MAX_CLOSES_PER_TURN
from kaproto.limits import Limits
from kaproto.security.admission import PendingClients

__all__ = ["Clients"]

_C = TypeVar("_C")
_P = TypeVar("_P")


class Clients(Generic[_C, _P]):
    """
    The connections of one server, each with the protocol that has it.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: where to schedule what is too much for one turn.
        """
        self._clock = clock
        self._protocols: dict[_C, _P] = {}
        self._pending: PendingClients[_C] = PendingClients()
        self._waitingEmpty: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._protocols)

    def __iter__(self) -> Iterator[_C]:
        """
        @return: the connections.
        """
        return iter(self._protocols)

    @property
    def anonymous(self) -> int:
        """
        How many have not finished the TLS handshake or not logged in.
        """
        return self._pending.anonymous

    @property
    def protocols(self) -> list[_P]:
        """
        The protocols of those who are connected.
        """
        return list(self._protocols.values())

    def connected(
        self, connection: _C, protocol: _P, limits: Limits, *, anonymous: bool
    ) -> _C | None:
        """
        A client has connected.

        @param anonymous: whether it has a TLS handshake or a login before it.
        @return: who has to go for it, if there are too many now: of those who are anonymous, or
            not open, the one that connected first.
        """
        self._protocols[connection] = protocol
        return self._pending.came(connection, len(self._protocols), limits, unknown=anonymous)

    def hasPlace(self, connection: _C) -> bool:
        """
        @return: whether there was room for the client that has connected.
        """
        return self._pending.hasPlace(connection)

    def known(self, connection: _C) -> None:
        """
        A client is not anonymous any more.
        """
        self._pending.known(connection)

    def opened(self, connection: _C) -> None:
        """
        A client is open.
        """
        self._pending.opened(connection)

    def gone(self, connection: _C) -> None:
        """
        A connection has ended.
        """
        self._pending.gone(connection)
        self._protocols.pop(connection, None)
        if not self._protocols:
            waiting, self._waitingEmpty = self._waitingEmpty, []
            for each in waiting:
                each.callback(None)

    def whenEmpty(self) -> Deferred[None]:
        """
        @return: fires when no connection is left.
        """
        if not self._protocols:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._waitingEmpty.append(empty)
        return empty

    def endAll(self, how: Callable[[_C], object]) -> None:
        """
        End all connections, a few in each turn of the reactor, so that others are served.

        @param how: ends one.
        """
        self._end(list(self._protocols), how)

    def _end(self, connections: list[_C], how: Callable[[_C], object]) -> None:
        for connection in connections[-MAX_CLOSES_PER_TURN:]:
            how(connection)
        del connections[-MAX_CLOSES_PER_TURN:]
        if connections:
            self._clock.callLater(0, self._end, connections, how)
