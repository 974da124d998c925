"""
A time by which something has to have happened, of which a stall takes next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kaproto.keepalive.pacemaker import STALL

__all__ = ["PARTS", "Deadline"]

PARTS: Final = 8
"""
How many parts a deadline is counted in.
"""


class Deadline:
    """
    Calls a function once, when enough seconds have gone by for which this process has been
    looking.  While it is suspended, or stalled in somebody's code, it cannot see what the peer
    has done in good time: of a stall, however long, no more counts than the part of the deadline
    that it fell in, and what is waiting in the sockets is read before the time is up.  Where there
    is so much of that that it is not read in one turn of the reactor, one more part is given.
    """

    __slots__ = (
        "_call",
        "_clock",
        "_function",
        "_isUnread",
        "_left",
        "_part",
        "_seconds",
        "_since",
    )

    def __init__(
        self,
        clock: IReactorTime,
        monotonic: Callable[[], float],
        seconds: float,
        function: Callable[[], object],
        isUnread: Callable[[], bool | None] = lambda: None,
    ) -> None:
        """
        @param clock: where calls are scheduled.
        @param monotonic: a monotonic clock.
        @param seconds: how long it is, from now on.
        @param function: what to call.
        @param isUnread: whether something that the peer has sent is waiting to be read, C{None}
            if that cannot be told.
        """
        self._clock = clock
        self._seconds = monotonic
        self._left = seconds
        self._part = seconds / PARTS
        self._function = function
        self._isUnread: Callable[[], bool | None] | None = isUnread
        self._wait()

    def _wait(self) -> None:
        self._since = self._seconds()
        self._call: IDelayedCall | None = self._clock.callLater(
            max(0.0, min(self._part, self._left)), self._passed
        )

    def _passed(self) -> None:
        self._left -= min(self._seconds() - self._since, self._part + STALL)
        if self._left > 0:
            self._wait()
        else:
            self._call = self._clock.callLater(0, self._expired)

    def _expired(self) -> None:
        if self._isUnread is not None and self._isUnread():
            # Only once, or a peer that sends without end would never be late.
            self._isUnread = None
            self._left = self._part
            self._wait()
            return
        self._call = None
        self._function()

    def active(self) -> bool:
        """
        @return: whether the function has yet to be called.
        """
        return self._call is not None

    def cancel(self) -> None:
        """
        Do not call the function; it need not be about to be called.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
