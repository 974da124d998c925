"""
Decides whether the server behind a gateway is alive, from all connections to it.

libvirtd stops reading a connection while it has C{max_client_requests} messages from it in
progress, 5 by default: unanswered calls, and stream packets that have not been consumed.  Then it
does not see pings, and a connection with five slow calls looks dead.  Other connections show
whether such a libvirtd is busy or hangs.  For example, at interval 10 and count 5:

 - 0 s: the fifth slow call is sent.
 - 10 s: libvirtd is pinged on this connection.
 - 20 s: the ping was not answered.  If another connection was heard within the last 20 s, libvirtd
   is alive; otherwise a new connection is made, the probe.
 - 60 s: all pings are unanswered.  While another connection or the probe is heard, this connection
   counts as busy and stays.
 - 80 s: if the probe has not been answered within its own 60 s, libvirtd hangs.  All connections
   that are silent with calls under way are closed.

Without calls or streams under way libvirtd does read, and a silent connection is dead.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kaproto.errors import KaprotoError
from kaproto.keepalive.liveness import KeepAlive

__all__ = ["Asking", "Upstream", "UpstreamHung", "Watched"]

_FRESH: Final = 2
"""
Intervals after a sign of life for which the server counts as alive.  A connection that the server
reads is heard once an interval.
"""

_ANSWERED: Final = 1.5
"""
Intervals within which a connection is heard if the server reads it: one, and some time to answer.
"""


class UpstreamHung(KaprotoError):
    """
    The server is connected but does nothing.
    """

    def __init__(self, silence: float, connections: int, keepAlive: KeepAlive) -> None:
        """
        @param silence: seconds since it was last heard.
        @param connections: the number of connections with calls or streams under way.
        """
        super().__init__(
            f"it hangs, or waits for storage that hangs, such as an unreachable file server: "
            f"nothing heard for {silence:.1f} s, neither on {connections} with calls or streams "
            f"under way nor on a new connection (--upstream-interval {keepAlive.interval:g} s, "
            f"--upstream-count {keepAlive.count})"
        )


class Watched(Protocol):
    """
    The part of a connection to the server that L{Upstream} uses.
    """

    @property
    def lastHeard(self) -> float:
        """
        When the server was last heard on it.
        """

    @property
    def isUnderWay(self) -> bool:
        """
        Whether a call has not been answered to the last byte, or a stream is open.
        """

    def becameBusy(self) -> None:
        """
        The server does not read this connection, but it is alive.
        """

    def hung(self, reason: UpstreamHung) -> None:
        """
        The server hangs.  Close the connection.
        """


class Asking(Protocol):
    """
    A probe: a connection made only to check whether the server is alive.
    """

    @property
    def lastHeard(self) -> float:
        """
        When the server was last heard on it; C{-inf} if it was not.
        """

    def close(self) -> None:
        """
        Disconnect.
        """


class Upstream:
    """
    A server and all connections to it.

    @ivar connections: the open connections.
    @ivar busy: the connections that the server does not read although it is alive, each with the
        time since when.
    @ivar busyTotal: how often a connection became busy.
    """

    def __init__(
        self,
        keepAlive: KeepAlive,
        clock: IReactorTime,
        now: Callable[[], float],
        makeProbe: Callable[[], Asking],
    ) -> None:
        """
        @param keepAlive: interval and count for watching the server.
        @param clock: schedules timers.
        @param now: returns the time, on the scale of C{lastHeard}.
        @param makeProbe: makes a probe.
        """
        self._keepAlive = keepAlive
        self._clock = clock
        self._now = now
        self._makeProbe = makeProbe
        self.connections: set[Watched] = set()
        self.busy: dict[Watched, float] = {}
        self.busyTotal = 0
        self._silent: set[Watched] = set()
        self._heardOnEnded = -inf
        self._probe: Asking | None = None
        self._probedAt = now()
        self._isAlive = False
        self._review: IDelayedCall | None = None

    @property
    def isProbed(self) -> bool:
        """
        Whether there is a probe.
        """
        return self._probe is not None

    def joined(self, connection: Watched) -> None:
        """
        A connection is open.
        """
        self.connections.add(connection)

    def left(self, connection: Watched) -> None:
        """
        A connection has ended.
        """
        self.connections.discard(connection)
        self.busy.pop(connection, None)
        self._silent.discard(connection)
        self._heardOnEnded = max(self._heardOnEnded, connection.lastHeard)
        if not self._silent:
            self._rest()

    def suspected(self, connection: Watched) -> None:
        """
        A connection has left a ping unanswered for an interval.
        """
        self._watch(connection)

    def excuses(self, connection: Watched) -> bool:
        """
        A connection has left all pings unanswered.

        @return: whether to keep the connection, because the server is busy or is being probed.
        """
        if not connection.isUnderWay:
            return False
        self._watch(connection)
        if self._isAlive and connection not in self.busy:
            self.busy[connection] = self._now()
            self.busyTotal += 1
            connection.becameBusy()
        return True

    def busyFor(self, connection: Watched) -> float | None:
        """
        @return: seconds for which the server has not read a connection; C{None} if it reads it.
        """
        since = self.busy.get(connection)
        return None if since is None else self._now() - since

    def _watch(self, connection: Watched) -> None:
        self._silent.add(connection)
        if self._review is None:
            self._judge()

    def _rest(self) -> None:
        if self._review is not None:
            self._review.cancel()
            self._review = None
        self._endProbe()

    def _judge(self) -> None:
        """
        Find the connections that are still silent, and whether the server was heard elsewhere.
        While some are silent, do this again when the result may change.
        """
        self._review = None
        now = self._now()
        interval = self._keepAlive.interval
        answered = now - _ANSWERED * interval
        self._silent = {
            each for each in self._silent if each.isUnderWay and each.lastHeard < answered
        }
        for each in self.busy.keys() - self._silent:
            del self.busy[each]
        if not self._silent:
            self._rest()
            return
        # If any connection was heard within the last two intervals, the server is alive.
        stale = self._lastHeard() + _FRESH * interval
        self._isAlive = now < stale
        if self._isAlive:
            self._endProbe()
            self._judgeLater(stale - now)
            return
        # Otherwise only the probe can tell: it counts from its own last sign of life.
        if self._probe is None:
            self._probedAt = now
            self._probe = self._makeProbe()
        heard = self._probe.lastHeard
        self._isAlive = heard > -inf
        dead = max(self._probedAt, heard) + interval * (self._keepAlive.count + 1)
        if now < dead:
            self._judgeLater(min(dead - now, interval))
        else:
            self._endSilent(now)

    def _judgeLater(self, delay: float) -> None:
        self._review = self._clock.callLater(delay, self._judge)

    def _lastHeard(self) -> float:
        return max(self._heardOnEnded, *(each.lastHeard for each in self.connections))

    def _endProbe(self) -> None:
        if self._probe is not None:
            self._heardOnEnded = max(self._heardOnEnded, self._probe.lastHeard)
            self._probe.close()
            self._probe = None

    def _endSilent(self, now: float) -> None:
        """
        Close the connections that are silent with calls under way, since the server hangs.
        """
        silent, self._silent = self._silent, set()
        self.busy.clear()
        reason = UpstreamHung(now - self._lastHeard(), len(silent), self._keepAlive)
        self._rest()
        for each in silent:
            each.hung(reason)
