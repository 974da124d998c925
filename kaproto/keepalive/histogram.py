"""
How long answers to pings took, as counts that cost next to nothing to keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["SENT", "SUM", "Histogram"]

SUM: Final = 64
"""
Where in a L{Histogram} the sum is.
"""

SENT: Final = 65
"""
Where it has the number of pings sent.
"""


class Histogram(list[int]):
    """
    Round trips, counted by the bits in their microseconds.

    C{histogram[n]} counts those of less than C{2**n} and at least C{2**(n-1)} microseconds, so
    that 250 us are counted by C{histogram[8]}; C{histogram[SUM]} is the sum of all, in
    microseconds, and C{histogram[SENT]} the number of pings, answered or not.  It is a list, so
    that L{kaproto.keepalive.idlereader.IdleReader} can count without the cost of a call.
    """

    def __init__(self) -> None:
        super().__init__([0] * (SENT + 1))

    def add(self, seconds: float) -> None:
        """
        Count a round trip.
        """
        micros = int(seconds * 1e6)
        self[micros.bit_length()] += 1
        self[SUM] += micros

    @property
    def total(self) -> int:
        """
        How many round trips there were.
        """
        return sum(self[:SUM])

    @property
    def sent(self) -> int:
        """
        How many pings were sent.
        """
        return self[SENT]

    @property
    def sum(self) -> float:
        """
        How long all of them took, in seconds.
        """
        return self[SUM] / 1e6

    def cumulative(self, first: int, last: int) -> Iterator[tuple[float, int]]:
        """
        Read the counts as Prometheus wants them.

        @param first: the bits of the smallest bound.
        @param last: the bits of the largest.
        @return: bounds in seconds, each with the number of round trips that took less.
        """
        below = sum(self[:first])
        for bits in range(first, last + 1):
            below += self[bits]
            yield 2**bits / 1e6, below
