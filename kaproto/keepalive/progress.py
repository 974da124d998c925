"""
Signs of life below the messages: the counters of the TLS layer and the kernel.

On a slow line, one TLS record can take longer to arrive than the keepalive timeout.  Its bytes
arrive, but the protocol gets none of them before the record is complete.

A peer that reads slowly receives a ping only after everything written before it.  Its silence until
then proves nothing.  For example, at interval 1 and count 2, with a reply of 3 MB that the peer
reads at 1 MB a second:

 - 0 s: the reply is written, 1 s: a ping.
 - 2 s: a second ping would be due.  2,000,000 bytes are acknowledged and 1,000,028 queued, so
   everything written ends at byte 3,000,028.  The peer is alive, and the first ping has not reached
   it.
 - 3 s: all bytes are acknowledged.  From now on the peer's silence counts as usual: a second ping
   is sent at 5 s, and at 6 s the peer is dead.

If it stopped reading at 1.5 s, nothing would be acknowledged after that, and it would be dead at
4.5 s.  Acknowledged pings prove nothing, because the kernel accepts them even for a stopped
program.

This module reads no clock and no socket.  The caller passes the time and the counters.
"""

from __future__ import annotations

from math import inf
from typing import Final

from kaproto.keepalive.kernel import Delivery

__all__ = ["PINGS", "PINGS_MEMORY", "ROUNDING", "Progress"]

PINGS: Final = 256
"""
If at most this many bytes are queued, they are only pings, even over TLS.
"""

PINGS_MEMORY: Final = 4096
"""
The memory that Linux uses for that many bytes on a UNIX socket: about 800 bytes for each ping.
"""

ROUNDING: Final = 0.05
"""
The error of the kernel's times, in seconds: it counts in ticks of at most 0.01 s.
"""


class Progress:
    """
    The progress of one peer since it left a ping unanswered.

    @ivar takenAt: the time when the peer last took bytes written before the ping; C{-inf} if it is
        not known to have taken any.
    """

    __slots__ = ("_end", "_isAsked", "_lookedAt", "_received", "_taken", "takenAt")

    def __init__(self) -> None:
        self.takenAt = -inf
        self._received: int | None = None
        self._lookedAt = -inf
        self._taken = 0
        self._end: int | None = None
        self._isAsked = False

    def heardAt(self, now: float, found: Delivery | None, received: int | None) -> float:
        """
        Find the time when the peer's latest bytes arrived, read or unread, including parts of TLS
        records.

        @param found: the kernel's counters, C{None} if there are none.
        @param received: the number of bytes that the TLS layer has received; C{None} without a TLS
            layer, or if it does not count them.
        @return: the time, or the latest possible time; C{-inf} if no bytes are known to have
            arrived.
        """
        if found is not None and found.silence is not None:
            return now - found.silence
        before, self._received = self._received, received
        return -inf if before is None or before == received else now

    def isAsked(self, now: float, found: Delivery, sent: int, *, isHeldBack: bool) -> bool:
        """
        Check whether the peer's side has taken everything written before the ping, and set
        L{takenAt}.

        @param found: the kernel's counters.
        @param sent: the number of bytes passed to the kernel since any fixed time, if the kernel
            does not count acknowledged bytes.
        @param isHeldBack: whether the ping has not been written yet.
        """
        if self._isAsked:
            return True
        taken, small = found.acknowledged, PINGS
        if taken is None:
            taken = sent - (found.queued - found.unsent)
            small = PINGS_MEMORY
        # The position in the stream where everything written so far ends.  The first call remembers
        # it, because the ping is before it.  While the ping is held back, the position moves on.
        end = taken + found.queued
        if self._end is None:
            self._end = end
            progressed = found.queued > small
        else:
            progressed = taken > self._taken
        self._taken = taken
        if isHeldBack:
            self._end = end
        self._isAsked = not isHeldBack and self._end - self._taken <= small
        if progressed:
            self.takenAt = max(self._lookedAt, now - _sinceTaken(found))
        self._lookedAt = now
        return self._isAsked


def _sinceTaken(found: Delivery) -> float:
    """
    @return: the minimum number of seconds since the peer took bytes.  While the window is full
        nothing is in flight, and acknowledgements answer window probes; the peer last took bytes
        when some were last sent.
    """
    return found.sinceAcknowledged if found.inFlight else found.sinceSent
