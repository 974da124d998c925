"""
Limits the rate of password guesses by delaying logins.  The right password is never refused.

Failed logins are counted for each network (see L{kaproto.peer.Peer.network}) and each user name.
After ten within a minute, further logins from that network, or by that name, wait in a queue, which
lets one login through per second.

An example.  Ten logins from 192.0.2.1 have failed.  The eleventh waits until one second after the
tenth, the twelfth one second longer.  Alice logs in from there for the first time, with 30 guesses
in the queue before her, so she waits 30 seconds.  Bob logged in from there yesterday, so the
I{pair} of Bob and that network is known, and his password is checked at once.  Logins from other
networks do not wait either.

If an attacker guesses Alice's password from a hundred networks, logins by her name wait, except
those from networks where she has logged in before.

If the guesses for her name come from her own network, the known pair has a queue too, which lets a
thousand logins through per second.

Every login gets its turn after at most 100 seconds, or one second for a known pair.  If the queue
is too long for that, it runs faster.  Its length is bounded by the limit on connections that have
not logged in (L{kaproto.limits.Limits.maxAnonymousClients}).

The processes of a server share their L{books<kaproto.security.loginbooks>}, so failures, turns and
known pairs count for all processes together.  Each process queues its own clients.  A turn waits
for the reply to the previous login only if both are in the same process.

This module has no I/O and no clock; L{kaproto.security.loginqueue} has both.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Final

from kaproto.security.loginbooks import WINDOW, Books, Table
from kaproto.security.suspects import Attempt, Suspect

__all__ = ["KNOWN_FOR", "PAIR_QUEUE", "GuessLimit"]

KNOWN_FOR: Final = 86400.0
"""
Seconds for which a pair of user and network stays known after its last login.
"""

PAIR_QUEUE: Final = 1000
"""
The most turns that a login of a known pair waits; L{kaproto.security.suspects.QUEUE} is the same
for other logins.  The queue of a known pair is also this many times as fast as other queues.
"""

_SLACK: Final = 0.1
"""
Seconds by which a turn of a known pair may be late without delaying the turns after it.  These
turns are a millisecond apart, and a turn of the reactor is often longer than that.
"""


class GuessLimit:
    """
    Decides when each login may be checked.  Times are monotonic seconds, passed in.

    Call L{enter} for each login.  It is granted at once, or by a later call of L{turns}.  Then call
    L{answered} after each reply of the server, and L{succeeded}, L{failed} or L{forget} at the end.
    The caller must hold the lock of the books.

    @ivar guesses: logins wait after this many failures within L{WINDOW}.
    @ivar delay: seconds between two turns of a queue.
    """

    def __init__(self, guesses: int = 10, delay: float = 1.0, books: Books | None = None) -> None:
        """
        @param books: the records of logins, which several processes may share.
        """
        self.guesses = guesses
        self.delay = delay
        self._books = Books() if books is None else books
        self._suspects: dict[bytes, Suspect] = {}
        self._dues: list[tuple[float, int, Suspect]] = []
        self._numbers = count()

    def enter(self, network: str, user: str, now: float) -> Attempt:
        """
        Begin a login.

        @return: the login, which may already be C{granted}.
        """
        books = self._books
        where = self._suspect(books.networks, books.key(network))
        name = self._suspect(books.names, books.key("", user))
        pair = self._pair(network, user, now)
        attempt = Attempt(network, user, now, known=pair is not None)
        attempt.suspects = [where, name] if pair is None else [where, name, pair]
        attempt.queues = [where, name] if pair is None else [pair]
        for suspect in attempt.suspects:
            self._suspects[suspect.key] = suspect
            suspect.attempts += 1
        for suspect in attempt.queues:
            if suspect.waiting or not suspect.isFree(now, self.guesses):
                self._hold(attempt, suspect, now)
        if not attempt.waitsFor:
            self._grant(attempt, now)
        return attempt

    @property
    def nextTurn(self) -> float | None:
        """
        When to call L{turns} next; C{None} if no login waits for its turn.
        """
        while self._dues and self._dues[0][2].due != self._dues[0][0]:
            heappop(self._dues)
        return self._dues[0][0] if self._dues else None

    def turns(self, now: float) -> list[Attempt]:
        """
        Grant the logins whose turn it is.

        @return: these logins.
        """
        granted = []
        while (due := self.nextTurn) is not None and due <= now:
            suspect = heappop(self._dues)[2]
            # Another process may have taken the turn.
            if self._isDue(suspect, now):
                attempt, _ = suspect.waiting.popitem(last=False)
                attempt.waitsFor -= 1
                if not attempt.waitsFor:
                    self._grant(attempt, now)
                    granted.append(attempt)
                suspect.turnTaken(max(due, now - suspect.slack))
            suspect.due = None
            self._schedule(suspect, now)
        return granted

    def answered(self, attempt: Attempt, now: float) -> None:
        """
        The server has replied to the client's message.  The login may continue.
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
            self._books.pairs.newest(self._books.key(attempt.network, attempt.user), now)
        self._end(attempt, now)

    def failed(self, attempt: Attempt, now: float) -> None:
        """
        The password was wrong, or the client disconnected before it was checked.  A login that was
        not granted does not count as a failure: it only leaves its queues.
        """
        if attempt.granted and not attempt.ended:
            self._countFailure(attempt, now)
        self._end(attempt, now)

    def forget(self, attempt: Attempt, now: float) -> None:
        """
        The password could not be checked, through no fault of the client.
        """
        self._end(attempt, now)

    def _suspect(self, table: Table, key: bytes) -> Suspect:
        return self._suspects.get(key) or Suspect(table, key)

    def _pair(self, network: str, user: str, now: float) -> Suspect | None:
        pairs, key = self._books.pairs, self._books.key(network, user)
        row = pairs.find(key)
        if row is None or now - pairs.renewed[row] > KNOWN_FOR:
            return None
        return self._suspects.get(key) or Suspect(pairs, key, 1 / PAIR_QUEUE, PAIR_QUEUE, _SLACK)

    def _hold(self, attempt: Attempt, suspect: Suspect, now: float) -> None:
        """
        Queue a login behind a suspect.  The reason is noted for the log once per L{WINDOW}.
        """
        table, row = suspect.table, suspect.table.find(suspect.key)
        if row is not None and table.failures(row, now) >= self.guesses:
            if now - table.held[row] >= WINDOW:
                isName = table is self._books.names
                attempt.held.append(
                    f"user {attempt.user!r}" if isName else f"network {attempt.network}"
                )
            table.held[row] = now
        suspect.waiting[attempt] = None
        attempt.waitsFor += 1
        self._schedule(suspect, now)

    def _grant(self, attempt: Attempt, now: float) -> None:
        attempt.grantedAt = now
        self._books.networks.add(attempt.suspects[0].key, now - WINDOW)
        for suspect in attempt.suspects:
            row = suspect.table.find(suspect.key)
            if row is not None:
                suspect.table.letThrough(row, now)
            # A name without a row has not failed, so it is not suspected.
            if row is not None or suspect.table is self._books.networks:
                suspect.undecided += 1
                attempt.counted.append(suspect)
        for suspect in attempt.queues:
            suspect.unanswered += 1
            suspect.turnTaken(now)

    def _countFailure(self, attempt: Attempt, now: float) -> None:
        """
        Count a failure for the network, for the pair if it is known, and for the name.  A name gets
        its row with its second failure within L{WINDOW}, which then counts both.
        """
        books, (where, name, *_) = self._books, attempt.suspects
        books.networks.fail(books.networks.newest(where.key, now), now)
        before = books.failedBefore(name.key, now)
        row = books.names.find(name.key)
        if row is None and before is not None:
            row = books.names.newest(name.key, now)
            books.names.fail(row, before)
        if row is not None:
            books.names.fail(row, now)
            books.names.renewed[row] = now
        row = books.pairs.find(books.key(attempt.network, attempt.user))
        if row is not None:
            books.pairs.fail(row, now)

    def _end(self, attempt: Attempt, now: float) -> None:
        if attempt.ended:
            return
        self.answered(attempt, now)
        attempt.ended = True
        for suspect in attempt.counted:
            suspect.undecided -= 1
            row = suspect.table.find(suspect.key)
            if row is not None and attempt.grantedAt is not None:
                suspect.table.decided(row, attempt.grantedAt, now)
        for suspect in attempt.suspects:
            suspect.waiting.pop(attempt, None)
            self._schedule(suspect, now)
            self._leave(suspect, now)

    def _leave(self, suspect: Suspect, now: float) -> None:
        """
        A login of a suspect has ended.  Forget the suspect, and free its row, if nothing is left.
        """
        suspect.attempts -= 1
        if not suspect.attempts:
            del self._suspects[suspect.key]
        row = suspect.table.find(suspect.key)
        if row is not None and suspect.table is not self._books.pairs and not suspect.waiting:
            suspect.table.tidy(row, now)

    def _isDue(self, suspect: Suspect, now: float) -> bool:
        due = self._due(suspect, now)
        return due is not None and due <= now

    def _due(self, suspect: Suspect, now: float) -> float | None:
        """
        @return: when the queue of a suspect lets the next login through; C{None} if none waits, or
            the previous one has not been answered.
        """
        if suspect.waiting:
            if suspect.isFree(now, self.guesses):
                return now
            if not suspect.unanswered:
                return max(now - suspect.slack, suspect.nextTurn(now, self.delay))
        return None

    def _schedule(self, suspect: Suspect, now: float) -> None:
        """
        Compute when the queue of a suspect lets the next login through.  If that has changed, the
        previous time stays in the heap, and L{nextTurn} skips it.
        """
        due = self._due(suspect, now)
        if due is not None and due != suspect.due:
            heappush(self._dues, (due, next(self._numbers), suspect))
        suspect.due = due
