"""
Whether a server was right to close a connection, as far as the one who watches it can know.

Whoever watches looks at its connections now and then.  It knows of a connection that was closed
only that it was open when it last looked and is closed now.  Nothing is called wrong that may have
been right in between, but how often that was needed is counted.
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
    What is to be said of a connection that has ended, or should have.
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
        Those that should not have been given at all.
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
    Spans of time in which the server could do nothing, by no fault of its own.
    """

    def __init__(self, spans: Iterable[tuple[float, float]] = ()) -> None:
        self._spans = list(spans)

    def add(self, begin: float, end: float) -> None:
        """
        Add a span, on the monotonic clock, which is later than all that were added before.
        """
        self._spans.append((begin, end))

    def within(self, begin: float, end: float) -> float:
        """
        @return: how many seconds of a time were excused.
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
    Judges by what a server has promised.  All times are on the monotonic clock, in seconds.

    @ivar interval: seconds of silence before a ping.
    @ivar count: pings unanswered before a peer is dead.
    @ivar tolerance: seconds by which a death may be found late.
    @ivar excuses: when the server could do nothing.
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
        @param sent: when the last byte had been sent.
        @return: when the server must have closed the connection.
        """
        return sent + self.death + self.tolerance + self.excuses.within(sent, now)

    def silent(self, before: float, after: float, looked: float, seen: float) -> Verdict:
        """
        The server has closed a connection whose client had fallen silent.

        @param before: when the last byte had not been sent yet.
        @param after: when it had.
        @param looked: when the connection was last known to be open.
        @param seen: when it was known to be closed.
        """
        if seen < before + self.death - _ROUNDING:
            return Verdict.EARLY
        latest = self.deadline(after, seen)
        if looked > latest:
            return Verdict.LATE
        return Verdict.FOUND if seen <= latest else Verdict.VAGUE

    def forgotten(self, after: float, looked: float) -> bool:
        """
        @param after: when the last byte of a silent client had been sent.
        @param looked: when its connection was last known to be open.
        @return: whether there is no use in waiting any longer for it to be found.
        """
        return looked > self.deadline(after, looked) + _GIVE_UP * self.death

    def live(self, looked: float, seen: float) -> Verdict:
        """
        The server has closed a connection whose client had answered all that it had been asked.

        @param looked: when the client had last looked, and had answered what there was.
        @param seen: when it was known to be closed.
        """
        # The first ping that was not answered came after that look, and death so many intervals
        # after it.
        if seen - looked < self.interval * self.count:
            return Verdict.KILLED
        return Verdict.UNKNOWN
