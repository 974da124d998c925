"""
A timeout that does not run while this process is stalled or suspended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kaproto.keepalive.pacemaker import STALL

__all__ = ["PARTS", "Deadline"]

PARTS: Final = 8
"""
The number of parts into which a deadline is divided.
"""


class Deadline:
    """
    Calls a function once, after a number of seconds in which this process could read from the peer.

    The time is divided into L{PARTS} parts, each with its own timer.  A part whose timer fires late
    counts at most its own length plus L{STALL}.  For example, a deadline of 8 s has parts of 1 s;
    when the process is suspended for an hour after 3.5 s, the fourth part counts 1.25 s, and the
    deadline expires 3.75 s after the process resumes.

    After the last part, the reactor reads the bytes that wait in the socket before the function is
    called.  If they are too many for one turn of the reactor, the peer gets one more part.
    """

    __slots__ = ("_call", "_clock", "_function", "_isUnread", "_left", "_part", "_since")

    def __init__(
        self,
        clock: IReactorTime,
        seconds: float,
        function: Callable[[], object],
        isUnread: Callable[[], bool | None] = lambda: None,
    ) -> None:
        """
        @param clock: schedules calls, by the monotonic clock.
        @param seconds: the time until the deadline.
        @param function: the function to call.
        @param isUnread: whether bytes from the peer wait to be read; C{None} if it is not known.
        """
        self._clock = clock
        self._left = seconds
        self._part = seconds / PARTS
        self._function = function
        self._isUnread: Callable[[], bool | None] | None = isUnread
        self._wait()

    @property
    def left(self) -> float:
        """
        Seconds until the function is called, if this process does not stall.
        """
        return max(0.0, self._left - self._counted())

    def _counted(self) -> float:
        return min(self._clock.seconds() - self._since, self._part + STALL)

    def _wait(self) -> None:
        self._since = self._clock.seconds()
        self._call: IDelayedCall | None = self._clock.callLater(
            max(0.0, min(self._part, self._left)), self._passed
        )

    def _passed(self) -> None:
        self._left -= self._counted()
        if self._left > 0:
            self._wait()
        else:
            self._call = self._clock.callLater(0, self._expired)

    def _expired(self) -> None:
        if self._isUnread is not None and self._isUnread():
            # Only once, or a peer that never stops sending would never miss its deadline.
            self._isUnread = None
            self._left = self._part
            self._wait()
            return
        self._call = None
        self._function()

    def active(self) -> bool:
        """
        @return: whether the deadline is pending: neither expired nor cancelled.
        """
        return self._call is not None

    def cancel(self) -> None:
        """
        Cancel the deadline, if the function has not been called yet.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
