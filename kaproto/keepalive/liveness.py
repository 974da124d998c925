"""
Liveness: the arithmetic of pings and silence for one peer.

This module reads no clock and sends nothing.  The caller passes the time, in seconds on any
monotonic scale, and acts on the verdict.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from kaproto.errors import KeepAliveTimeout

__all__ = ["INTERVAL_MAX", "NETWORK_INTERVAL_MIN", "KeepAlive", "Liveness", "Verdict"]

INTERVAL_MAX: Final = 2147483
"""
The longest interval, in seconds: libvirt refuses longer ones, whose milliseconds overflow an int.
"""

NETWORK_INTERVAL_MIN: Final = 0.1
"""
The shortest interval, in seconds, at which a client may ping a server over a network.  Servers drop
clients that ping too often (kaproto's, more than 100 times a second), and after a stall of the
network all pings arrive at once.
"""


class Verdict(Enum):
    """
    The result of L{Liveness.check}.
    """

    WAIT = "nothing is due yet"
    PING = "send a ping now"
    DEAD = "the peer is dead"


def _checkInterval(_instance: object, _attribute: object, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"interval is a number of seconds, not {value!r}")
    if not 0 <= value <= INTERVAL_MAX:
        raise ValueError(f"interval is from 0 to {INTERVAL_MAX} seconds, not {value!r}")


def _checkCount(_instance: object, _attribute: object, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"count is a whole number of pings, not {value!r}")
    if value < 0:
        raise ValueError(f"count is 0 or more pings, not {value!r}")


@attrs.frozen
class KeepAlive:
    """
    The interval and count of keepalive: the two arguments of C{virConnectSetKeepAlive}.

    @ivar interval: seconds of silence before a ping.
    @ivar count: unanswered pings in a row after which the peer is dead, C{interval * (count + 1)}
        seconds after its last byte.
    @raise TypeError: when interval is not a number or count not a whole number.
    @raise ValueError: when either is negative, or the interval is NaN or above L{INTERVAL_MAX}.
    """

    interval: float = attrs.field(default=5, validator=_checkInterval)
    count: int = attrs.field(default=5, validator=_checkCount)

    @property
    def enabled(self) -> bool:
        """
        Whether the peer is pinged at all: a zero in either means no keepalive.
        """
        return bool(self.interval and self.count)

    def checkForNetwork(self) -> None:
        """
        @raise ValueError: when the interval is below L{NETWORK_INTERVAL_MIN} and not 0.
        """
        if 0 < self.interval < NETWORK_INTERVAL_MIN:
            raise ValueError(
                f"interval is 0 or at least {NETWORK_INTERVAL_MIN:g} seconds, so that the server "
                f"does not take the pings for a flood, not {self.interval!r}"
            )


# Looking up a member of an enumeration takes longer than a global name.
_WAIT: Final = Verdict.WAIT
_PING: Final = Verdict.PING
_DEAD: Final = Verdict.DEAD


class Liveness:
    """
    Whether one peer is alive.

    Any byte heard is a sign of life and acknowledges every ping sent before it.  Bytes that this
    side sends never count.

    @ivar interval: seconds of silence before a ping; 0 while the peer is not watched.
    @ivar count: the most pings that may be unanswered.
    @ivar heard: when the last byte arrived.  This and C{unanswered} are public because the receive
        path of thousands of peers sets them without the cost of a call.
    @ivar unanswered: pings sent since the last byte arrived.
    @ivar pausedAt: when this side stopped reading from the peer; C{None} while it reads.
    """

    __slots__ = ("_due", "count", "heard", "interval", "pausedAt", "unanswered")

    def __init__(self, now: float) -> None:
        """
        @param now: the time at which the peer connected.  The peer counts as heard then.
        """
        self.interval: float = 0
        self.count = 0
        self.heard = now
        self.unanswered = 0
        self._due = now
        self.pausedAt: float | None = None

    def start(self, keepAlive: KeepAlive) -> None:
        """
        Start watching the peer, or change interval and count.  Silence so far counts towards the
        first ping.

        @raise ValueError: when C{keepAlive} has a zero and so is not enabled.
        """
        if not keepAlive.enabled:
            raise ValueError(f"{keepAlive} has nothing to start; use stop()")
        self.interval, self.count = keepAlive.interval, keepAlive.count
        self.unanswered = 0

    def stop(self) -> None:
        """
        Stop watching.
        """
        self.interval = 0

    def hear(self, now: float) -> None:
        """
        Bytes of any kind arrived from the peer.
        """
        self.heard = now
        self.unanswered = 0

    def takes(self, now: float, takenAt: float) -> Verdict:
        """
        The peer has not taken all bytes written before the oldest unanswered ping, so that ping has
        not reached it, and no further ping is sent.

        @param takenAt: the time when it last took some of these bytes, which is a sign of life.
        @return: L{Verdict.DEAD} if the last sign of life is too long ago, else L{Verdict.WAIT}.
        """
        self.heard = max(self.heard, takenAt)
        self.unanswered = 1
        death = self.heard + self.interval * (self.count + 1)
        self._due = min(now + self.interval, death)
        return Verdict.WAIT if now < death else Verdict.DEAD

    def tookAll(self, takenAt: float) -> None:
        """
        The peer has taken the oldest unanswered ping and everything written before it.  Its silence
        counts from C{takenAt} on.
        """
        self.heard = max(self.heard, takenAt)
        self.unanswered = 1
        self._due = self.heard + 2 * self.interval

    def due(self) -> float:
        """
        @return: when to call L{check} next, if nothing is heard until then.
        """
        return self._due if self.unanswered else self.heard + self.interval

    def check(self, now: float) -> Verdict:
        """
        Decide what to do about the peer.

        After a late ping, the next ping, or the peer's death, is at least half an interval away, so
        a late check never counts two intervals at once.

        @param now: the time.  If it is earlier than C{heard}, because the caller's time went back,
            the peer counts as heard just now.
        @return: the verdict; L{Verdict.PING} counts as a ping sent.
        """
        self.heard = min(self.heard, now)
        due = self._due if self.unanswered else self.heard + self.interval
        if now < due or self.pausedAt is not None or not self.interval:
            return _WAIT
        if self.unanswered >= self.count:
            return _DEAD
        self.unanswered += 1
        self._due = max(due, now - self.interval / 2) + self.interval
        return _PING

    def pause(self, now: float) -> None:
        """
        This side stops reading from the peer, whose silence proves nothing until L{resume}.
        """
        if self.pausedAt is None:
            self.pausedAt = now

    def resume(self, now: float) -> None:
        """
        This side reads again.  The silence before the pause still counts.
        """
        if self.pausedAt is not None:
            self.heard += max(0, now - max(self.pausedAt, self.heard))
            self._due += max(0, now - self.pausedAt)
            self.pausedAt = None

    def timeout(self, now: float) -> KeepAliveTimeout:
        """
        @return: the error for the peer's death.
        """
        return KeepAliveTimeout(self.interval, self.count, now - self.heard)
