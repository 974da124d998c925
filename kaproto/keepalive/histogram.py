"""
A histogram of the round trips of pings, cheap enough to update for every pong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["SENT", "SUM", "Histogram"]

SUM: Final = 64
"""
The index of the sum in a L{Histogram}.
"""

SENT: Final = 65
"""
The index of the number of pings sent.
"""


class Histogram(list[int]):
    """
    Counts round trips by the number of bits in their microseconds.

    C{histogram[n]} counts round trips of at least C{2**(n-1)} and less than C{2**n} microseconds:
    one of 250 us is counted in C{histogram[8]}.  C{histogram[SUM]} is the sum of all round trips,
    in microseconds, and C{histogram[SENT]} the number of pings, answered or not.  A histogram is a
    list, so that L{kaproto.keepalive.idlereader.IdleReader} can count without a method call.
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
        The number of round trips.
        """
        return sum(self[:SUM])

    @property
    def sent(self) -> int:
        """
        The number of pings sent.
        """
        return self[SENT]

    @property
    def sum(self) -> float:
        """
        The sum of all round trips, in seconds.
        """
        return self[SUM] / 1e6

    def cumulative(self, first: int, last: int) -> Iterator[tuple[float, int]]:
        """
        Convert the counts to the cumulative buckets of Prometheus.

        @param first: the number of bits of the smallest bound.
        @param last: the number of bits of the largest bound.
        @return: bounds in seconds, each with the number of round trips that took less.
        """
        below = sum(self[:first])
        for bits in range(first, last + 1):
            below += self[bits]
            yield 2**bits / 1e6, below
