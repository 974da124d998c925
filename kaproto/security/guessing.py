"""
Limits how fast passwords can be guessed, and never refuses the right one: who guesses has to wait.

Failed logins are counted for each network (see L{kaproto.peer.Peer.network}) and each user name.
After ten within a minute the next logins of that network, or by that name, wait in a queue, which
lets one through each second.

An example.  At 192.0.2.1 somebody has failed ten times.  An eleventh login waits until a second
after the last failure, a twelfth a second more, and so does Alice, who logs in from there for the
first time: with 30 guesses in front of her she waits 30 seconds.  Bob, who logged in from there
yesterday, is checked at once: the I{pair} of him and that network is known.  So is everybody at
other networks.

When somebody guesses Alice's password from a hundred networks, the queue is that of her name, and
those wait who come from where she has not come from.

A known pair whose own password is being guessed from the user's own network has a queue as well,
which is a hundred times as fast.  In no queue does anybody wait longer than a hundred turns of it:
when more wait than that, the queue is faster.

Here is no I/O and no clock; L{kaproto.security.loginqueue} has both.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Hashable
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final, TypeVar

import attrs

__all__ = ["KNOWN_FOR", "QUEUE", "TABLE_MAX", "WINDOW", "Attempt", "GuessLimit"]

WINDOW: Final = 60.0
"""
Seconds for which a failure counts.
"""

KNOWN_FOR: Final = 86400.0
"""
Seconds after its last login for which a pair of user and network is known.
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
class _Source:
    """
    A network, a user name, or a known pair of both, with its queue.

    @ivar turn: which part of L{GuessLimit.delay} passes between two turns of the queue.
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
    failures: deque[float] = attrs.field(factory=deque)
    undecided: int = 0
    unanswered: int = 0
    waiting: OrderedDict[Attempt, None] = attrs.field(factory=OrderedDict)
    last: float = -inf
    due: float | None = None
    heldAt: float = -inf
    loggedIn: float = -inf


@attrs.define(eq=False)
class Attempt:
    """
    One login.

    @ivar network: where it comes from.
    @ivar user: the name it gives.
    @ivar entered: when it came, in monotonic seconds.
    @ivar granted: whether the password may be checked.
    @ivar held: what makes it wait, such as C{"network 192.0.2.1"}, for the first login within
        L{WINDOW} that waits for that.
    """

    network: str
    user: str
    entered: float
    granted: bool = False
    held: list[str] = attrs.field(factory=list)
    _counted: list[_Source] = attrs.field(factory=list, repr=False)
    _queues: list[_Source] = attrs.field(factory=list, repr=False)
    _waitsFor: int = attrs.field(default=0, repr=False)
    _answered: bool = attrs.field(default=False, repr=False)
    _ended: bool = attrs.field(default=False, repr=False)


class GuessLimit:
    """
    Decides when each login may be checked.  Times are monotonic seconds, passed in.

    Each login begins with L{enter}.  Once it is granted, at once or by L{turns}, L{answered}
    follows when the server has replied, and L{succeeded}, L{failed} or L{forget} at the end.

    @ivar guesses: failures within L{WINDOW} after which logins wait.
    @ivar delay: seconds between two turns of a queue.
    """

    def __init__(self, guesses: int = 10, delay: float = 1.0) -> None:
        self.guesses = guesses
        self.delay = delay
        self._networks: OrderedDict[str, _Source] = OrderedDict()
        self._names: OrderedDict[str, _Source] = OrderedDict()
        self._pairs: OrderedDict[tuple[str, str], _Source] = OrderedDict()
        self._once = _Once()
        self._dues: list[tuple[float, int, _Source]] = []
        self._numbers = count()

    def enter(self, network: str, user: str, now: float) -> Attempt:
        """
        Somebody wants to log in.

        @return: the login, which may be C{granted} already.
        """
        attempt = Attempt(network, user, now)
        where, name = self._network(network), self._names.get(user)
        pair = self._pair(network, user, now)
        attempt._counted = [each for each in (where, name, pair) if each is not None]
        attempt._queues = attempt._counted[:2] if pair is None else [pair]
        for source in attempt._queues:
            if source.waiting or not self._isFree(source, now):
                self._hold(attempt, source, now)
        if not attempt._waitsFor:
            self._grant(attempt, now)
        return attempt

    @property
    def nextTurn(self) -> float | None:
        """
        When to call L{turns} next; C{None} if nobody waits.
        """
        while self._dues and self._dues[0][2].due != self._dues[0][0]:
            heappop(self._dues)
        return self._dues[0][0] if self._dues else None

    def turns(self, now: float) -> list[Attempt]:
        """
        @return: the logins whose turn it is.  They are granted now.
        """
        granted = []
        while (due := self.nextTurn) is not None and due <= now:
            source = heappop(self._dues)[2]
            attempt, _ = source.waiting.popitem(last=False)
            source.due, source.last = None, now
            attempt._waitsFor -= 1
            if not attempt._waitsFor:
                self._grant(attempt, now)
                granted.append(attempt)
            self._schedule(source, now)
        return granted

    def answered(self, attempt: Attempt, now: float) -> None:
        """
        The server has replied to what was sent for a login, which may go on.
        """
        if attempt.granted and not attempt._answered:
            attempt._answered = True
            for source in attempt._queues:
                source.unanswered -= 1
                self._schedule(source, now)

    def succeeded(self, attempt: Attempt, now: float) -> None:
        """
        The password was right: the pair is known from now on.
        """
        if not attempt._ended:
            key = attempt.network, attempt.user
            pair = self._pairs.setdefault(key, _Source(turn=1 / QUEUE))
            pair.loggedIn = now
            _renew(self._pairs, key)
        self._end(attempt, now)

    def failed(self, attempt: Attempt, now: float) -> None:
        """
        The password was wrong, or the client left before that was known.  A login that has not
        been granted has not failed: it only leaves its queues.
        """
        if attempt.granted and not attempt._ended:
            self._countFailure(attempt, now)
        self._end(attempt, now)

    def forget(self, attempt: Attempt, now: float) -> None:
        """
        Whether the password was right could not be found out, and the client is not to blame.
        """
        self._end(attempt, now)

    def _network(self, network: str) -> _Source:
        where = self._networks.get(network)
        if where is None:
            where = self._networks[network] = _Source()
            # In front of those that have failed.
            self._networks.move_to_end(network, last=False)
            _trim(self._networks)
        return where

    def _pair(self, network: str, user: str, now: float) -> _Source | None:
        pair = self._pairs.get((network, user))
        if pair is not None and now - pair.loggedIn > KNOWN_FOR:
            del self._pairs[network, user]
            return None
        return pair

    def _recent(self, failures: deque[float], now: float) -> int:
        while failures and now - failures[0] >= WINDOW:
            failures.popleft()
        return len(failures)

    def _isFree(self, source: _Source, now: float) -> bool:
        return self._recent(source.failures, now) + source.undecided < self.guesses

    def _hold(self, attempt: Attempt, source: _Source, now: float) -> None:
        if len(source.failures) >= self.guesses:
            if now - source.heldAt >= WINDOW:
                isName = source is self._names.get(attempt.user)
                attempt.held.append(
                    f"user {attempt.user!r}" if isName else f"network {attempt.network}"
                )
            source.heldAt = now
        source.waiting[attempt] = None
        attempt._waitsFor += 1
        self._schedule(source, now)

    def _grant(self, attempt: Attempt, now: float) -> None:
        attempt.granted = True
        for source in attempt._counted:
            source.undecided += 1
        for source in attempt._queues:
            source.unanswered += 1
            source.last = now

    def _countFailure(self, attempt: Attempt, now: float) -> None:
        where = self._networks.setdefault(attempt.network, attempt._counted[0])
        _renew(self._networks, attempt.network)
        name = self._names.get(attempt.user)
        before = self._once.failed(attempt.user, now)
        if name is None and before is not None:
            name = self._names[attempt.user] = _Source(failures=deque([before]))
        if name is not None:
            _renew(self._names, attempt.user)
        for source in (where, name, self._pairs.get((attempt.network, attempt.user))):
            if source is not None:
                source.failures.append(now)
                if len(source.failures) > self.guesses:
                    source.failures.popleft()

    def _end(self, attempt: Attempt, now: float) -> None:
        if attempt._ended:
            return
        self.answered(attempt, now)
        attempt._ended = True
        for source in attempt._counted:
            if attempt.granted:
                source.undecided -= 1
            source.waiting.pop(attempt, None)
            self._schedule(source, now)
        for table, key in ((self._networks, attempt.network), (self._names, attempt.user)):
            rest = table.get(key)
            if rest is not None and not (
                rest.undecided or rest.waiting or self._recent(rest.failures, now)
            ):
                del table[key]

    def _schedule(self, source: _Source, now: float) -> None:
        """
        Find out when the queue of a source lets the next login through.
        """
        due = None
        if source.waiting:
            if self._isFree(source, now):
                due = now
            elif not source.unanswered:
                due = max(now, self._turnOf(source, now))
        if due is not None and due != source.due:
            heappush(self._dues, (due, next(self._numbers), source))
        source.due = due

    def _turnOf(self, source: _Source, now: float) -> float:
        turn = self.delay * source.turn
        longest = turn * QUEUE
        first, last = next(iter(source.waiting)), next(reversed(source.waiting))
        # If many wait, so fast that the last one will not have waited longer than that.
        turn = min(turn, (last.entered + longest - now) / len(source.waiting))
        return min(source.last + turn, first.entered + longest)


_K = TypeVar("_K", bound=Hashable)


def _renew(table: OrderedDict[_K, _Source], key: _K) -> None:
    table.move_to_end(key)
    _trim(table)


def _trim(table: OrderedDict[_K, _Source]) -> None:
    if len(table) > TABLE_MAX:
        table.popitem(last=False)


class _Once:
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
