"""
Limits the rate at which passwords can be guessed, by delay: the right password is never refused.

Failed logins are counted for each network (see L{kaproto.peer.Peer.network}) and each user name.
After ten within a minute the next logins of that network, or by that name, wait in a queue, which
lets one through each second.

An example.  At 192.0.2.1 somebody has failed ten times.  An eleventh login waits until a second
after the last failure, a twelfth a second more, and so does Alice, who logs in from there for the
first time: with 30 guesses in front of her she waits 30 seconds.  Bob, who logged in from there
yesterday, is checked at once: the I{pair} of him and that network is known.  So is everybody at
other networks.

When somebody guesses Alice's password from a hundred networks, logins by her name wait, except
those from networks where she has logged in before.

If the guesses come from Alice's own network, the known pair has a queue too, which lets a thousand
logins through each second.

Nobody is turned away.  Nobody waits longer than 100 seconds, or one second as a known pair: if more
logins wait than can pass in that time, the queue runs faster.  The number that can wait is bounded
by the connections that have not logged in (L{kaproto.limits.Limits.maxAnonymousClients}).

This module has no I/O and no clock; L{kaproto.security.loginqueue} has both.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from typing import Final

from kaproto.security.suspects import WINDOW, Attempt, Once, Suspect, Table

__all__ = ["KNOWN_FOR", "PAIR_QUEUE", "GuessLimit"]

KNOWN_FOR: Final = 86400.0
"""
Seconds after its last login for which a pair of user and network is known.
"""

PAIR_QUEUE: Final = 1000
"""
Turns that a known pair waits at most (see L{kaproto.security.suspects.QUEUE} for the others), and
how many turns its queue has in the time of one turn of theirs.
"""

_SLACK: Final = 0.1
"""
Seconds by which a busy server may delay the turn of a known pair without delaying the next ones: a
turn of the reactor is often longer than a millisecond.
"""


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
        self._networks: Table[str] = Table()
        self._names: Table[str] = Table()
        self._pairs: Table[tuple[str, str]] = Table()
        self._once = Once()
        self._dues: list[tuple[float, int, Suspect]] = []
        self._numbers = count()

    def enter(self, network: str, user: str, now: float) -> Attempt:
        """
        Somebody wants to log in.

        @return: the login, which may be C{granted} already.
        """
        where, name = self._network(network), self._names.get(user)
        pair = self._pair(network, user, now)
        attempt = Attempt(network, user, now, known=pair is not None)
        attempt.counted = [each for each in (where, name, pair) if each is not None]
        attempt.queues = attempt.counted[:2] if pair is None else [pair]
        for suspect in attempt.queues:
            if suspect.waiting or not suspect.isFree(now, self.guesses):
                self._hold(attempt, suspect, now)
        if not attempt.waitsFor:
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
            suspect = heappop(self._dues)[2]
            attempt, _ = suspect.waiting.popitem(last=False)
            attempt.waitsFor -= 1
            if not attempt.waitsFor:
                self._grant(attempt, now)
                granted.append(attempt)
            suspect.due, suspect.last = None, max(due, now - suspect.slack)
            self._schedule(suspect, now)
        return granted

    def answered(self, attempt: Attempt, now: float) -> None:
        """
        The server has replied to what was sent for a login, which may go on.
        """
        if attempt.granted and not attempt.answered:
            attempt.answered = True
            for suspect in attempt.queues:
                suspect.unanswered -= 1
                self._schedule(suspect, now)

    def succeeded(self, attempt: Attempt, now: float) -> None:
        """
        The password was right: the pair is known from now on.
        """
        if not attempt.ended:
            key = attempt.network, attempt.user
            pair = self._pairs.setdefault(key, Suspect(1 / PAIR_QUEUE, PAIR_QUEUE, _SLACK))
            pair.loggedIn = now
            self._pairs.renew(key)
        self._end(attempt, now)

    def failed(self, attempt: Attempt, now: float) -> None:
        """
        The password was wrong, or the client left before it was checked.  A login that was not
        granted counts as no failure: it only leaves its queues.
        """
        if attempt.granted and not attempt.ended:
            self._countFailure(attempt, now)
        self._end(attempt, now)

    def forget(self, attempt: Attempt, now: float) -> None:
        """
        The password could not be checked, and the client is not to blame.
        """
        self._end(attempt, now)

    def _network(self, network: str) -> Suspect:
        where = self._networks.get(network)
        if where is None:
            where = Suspect()
            self._networks.addFirst(network, where)
        return where

    def _pair(self, network: str, user: str, now: float) -> Suspect | None:
        pair = self._pairs.get((network, user))
        if pair is not None and now - pair.loggedIn > KNOWN_FOR:
            del self._pairs[network, user]
            return None
        return pair

    def _hold(self, attempt: Attempt, suspect: Suspect, now: float) -> None:
        if len(suspect.failures) >= self.guesses:
            if now - suspect.heldAt >= WINDOW:
                isName = suspect is self._names.get(attempt.user)
                attempt.held.append(
                    f"user {attempt.user!r}" if isName else f"network {attempt.network}"
                )
            suspect.heldAt = now
        suspect.waiting[attempt] = None
        attempt.waitsFor += 1
        self._schedule(suspect, now)

    def _grant(self, attempt: Attempt, now: float) -> None:
        attempt.granted = True
        for suspect in attempt.counted:
            suspect.undecided += 1
        for suspect in attempt.queues:
            suspect.unanswered += 1
            suspect.last = now

    def _countFailure(self, attempt: Attempt, now: float) -> None:
        where = self._networks.setdefault(attempt.network, attempt.counted[0])
        self._networks.renew(attempt.network)
        name = self._names.get(attempt.user)
        before = self._once.failed(attempt.user, now)
        if name is None and before is not None:
            name = self._names[attempt.user] = Suspect(failures=deque([before]))
        if name is not None:
            self._names.renew(attempt.user)
        for suspect in (where, name, self._pairs.get((attempt.network, attempt.user))):
            if suspect is not None:
                suspect.failures.append(now)
                if len(suspect.failures) > self.guesses:
                    suspect.failures.popleft()

    def _end(self, attempt: Attempt, now: float) -> None:
        if attempt.ended:
            return
        self.answered(attempt, now)
        attempt.ended = True
        for suspect in attempt.counted:
            if attempt.granted:
                suspect.undecided -= 1
            suspect.waiting.pop(attempt, None)
            self._schedule(suspect, now)
        for table, key in ((self._networks, attempt.network), (self._names, attempt.user)):
            rest = table.get(key)
            if rest is not None and not (rest.undecided or rest.waiting or rest.recent(now)):
                del table[key]

    def _schedule(self, suspect: Suspect, now: float) -> None:
        """
        Compute when the queue of a suspect lets the next login through.
        """
        due = None
        if suspect.waiting:
            if suspect.isFree(now, self.guesses):
                due = now
            elif not suspect.unanswered:
                due = max(now - suspect.slack, suspect.nextTurn(now, self.delay))
        if due is not None and due != suspect.due:
            heappush(self._dues, (due, next(self._numbers), suspect))
        suspect.due = due
