"""
Those who may be guessing passwords, networks, user names and pairs of both: how often each has
failed, and who waits because of that.  L{kaproto.security.guessing} says what follows.
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
How many turns of a queue a login waits at most.
"""

TABLE_MAX: Final = 4096
"""
Entries in each table.  Of networks and names the one goes that has not failed for the longest time;
of known pairs, the one that has not logged in.
"""


@attrs.define(eq=False)
class Suspect:
    """
    A network, a user name, or a known pair of both, with its queue.

    @ivar turn: the time between two turns of the queue, as a part of the usual.
    @ivar longest: how many turns a login waits at most.
    @ivar slack: seconds by which a turn may be late without delaying the next ones.
    @ivar failures: when logins failed, as many as count.
    @ivar undecided: logins let through that have neither failed nor succeeded yet.  They count as
        failures until then, or a thousand at once would all get through.
    @ivar unanswered: logins let through by this queue that the server is working on.
    @ivar waiting: the queue, first come first.
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
        @return: whether so few logins have failed, or may fail, that nobody has to wait.
        """
        return self.recent(now) + self.undecided < guesses

    def nextTurn(self, now: float, delay: float) -> float:
        """
        @param delay: seconds between two turns, in a queue of the usual speed.
        @return: when the queue lets the first login through.  If many wait, that is so early that
            the last one will not have waited for more than L{longest} turns.
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

    @ivar network: where it comes from.
    @ivar user: the name it gives.
    @ivar entered: when it came, in monotonic seconds.
    @ivar known: whether the user has logged in from the network within a day.
    @ivar granted: whether the password may be checked.
    @ivar held: what makes it wait, such as C{"network 192.0.2.1"}, for the first login within
        L{WINDOW} that waits for that.
    @ivar counted: where it counts as a failure until it has succeeded.
    @ivar queues: which queues it has to pass.
    @ivar waitsFor: how many of them it has not passed yet.
    @ivar answered: whether the server has replied to what was sent for it.
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
    At most L{TABLE_MAX} suspects.  The first goes when there is one too many.
    """

    def addFirst(self, key: _K, suspect: Suspect) -> None:
        """
        Add one that has not failed, in front of those that have.
        """
        self[key] = suspect
        self.move_to_end(key, last=False)
        self._trim()

    def renew(self, key: _K) -> None:
        """
        Make one the last.
        """
        self.move_to_end(key)
        self._trim()

    def _trim(self) -> None:
        if len(self) > TABLE_MAX:
            self.popitem(last=False)


class Once:
    """
    Remembers that a name failed, so that one that fails again is noticed: not the name, which may
    be a password typed in the wrong place, but its hash with a secret.  A name takes the place of
    another with the same remainder.  So names that are made up, and fail once each, cannot fill the
    table of those that fail again and again.
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
