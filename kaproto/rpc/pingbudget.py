"""
How many pings a peer may send, and how many answers it may leave unread.
"""

from __future__ import annotations

from typing import Final

from kaproto.errors import PeerFlooded
from kaproto.limits import Limits

__all__ = ["PingBudget"]

_SAVED_MAX: Final = 10
"""
The most seconds for which the budget can be saved up.
"""


class PingBudget:
    """
    Counts one peer's pings.

    A peer may send C{pingBudget} pings a second.  Pings sent while this side did not read, because
    it was stalled or its buffers were full, come all at once, so what a peer does not use for some
    seconds it may use later.
    """

    __slots__ = ("_pings", "_since", "_unread")

    def __init__(self, now: float) -> None:
        self._pings = 0
        self._since = now
        self._unread = 0

    def pinged(self, now: float, limits: Limits, *, congested: bool) -> None:
        """
        A ping came.

        @param now: the time, in monotonic seconds.
        @param congested: whether the peer is behind with reading.
        @raise PeerFlooded: when the peer is over its budget, or has not read earlier answers.
        """
        elapsed = now - self._since
        if elapsed >= 1:
            self._since = now
            self._pings = -limits.pingBudget * min(int(elapsed) - 1, _SAVED_MAX)
        self._pings += 1
        if self._pings > limits.pingBudget:
            raise PeerFlooded(f"more than {limits.pingBudget} pings in a second")
        if congested:
            self._unread += 1
            if self._unread > limits.unreadPongs:
                raise PeerFlooded(f"it pings and has not read {limits.unreadPongs} answers")

    def read(self) -> None:
        """
        The peer has read everything that was written.
        """
        self._unread = 0
