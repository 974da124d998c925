"""
Judges whether a server was right to close a connection, as far as the observer can know.

The observer polls its connections.  Of a closed one it knows only that it was open at one poll and
closed at the next.  A server that may have been right in between is not called wrong, but such
cases are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import Final

import attrs

__all__ = ["Excuses", "Judge", "Tally", "Verdict"]

_ROUNDING: Final = 0.002
_GIVE_UP: Final = 3


class Verdict(Enum):
    """
    The verdict on a connection that has ended, or should have.
    """

    FOUND = "dead clients found in time"
    EARLY = "dead clients dropped too early"
    LATE = "dead clients found too late"
    NEVER = "dead clients never found"
    KILLED = "live clients dropped"
    REFUSED = "clients that could not open"
    WRONG_ANSWER = "answers that were wrong"
    NO_ANSWER = "calls without an answer"
    VAGUE = "dead clients found while nobody was looking"
    UNKNOWN = "live clients dropped after nobody had looked for too long"


_RIGHT: Final = frozenset({Verdict.FOUND, Verdict.VAGUE})


class Tally(Counter[Verdict]):
    """
    How often each verdict was given.
    """

    @property
    def wrong(self) -> dict[Verdict, int]:
        """
        The verdicts that should not have been given, with their counts.
        """
        return {
            verdict: self[verdict] for verdict in Verdict if self[verdict] and verdict not in _RIGHT
        }

    @property
    def found(self) -> int:
        """
        How many dead clients were found in time.
        """
        return self[Verdict.FOUND] + self[Verdict.VAGUE]


class Excuses:
    """
    Times in which the server could not run, through no fault of its own.
    """

    def __init__(self, spans: Iterable[tuple[float, float]] = ()) -> None:
        self._spans = list(spans)

    def add(self, begin: float, end: float) -> None:
        """
        Add a time span on the monotonic clock; it must be later than all before.
        """
        self._spans.append((begin, end))

    def within(self, begin: float, end: float) -> float:
        """
        @return: how many seconds between C{begin} and C{end} are excused.
        """
        excused = 0.0
        for first, last in reversed(self._spans):
            if last <= begin:
                break
            excused += max(0.0, min(last, end) - max(first, begin))
        return excused


@attrs.frozen
class Judge:
    """
    Judges a server.  All times are on the monotonic clock, in seconds.

    @ivar interval: seconds of silence before a ping.
    @ivar count: unanswered pings before a peer is dead.
    @ivar tolerance: seconds by which a death may be found late.
    @ivar excuses: when the server could not run.
    """

    interval: float
    count: int
    tolerance: float
    excuses: Excuses

    @property
    def death(self) -> float:
        """
        Seconds from the last byte to death.
        """
        return self.interval * (self.count + 1)

    def deadline(self, sent: float, now: float) -> float:
        """
        @param sent: when the last byte was sent.
        @param now: the current time.
        @return: when the server must have closed the connection.
        """
        return sent + self.death + self.tolerance + self.excuses.within(sent, now)

    def silent(self, before: float, after: float, looked: float, seen: float) -> Verdict:
        """
        The server has closed a connection whose client had fallen silent.

        @param before: a time just before the last byte was sent.
        @param after: a time just after that.
        @param looked: when the connection was last known to be open.
        @param seen: when it was first known to be closed.
        """
        if seen < before + self.death - _ROUNDING:
            return Verdict.EARLY
        latest = self.deadline(after, seen)
        if looked > latest:
            return Verdict.LATE
        return Verdict.FOUND if seen <= latest else Verdict.VAGUE

    def forgotten(self, after: float, looked: float) -> bool:
        """
        @param after: a time just after the last byte of a silent client was sent.
        @param looked: when its connection was last known to be open.
        @return: whether the server is so late that waiting is pointless.
        """
        return looked > self.deadline(after, looked) + _GIVE_UP * self.death

    def live(self, looked: float, seen: float) -> Verdict:
        """
        The server has closed a connection whose client had answered all pings.

        @param looked: when the client last polled, and answered everything.
        @param seen: when the connection was first known to be closed.
        """
        # The first unanswered ping was sent after that poll, and death follows C{count} intervals
        # after it.
        if seen - looked < self.interval * self.count:
            return Verdict.KILLED
        return Verdict.UNKNOWN
