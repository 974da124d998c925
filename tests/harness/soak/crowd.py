"""
Many clients on one epoll, each replaced when it has left.
"""

from __future__ import annotations

import heapq
import itertools
import random
import select
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from tests.harness.soak.client import Client, Mortal, State
from tests.harness.soak.judge import Judge, Tally, Verdict
from tests.harness.soak.scene import Scene

__all__ = ["Crowd"]

_LOOK_EVERY: Final = 0.02
_SHOWN: Final = 20


class Crowd:
    """
    The clients.

    @ivar scene: the server's ports, and what the clients need.
    @ivar judge: what the server must do.
    @ivar looked: when the kernel was last asked for events, on the monotonic clock: what has
        happened since is not known.
    @ivar verdicts: how often each verdict was given.
    @ivar details: descriptions of the first problems.
    @ivar calls: the number of calls made.
    @ivar connections: the number of clients so far.
    @ivar silent: clients that are dead, and have not been found.
    @ivar mayDie: whether clients may still die.
    @ivar replacing: whether clients that leave are replaced.
    @ivar longestGap: the longest time between two polls, in seconds.
    """

    openSeconds = 20.0
    answerSeconds = 10.0

    def __init__(self, scene: Scene, judge: Judge) -> None:
        self.scene = scene
        self.judge = judge
        self.verdicts = Tally()
        self.details: list[str] = []
        self.calls = self.connections = 0
        self.silent: set[Mortal] = set()
        self.mayDie = True
        self.replacing = True
        self.longestGap = 0.0
        self.looked = time.monotonic()
        self._clients: dict[int, Client] = {}
        self._poll = select.epoll()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def kinds(self) -> Counter[str]:
        """
        The number of clients of each kind.
        """
        return Counter(client.name for client in self._clients.values())

    @property
    def opening(self) -> int:
        """
        The number of clients that have not opened yet.
        """
        return sum(client.state is State.OPENING for client in self._clients.values())

    def populate(self, count: int, perSecond: float) -> None:
        """
        Create clients, one after the other.
        """
        parts = self.scene.kinds.items()
        kinds = [kind for kind, part in parts for _number in range(round(part * count))]
        random.shuffle(kinds)
        for number, kind in enumerate(kinds):
            self.later(number / perSecond, partial(kind, self))

    def enter(self, client: Client, events: int) -> None:
        """
        Add a client.
        """
        self.connections += 1
        self._clients[client.socket.fileno()] = client
        self._poll.register(client.socket, events)

    def listen(self, client: Client, events: int) -> None:
        """
        Change the events that a client waits for.
        """
        self._poll.modify(client.socket, events)

    def left(self, client: Client) -> None:
        """
        Remove a client, and schedule the creation of another of its kind.
        """
        del self._clients[client.socket.fileno()]
        self._poll.unregister(client.socket)
        if isinstance(client, Mortal):
            self.silent.discard(client)
        if self.replacing:
            self.later(random.uniform(0, 1), lambda: self._replace(client))

    def _replace(self, client: Client) -> None:
        if self.replacing:
            type(client)(self)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """
        Schedule a call.
        """
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), action))

    def tally(self, verdict: Verdict, detail: str) -> None:
        """
        Count a verdict, and keep its description if it is one of the first problems.
        """
        self.verdicts[verdict] += 1
        if verdict in self.verdicts.wrong and len(self.details) < _SHOWN:
            self.details.append(f"{verdict.value}: {detail}")

    def turn(self) -> None:
        """
        Poll, let the clients handle their events, and make the calls that are due.
        """
        asked = time.monotonic()
        events = self._poll.poll(_LOOK_EVERY, max(64, len(self._clients)))
        seen = time.monotonic()
        self.longestGap = max(self.longestGap, seen - self.looked)
        for descriptor, what in events:
            client = self._clients.get(descriptor)
            if client is not None:
                client.ready(what, seen)
        # Only connections without an event are known to have been open at this time.
        self.looked = asked
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def leave(self) -> None:
        """
        Close all clients.
        """
        self.replacing = False
        self._timers.clear()
        for client in list(self._clients.values()):
            client.leave(reset=random.random() < 1 / 2)

    def close(self) -> None:
        """
        Close all clients and the epoll.
        """
        self.leave()
        self._poll.close()
