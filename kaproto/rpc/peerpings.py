"""
A peer's pings: the limit on them, and unsolicited pongs while the peer is not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall

from kaproto.errors import PeerFlooded
from kaproto.keepalive.pingbudget import PingBudget
from kaproto.rpc.shared import Shared

__all__ = ["PeerPings"]

_TOGETHER: Final = 0.05
"""
Pings less than this many seconds apart were delayed, and say nothing about the peer's interval.
"""


class PeerPings:
    """
    One peer's pings.

    While nothing is read from a peer, its pings wait behind its other messages, and it would
    declare this end dead.  L{startReassuring} sends it unsolicited pongs, which libvirt accepts as
    a sign of life.  A peer that pings every 4 s gets a pong every 2 s.
    """

    __slots__ = ("_budget", "_interval", "_last", "_sendPong", "_shared", "_timer", "_unreadPongs")

    def __init__(self, shared: Shared) -> None:
        """
        @param shared: has the clock and the limits.
        """
        self._shared = shared
        self._budget = PingBudget(shared.clock.seconds())
        self._unreadPongs = 0
        self._last: float | None = None
        self._interval: float | None = None
        self._sendPong: Callable[[], None] | None = None
        self._timer: IDelayedCall | None = None

    def received(self, *, congested: bool) -> None:
        """
        A ping arrived: record it, and check that the peer does not ping too often.

        @param congested: whether the peer is behind with reading.
        @raise PeerFlooded: when it pings more often than C{limits.pingBudget} allows, or leaves
            more than C{limits.unreadPongs} answers unread.
        """
        limits = self._shared.limits
        now = self._shared.clock.seconds()
        if not self._budget.spend(now, limits.pingBudget):
            raise PeerFlooded(f"more than {limits.pingBudget} pings in a second")
        if self._last is not None and now - self._last >= _TOGETHER:
            gap = now - self._last
            self._interval = min(gap, self._interval or gap)
        self._last = now
        if congested:
            self._unreadPongs += 1
            if self._unreadPongs > limits.unreadPongs:
                raise PeerFlooded(f"it pings, but has left {limits.unreadPongs} pongs unread")

    def answersRead(self) -> None:
        """
        The peer has read everything that was written to it.
        """
        self._unreadPongs = 0

    def startReassuring(self, sendPong: Callable[[], None], *, asked: bool) -> None:
        """
        The peer is not read from now on: send it pongs, two in each of its intervals, or one each
        second if it has not pinged twice.  A peer that neither asked for keepalive nor pinged gets
        none, because they would break a client without an event loop.

        @param asked: whether it asked for keepalive.
        """
        if self._timer is None and (asked or self._last is not None):
            self._sendPong = sendPong
            self._schedule()

    def stopReassuring(self) -> None:
        """
        The peer is read again, or gone.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._sendPong = None

    def _schedule(self) -> None:
        pause = 1.0 if self._interval is None else self._interval / 2
        self._timer = self._shared.clock.callLater(pause, self._reassure)

    def _reassure(self) -> None:
        assert self._sendPong is not None, "the timer runs only while it is set"
        self._schedule()
        self._sendPong()
