"""
Tracks the clients of a server, and chooses which one to close when there are too many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from kaproto.keepalive.pacemaker import MAX_CLOSES_PER_TURN
from kaproto.limits import Limits
from kaproto.waiting import Waiting

__all__ = ["Clients", "Elsewhere"]

_TURNED_AWAY: Final = 16
"""
The most clients beyond the limit that stay connected until they are told that the server is full.
"""

_C = TypeVar("_C")
_P = TypeVar("_P")


class Elsewhere(Protocol):
    """
    The clients of other processes that count towards the same limits.

    @ivar processes: the number of processes, including this one.
    """

    processes: int

    def others(self, here: int, most: int, /) -> int:
        """
        @param here: the number of clients of this process.
        @param most: the most clients of all processes; 0 for any number.
        @return: the number of clients of the other processes.
        """


class Clients(Generic[_C, _P]):
    """
    The connections of one server, each with its protocol.

    A new client beyond a limit displaces the oldest client that is anonymous or not open yet.  If
    the new client had to wait instead, idle ones could keep out all others.  When all other clients
    are open, the new client has no place: it stays connected until it has been told that the server
    is full, and does not count.

    @ivar onChange: called with each client that connects, changes its state or ends, if it is set.
    @ivar elsewhere: the clients of other processes.  They count towards C{maxClients}; each process
        has a share of C{maxAnonymousClients}.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: schedules work that takes more than one turn of the reactor.
        """
        self.onChange: Callable[[_C], object] | None = None
        self.elsewhere: Elsewhere | None = None
        self._clock = clock
        self._protocols: dict[_C, _P] = {}
        # Oldest first.  A plain dict finds its first key by skipping all keys removed before it,
        # which is slow after thousands of removals.
        self._anonymous: OrderedDict[_C, None] = OrderedDict()
        self._unopened: OrderedDict[_C, None] = OrderedDict()
        self._turnedAway: OrderedDict[_C, None] = OrderedDict()
        self._placeless: set[_C] = set()
        self._waitingEmpty: Waiting[None] = Waiting()

    def __len__(self) -> int:
        return len(self._protocols)

    def __iter__(self) -> Iterator[_C]:
        """
        @return: the connections.
        """
        return iter(self._protocols)

    def __reversed__(self) -> Iterator[_C]:
        """
        @return: the connections, the latest first.
        """
        return reversed(self._protocols)

    def __contains__(self, connection: _C) -> bool:
        return connection in self._protocols

    @property
    def anonymous(self) -> int:
        """
        The number of clients that have not finished the TLS handshake or not logged in.
        """
        return len(self._anonymous)

    @property
    def protocols(self) -> list[_P]:
        """
        The protocols of all connections.
        """
        return list(self._protocols.values())

    def connected(
        self, connection: _C, protocol: _P, limits: Limits, *, anonymous: bool
    ) -> _C | None:
        """
        A client has connected.

        @param anonymous: whether it has to complete a TLS handshake or to log in.
        @return: the connection that the new client displaces, to be closed; C{None} for none.
        """
        self._protocols[connection] = protocol
        self.changed(connection)
        self._unopened[connection] = None
        others = self._share(limits.maxClients)
        if anonymous:
            self._anonymous[connection] = None
            if 0 < self._anonymousHere(limits) < len(self._anonymous):
                return self._displace(next(iter(self._anonymous)))
        places = self._places + others
        if not 0 < limits.maxClients < places:
            return None
        # Too many.  Displace the oldest client that is not open, unless that is the new one.
        if places - len(self._unopened) < limits.maxClients:
            return self._displace(next(iter(self._unopened)))
        # All others are open: the new client gets no place.
        self._turnedAway[self._displace(connection)] = None
        if len(self._turnedAway) <= _TURNED_AWAY:
            return None
        oldest, _ = self._turnedAway.popitem(last=False)
        return oldest

    @property
    def _places(self) -> int:
        return len(self._protocols) - len(self._placeless)

    def _share(self, most: int = 0) -> int:
        """
        Tell other processes the number of clients of this one.

        @return: the number of clients of the other processes.
        """
        return 0 if self.elsewhere is None else self.elsewhere.others(self._places, most)

    def _anonymousHere(self, limits: Limits) -> int:
        # The share of this process, rounded up.
        processes = 1 if self.elsewhere is None else self.elsewhere.processes
        return -(-limits.maxAnonymousClients // processes)

    def _displace(self, connection: _C) -> _C:
        self.known(connection)
        self.opened(connection)
        self._placeless.add(connection)
        self._share()
        return connection

    def hasPlace(self, connection: _C) -> bool:
        """
        @return: whether a client may open, instead of being told that the server is full.
        """
        return connection not in self._placeless

    def known(self, connection: _C) -> None:
        """
        A client has finished the TLS handshake and logged in.
        """
        self._anonymous.pop(connection, None)
        self.changed(connection)

    def opened(self, connection: _C) -> None:
        """
        A client is open.
        """
        self._unopened.pop(connection, None)
        self.changed(connection)

    def gone(self, connection: _C) -> None:
        """
        A connection has ended.
        """
        self.known(connection)
        self.opened(connection)
        self._turnedAway.pop(connection, None)
        self._placeless.discard(connection)
        self._protocols.pop(connection, None)
        self.changed(connection)
        self._share()
        if not self._protocols:
            self._waitingEmpty.fire(None)

    def changed(self, connection: _C) -> None:
        """
        The data that operators see about a client have changed.
        """
        if self.onChange is not None:
            self.onChange(connection)

    def whenEmpty(self) -> Deferred[None]:
        """
        @return: fires when no connection is left.
        """
        if not self._protocols:
            return succeed(None)
        return self._waitingEmpty.wait()

    def endAll(self, how: Callable[[_C], object]) -> None:
        """
        End all connections, a few in each turn of the reactor, so that the reactor can do other
        work in between.

        @param how: ends one connection.
        """
        self._end(list(self._protocols), how)

    def _end(self, connections: list[_C], how: Callable[[_C], object]) -> None:
        for connection in connections[-MAX_CLOSES_PER_TURN:]:
            how(connection)
        del connections[-MAX_CLOSES_PER_TURN:]
        if connections:
            self._clock.callLater(0, self._end, connections, how)
