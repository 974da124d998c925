"""
Suspects of password guessing: networks, user names and pairs of both, each with a queue of this
process's logins.  L{kaproto.security.guessing} has the rules.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import Final

import attrs

from kaproto.security.loginbooks import Table

__all__ = ["QUEUE", "Attempt", "Suspect"]

QUEUE: Final = 100
"""
The most turns that a login waits in a queue.
"""


@attrs.define(eq=False)
class Suspect:
    """
    A network, a user name, or a known pair of both, with its queue.

    @ivar table: the table that counts its failures.
    @ivar key: its key in the table.
    @ivar pace: the time between two turns, as a fraction of the usual time.
    @ivar longest: the most turns that a login waits in the queue.
    @ivar slack: seconds by which a turn may be late without delaying the turns after it.
    @ivar attempts: logins that have not ended.
    @ivar undecided: logins that were let through and have not ended.  They count as failures until
        they succeed; otherwise a thousand simultaneous guesses would all get through.
    @ivar unanswered: logins that this queue has let through and the server has not replied to.
    @ivar waiting: the queue, first come first served.
    @ivar last: when this queue last let a login through.
    @ivar due: when this queue will let the next login through; C{None} if none waits, or while the
        previous one is unanswered.
    """

    table: Table
    key: bytes
    pace: float = 1.0
    longest: int = QUEUE
    slack: float = 0.0
    attempts: int = 0
    undecided: int = 0
    unanswered: int = 0
    waiting: OrderedDict[Attempt, None] = attrs.field(factory=OrderedDict)
    last: float = attrs.field(init=False)
    due: float | None = None

    def __attrs_post_init__(self) -> None:
        self.last = self._lastTurn(-inf)

    def _lastTurn(self, unknown: float) -> float:
        row = self.table.find(self.key)
        return unknown if row is None else self.table.turn[row]

    def isFree(self, now: float, guesses: int) -> bool:
        """
        @return: whether the failed and undecided logins are so few that no login has to wait.
        """
        row = self.table.find(self.key)
        if row is None:
            # Other suspects may have replaced its row.  Logins that wait then keep their turns.
            return not self.waiting and self.undecided < guesses
        undecided = max(self.undecided, self.table.undecided(row, now))
        return self.table.failures(row, now) + undecided < guesses

    def turnTaken(self, now: float) -> None:
        """
        Record that a login was let through, for this queue and for those of other processes.
        """
        self.last = now
        row = self.table.find(self.key)
        if row is not None:
            self.table.turn[row] = now

    def nextTurn(self, now: float, delay: float) -> float:
        """
        @param delay: seconds between two turns, in a queue of the usual speed.
        @return: when the queue lets the first login through: one turn after the previous one, in
            whichever process that was; earlier if the last one would otherwise wait for more than
            L{longest} turns.
        """
        turn = delay * self.pace
        longest = turn * self.longest
        first, last = next(iter(self.waiting)), next(reversed(self.waiting))
        # For example, 300 logins have just entered, and none may wait longer than 100 turns of a
        # second: one goes through each third of a second.  Each process speeds up for its own
        # logins, so all processes together are as fast as one with all the logins.
        hurried = (last.entered + longest - now) / len(self.waiting)
        return min(self._lastTurn(self.last) + turn, self.last + hurried, first.entered + longest)


@attrs.define(eq=False)
class Attempt:
    """
    One login.

    @ivar network: the client's network.
    @ivar user: the user name given.
    @ivar entered: when it began, in monotonic seconds.
    @ivar known: whether the user has logged in from the network within a day.
    @ivar grantedAt: when it was let through to the password check; C{None} before that.
    @ivar held: the reasons to log for its waiting, such as C{"network 192.0.2.1"}.  Each is set
        only for the first login within L{kaproto.security.loginbooks.WINDOW} that waits for it.
    @ivar suspects: its network, its user name, and the pair of both if that is known.
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
    grantedAt: float | None = None
    held: list[str] = attrs.field(factory=list)
    suspects: list[Suspect] = attrs.field(factory=list, repr=False)
    counted: list[Suspect] = attrs.field(factory=list, repr=False)
    queues: list[Suspect] = attrs.field(factory=list, repr=False)
    waitsFor: int = attrs.field(default=0, repr=False)
    answered: bool = attrs.field(default=False, repr=False)
    ended: bool = attrs.field(default=False, repr=False)

    @property
    def granted(self) -> bool:
        """
        Whether the password may be checked.
        """
        return self.grantedAt is not None
