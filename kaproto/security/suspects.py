"""
Failed logins by network, by user name and by pair of both, and the logins that wait because of
them.  L{kaproto.security.guessing} has the rules.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Hashable
from hashlib import blake2b
from math import inf
from typing import Final, TypeVar

import attrs

__all__ = ["QUEUE", "TABLE_MAX", "WINDOW", "Attempt", "Once", "Suspect", "Table"]

WINDOW: Final = 60.0
"""
Seconds for which a failure counts.
"""

QUEUE: Final = 100
"""
The most turns of a queue that a login waits.
"""

TABLE_MAX: Final = 4096
"""
The most entries in each table.  A full table of networks or names drops the one whose last failure
is the oldest; the table of known pairs, the one whose last login is the oldest.
"""


@attrs.define(eq=False)
class Suspect:
    """
    A network, a user name, or a known pair of both, with its queue.

    @ivar turn: the time between two turns of the queue, as a fraction of the usual.
    @ivar longest: the most turns that a login waits.
    @ivar slack: seconds by which a turn may be late without delaying the next ones.
    @ivar failures: when logins failed, as many as count.
    @ivar undecided: logins let through that have not failed or succeeded yet.  They count as
        failures until they do; otherwise a thousand at once would all get through.
    @ivar unanswered: logins let through by this queue that the server has not replied to.
    @ivar waiting: the queue, first come first served.
    @ivar last: when the last login was let through.
    @ivar due: when the next one will be; C{None} if nobody waits, or while the one before is
        unanswered.
    @ivar heldAt: when a login last had to wait because others had failed.
    @ivar loggedIn: when the pair logged in last.
    """

    turn: float = 1.0
    longest: int = QUEUE
    slack: float = 0.0
    failures: deque[float] = attrs.field(factory=deque)
    undecided: int = 0
    unanswered: int = 0
    waiting: OrderedDict[Attempt, None] = attrs.field(factory=OrderedDict)
    last: float = -inf
    due: float | None = None
    heldAt: float = -inf
    loggedIn: float = -inf

    def recent(self, now: float) -> int:
        """
        @return: how many logins have failed within L{WINDOW}.
        """
        while self.failures and now - self.failures[0] >= WINDOW:
            self.failures.popleft()
        return len(self.failures)

    def isFree(self, now: float, guesses: int) -> bool:
        """
        @return: whether the failed and undecided logins are so few that nobody has to wait.
        """
        return self.recent(now) + self.undecided < guesses

    def nextTurn(self, now: float, delay: float) -> float:
        """
        @param delay: seconds between two turns, in a queue of the usual speed.
        @return: when the queue lets the first login through.  If many wait, this is early enough
            for the last one to wait no more than L{longest} turns.
        """
        turn = delay * self.turn
        longest = turn * self.longest
        first, last = next(iter(self.waiting)), next(reversed(self.waiting))
        turn = min(turn, (last.entered + longest - now) / len(self.waiting))
        return min(self.last + turn, first.entered + longest)


@attrs.define(eq=False)
class Attempt:
    """
    One login.

    @ivar network: the client's network.
    @ivar user: the user name given.
    @ivar entered: when it began, in monotonic seconds.
    @ivar known: whether the user has logged in from the network within a day.
    @ivar granted: whether the password may be checked.
    @ivar held: why it waits, such as C{"network 192.0.2.1"}; set only for the first login within
        L{WINDOW} that waits for that reason.
    @ivar counted: the suspects for which it counts as a failure until it has succeeded.
    @ivar queues: the queues that it must pass.
    @ivar waitsFor: how many of them it has not passed yet.
    @ivar answered: whether the server has replied to its last message.
    @ivar ended: whether it has succeeded, failed or been forgotten.
    """

    network: str
    user: str
    entered: float
    known: bool = False
    granted: bool = False
    held: list[str] = attrs.field(factory=list)
    counted: list[Suspect] = attrs.field(factory=list, repr=False)
    queues: list[Suspect] = attrs.field(factory=list, repr=False)
    waitsFor: int = attrs.field(default=0, repr=False)
    answered: bool = attrs.field(default=False, repr=False)
    ended: bool = attrs.field(default=False, repr=False)


_K = TypeVar("_K", bound=Hashable)


class Table(OrderedDict[_K, Suspect]):
    """
    At most L{TABLE_MAX} suspects.  The first is dropped when there is one too many.
    """

    def addFirst(self, key: _K, suspect: Suspect) -> None:
        """
        Add a suspect without failures, in front of those with failures.
        """
        self[key] = suspect
        self.move_to_end(key, last=False)
        self._trim()

    def renew(self, key: _K) -> None:
        """
        Move a suspect to the end.
        """
        self.move_to_end(key)
        self._trim()

    def _trim(self) -> None:
        if len(self) > TABLE_MAX:
            self.popitem(last=False)


class Once:
    """
    Remembers names that failed once, so that a second failure is noticed.  Names that are made up
    and fail once each so cannot fill the table of names that fail repeatedly.

    It keeps a keyed hash instead of the name, which may be a password typed into the wrong field.
    Each hash has one place in an array, by its remainder, and overwrites what was there.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(16)
        self._failed: dict[int, tuple[bytes, float]] = {}

    def failed(self, user: str, now: float) -> float | None:
        """
        A name failed.

        @return: when it failed before, if that still counts.
        """
        digest = blake2b(user.encode(), digest_size=16, key=self._secret).digest()
        place = int.from_bytes(digest) % TABLE_MAX
        known, before = self._failed.get(place, (b"", 0.0))
        self._failed[place] = digest, now
        return before if known == digest and now - before < WINDOW else None
