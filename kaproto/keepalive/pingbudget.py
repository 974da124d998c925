"""
Limits the pings that a peer may send.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PingBudget"]

_SAVED_MAX: Final = 10
"""
The most seconds for which a peer can save up pings.
"""


class PingBudget:
    """
    Counts one peer's pings.

    Pings sent while this side did not read, because it was stalled or its buffers were full, arrive
    all at once.  So a peer can save up pings: with 100 pings a second, a peer that was not read for
    5 s may send 500 at once.
    """

    __slots__ = ("_count", "_since")

    def __init__(self, now: float) -> None:
        """
        @param now: the time, in seconds on any monotonic scale.
        """
        self._since = now
        self._count = 0

    def spend(self, now: float, rate: int) -> bool:
        """
        The peer sent a ping.

        @param rate: pings that it may send in a second.
        @return: whether the ping is within the budget.
        """
        elapsed = now - self._since
        if elapsed >= 1:
            self._since = now
            self._count = -rate * min(int(elapsed) - 1, _SAVED_MAX)
        self._count += 1
        return self._count <= rate
