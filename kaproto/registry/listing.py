"""
Decides what to write to a registry next, given what happens to clients and what the registry
answers.  It does no I/O and reads no clock.

A client that has changed is noted by its number only.  Once a second what has changed is written
in one batch, with what is known of each client at that moment, so however often one changes, it
is written once.  One batch is under way at a time: a slow registry gets larger batches, not more.
After anything that leaves doubt about what the registry has (a lost connection, an error, a count
that is not ours) everything is written anew::

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
Seconds after which a batch is written without a change, which renews the lease.
"""

BATCH: Final = 200
"""
The most clients in one batch: describing them takes a few milliseconds.
"""

CHANGES_MAX: Final = 20_000
"""
The most changes that are noted.  With more than that, all clients are written anew.
"""

NOT_YET: Final = "it has not been reached yet"
"""
What is wrong at first.
"""

RETRY_MAX: Final = 5.0
"""
The most seconds from an error until the next try; the first is after one.
"""

_AGAIN: Final = 10.0
"""
Seconds between two times that everything is written anew on a connection that works, however
often what is stored is not ours.
"""


@attrs.frozen
class Batch:
    """
    What to write.

    @ivar epoch: the node's epoch, C{None} to be given one.
    @ivar begun: how often everything was written anew, this time included.  What is still on its
        way from a time before, on a connection that was given up, must not be stored any more.
    @ivar begin: whether to forget all clients first.
    @ivar complete: whether all clients are stored afterwards.
    @ivar changed: what to store of clients, by number.
    @ivar ended: the numbers of clients to forget.
    """

    epoch: int | None
    begun: int
    begin: bool
    complete: bool
    changed: dict[int, str]
    ended: list[int]


class Listing:
    """
    What one node has stored in a registry, and what it has yet to.

    @ivar epoch: the node's epoch, once the registry has given it one.
    @ivar problem: why what is stored is not up to date; C{None} if it is, or is about to be.
    @ivar superseded: whether another process has taken the node's name, after which nothing is
        ever written again.
    """

    def __init__(
        self,
        numbers: Callable[[], Collection[int]],
        describe: Callable[[int], str | None],
        now: float,
    ) -> None:
        """
        @param numbers: gives the numbers of all clients.
        @param describe: gives what to store of a client, C{None} if it has ended.
        @param now: in monotonic seconds, as everywhere here.
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
        @return: for how many seconds what is stored has not been known to be right.
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
        There is a connection to the registry.
        """
        self._ready = True
        self._now = now

    def lost(self, problem: str, now: float) -> None:
        """
        There is none any more, or none could be made.
        """
        self._ready = False
        self._now = now
        self._underWay = None
        if not self.superseded:
            self.problem = problem
            self._doubt()

    def failed(self, problem: str, now: float) -> None:
        """
        The registry has answered with an error.  Whatever it was, the way on is a new connection,
        somewhat later.
        """
        self._retryAt = now + self._delay
        self._delay = min(RETRY_MAX, self._delay * 2)
        self.lost(problem, now)

    def next(self, now: float) -> Batch | None:
        """
        Call this once a second, and after each L{replied}.

        @return: what to write now, if anything.  Nothing else is until this has been answered.
        """
        self._now = now
        if not self._ready or self.superseded or self._underWay is not None or now < self._retryAt:
            return None
        begin = self._isDoubtful
        if begin:
            self._begunAt = now
            self._begun += 1
            self._isDoubtful = False
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
        The registry has answered the batch that is under way.

        @param word: C{written}, C{unknown} or C{superseded}.
        @param epoch: the node's epoch, or that of the process that has taken its name.
        @param clients: how many clients are stored.
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
            self._anew("somebody else has changed what this node had written")
        elif batch.complete:
            self.problem = None
            # What has changed since is younger than this batch.
            self._wrongSince = self._writtenAt if self._changes else None

    def _anew(self, problem: str) -> None:
        self.problem = problem
        self._retryAt = self._begunAt + _AGAIN
        self._doubt()

    def _doubt(self) -> None:
        """
        Nobody knows what is stored: write everything anew.
        """
        self._isDoubtful = True
        self._changes.clear()
        self._rest.clear()
        self._stored.clear()
        self._isWrong()

    def _isWrong(self) -> None:
        if self._wrongSince is None:
            self._wrongSince = self._now
