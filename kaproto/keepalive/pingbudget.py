"""
How many pings a peer may send.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PINGS_PER_SECOND", "PingBudget"]

PINGS_PER_SECOND: Final = 100
"""
How many pings a peer may send in a second.
"""

_SAVED_MAX: Final = 10


class PingBudget:
    """
    Counts one peer's pings.  Seconds in which it sends none, up to ten, are saved: pings sent while
    this side did not read, because it stalled or had a reason not to, arrive all at once.
    """

    __slots__ = ("_count", "_rate", "_since")

    def __init__(self, now: float, rate: int = PINGS_PER_SECOND) -> None:
        """
        @param now: the time, in seconds on any monotonic scale.
        @param rate: pings per second.
        """
        self._since = now
        self._rate = rate
        self._count = 0

    def spend(self, now: float) -> bool:
        """
        The peer sent a ping.

        @return: whether it may.
        """
        elapsed = now - self._since
        if elapsed >= 1:
            self._since = now
            self._count = -self._rate * min(int(elapsed) - 1, _SAVED_MAX)
        self._count += 1
        return self._count <= self._rate
