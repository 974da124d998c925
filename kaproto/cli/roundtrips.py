"""
Statistics of pings, like those of ping(8).
"""

from __future__ import annotations

from math import sqrt

import attrs

__all__ = ["RoundTrips"]


@attrs.define
class RoundTrips:
    """
    The results of the pings of one run.  Times are in seconds.

    @ivar sent: the number of pings sent.
    @ivar answered: the number answered.
    @ivar least: the shortest round trip.
    @ivar most: the longest round trip.
    """

    sent: int = 0
    answered: int = 0
    least: float = 0.0
    most: float = 0.0
    _sum: float = 0.0
    _squares: float = 0.0

    def add(self, seconds: float) -> None:
        """
        A ping was answered.
        """
        self.least = min(self.least, seconds) if self.answered else seconds
        self.most = max(self.most, seconds)
        self.answered += 1
        self._sum += seconds
        self._squares += seconds * seconds

    @property
    def average(self) -> float:
        """
        The mean round trip.
        """
        return self._sum / self.answered if self.answered else 0.0

    @property
    def deviation(self) -> float:
        """
        The standard deviation, which ping(8) calls mdev.
        """
        if not self.answered:
            return 0.0
        return sqrt(max(0.0, self._squares / self.answered - self.average**2))

    @property
    def loss(self) -> float:
        """
        The fraction of pings that were not answered, from 0 to 1.
        """
        return 1 - self.answered / self.sent if self.sent else 0.0
