"""
Decides what to write to a registry next, from the changes of clients and the registry's replies.
It does no I/O and reads no clock.

A change is recorded as the client's number only.  Once a second all changed clients are written in
one batch, with their current descriptions, so a client that changes often is written once per
batch.  One batch is under way at a time: a slow registry gets larger batches, not more.  Whenever
the contents of the registry are uncertain (after a lost connection, an error, or a wrong number of
clients), everything is written again::

    ready -> begin(200 clients) -> write(200) -> ... -> write(the rest, complete) -> write(changes)
       ^                                                                                 |
       +--- lost, failed, "unknown", or "written" with another number of clients --------+
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from itertools import islice
from typing import Final

import attrs

__all__ = ["BATCH", "CHANGES_MAX", "NOT_YET", "PERIOD", "RENEW", "RETRY_MAX", "Batch", "Listing"]

PERIOD: Final = 1.0
"""
Seconds between two batches of changes.
"""

RENEW: Final = 4.0
"""
Seconds after which a batch is written even without a change, to renew the lease.
"""

BATCH: Final = 200
"""
The most clients in one batch: describing them takes a few milliseconds.
"""

CHANGES_MAX: Final = 20_000
"""
The most changes that are recorded.  After more than that, all clients are written again.
"""

NOT_YET: Final = "it has not been reached yet"
"""
The problem before the first connection.
"""

RETRY_MAX: Final = 5.0
"""
The longest delay, in seconds, between an error and the next attempt; the first delay is one second.
"""

_AGAIN: Final = 10.0
"""
The shortest time, in seconds, between two complete writes of the list on a working connection, even
if the stored list is found to be wrong more often.
"""


@attrs.frozen
class Batch:
    """
    Changes to write at once.

    @ivar epoch: the node's epoch; C{None} to get one from the registry.
    @ivar begun: how often the list was written from the beginning, including this time.  The
        registry ignores batches with a smaller number, which arrive late from an old connection.
    @ivar begin: whether to delete all clients first.
    @ivar complete: whether all clients are stored afterwards.
    @ivar changed: descriptions to store, by the clients' numbers.
    @ivar ended: the numbers of clients to delete.
    """

    epoch: int | None
    begun: int
    begin: bool
    complete: bool
    changed: dict[int, str]
    ended: list[int]


class Listing:
    """
    The state of one node's list: what is stored in the registry, and what must still be written.

    @ivar epoch: the node's epoch, once the registry has given it one.
    @ivar problem: why the stored list is not up to date; C{None} if it is, or is about to be.
    @ivar superseded: whether another process has taken the node's name.  Then this process writes
        no more.
    """

    def __init__(
        self,
        numbers: Callable[[], Collection[int]],
        describe: Callable[[int], str | None],
        now: float,
    ) -> None:
        """
        @param numbers: returns the numbers of all clients.
        @param describe: returns the description of a client; C{None} if it has ended.
        @param now: the time, in monotonic seconds as everywhere in this module.
        """
        self.epoch: int | None = None
        self.problem: str | None = NOT_YET
        self.superseded = False
        self._numbers = numbers
        self._describe = describe
        self._now = now
        self._ready = False
        self._isDoubtful = True
        self._changes: dict[int, None] = {}
        self._rest: list[int] = []
        self._stored: set[int] = set()
        self._underWay: Batch | None = None
        self._begun = 0
        self._writtenAt = self._begunAt = -math.inf
        self._retryAt = -math.inf
        self._delay = PERIOD
        self._wrongSince: float | None = now

    def stale(self, now: float) -> float:
        """
        @return: seconds since the stored list was last known to be correct; 0 if it is correct.
        """
        return 0.0 if self._wrongSince is None else max(0.0, now - self._wrongSince)

    def changed(self, number: int) -> None:
        """
        A client has connected, has ended, or has changed.
        """
        if self._isDoubtful:
            return
        self._changes[number] = None
        self._isWrong()
        if len(self._changes) > CHANGES_MAX:
            self._doubt()

    def ready(self, now: float) -> None:
        """
        There is a new connection to the registry.
        """
        self._ready = True
        self._now = now

    def lost(self, problem: str, now: float) -> None:
        """
        The connection has ended, or an attempt to connect has failed.
        """
        self._ready = False
        self._now = now
        self._underWay = None
        if not self.superseded:
            self.problem = problem
            self._doubt()

    def failed(self, problem: str, now: float) -> None:
        """
        The registry replied with an error.  After any error, use a new connection, a little later.
        """
        self._retryAt = now + self._delay
        self._delay = min(RETRY_MAX, self._delay * 2)
        self.lost(problem, now)

    def next(self, now: float) -> Batch | None:
        """
        Return the next batch.  Call this once a second, and after each L{replied}.

        @return: the batch to write now; C{None} if nothing is due, there is no connection, or the
            previous batch has no reply yet.
        """
        self._now = now
        if not self._ready or self.superseded or self._underWay is not None or now < self._retryAt:
            return None
        begin = self._isDoubtful
        if begin:
            self._begunAt = now
            self._begun += 1
            self._isDoubtful = False
            # Batches are taken from the end, which has the smallest numbers.
            self._rest = sorted(self._numbers(), reverse=True)
            self._changes.clear()
            self._stored.clear()
        elif not self._rest and not self._isDue(now):
            return None
        if begin or self._rest:
            numbers = self._rest[: -BATCH - 1 : -1]
            del self._rest[-BATCH:]
        else:
            numbers = list(islice(self._changes, BATCH))
            for each in numbers:
                del self._changes[each]
        self._isWrong()
        self._writtenAt = now
        self._underWay = batch = self._batch(begin, numbers)
        return batch

    def _isDue(self, now: float) -> bool:
        if len(self._changes) >= BATCH:
            return True
        return now >= self._writtenAt + (PERIOD if self._changes else RENEW)

    def _batch(self, begin: bool, numbers: list[int]) -> Batch:
        changed, ended = {}, []
        for each in numbers:
            described = self._describe(each)
            if described is None:
                ended.append(each)
            else:
                changed[each] = described
        return Batch(self.epoch, self._begun, begin, not self._rest, changed, ended)

    def replied(self, word: str, epoch: int, clients: int, now: float) -> None:
        """
        The registry replied to the batch that is under way.

        @param word: C{written}, C{unknown} or C{superseded}.
        @param epoch: the node's epoch, or that of the process that has taken its name.
        @param clients: the number of clients stored.
        """
        batch, self._underWay = self._underWay, None
        if batch is None:
            return
        self._now = now
        if word == "superseded":
            self.superseded = True
            self.problem = f"another kaserver has this node's name (since epoch {epoch})"
            self._changes.clear()
            self._rest.clear()
            return
        if word != "written":
            self._anew("it has lost what this node had written")
            return
        self.epoch = epoch
        self._delay = PERIOD
        self._stored.update(batch.changed)
        self._stored.difference_update(batch.ended)
        if clients != len(self._stored):
            self._anew("another program has changed what this node had written")
        elif batch.complete:
            self.problem = None
            # Changes recorded since this batch was made must still be written.
            self._wrongSince = self._writtenAt if self._changes else None

    def _anew(self, problem: str) -> None:
        self.problem = problem
        self._retryAt = self._begunAt + _AGAIN
        self._doubt()

    def _doubt(self) -> None:
        """
        The contents of the registry are uncertain: write everything again.
        """
        self._isDoubtful = True
        self._changes.clear()
        self._rest.clear()
        self._stored.clear()
        self._isWrong()

    def _isWrong(self) -> None:
        if self._wrongSince is None:
            self._wrongSince = self._now
