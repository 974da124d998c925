"""
Signs of life that a peer's messages do not show, found in the counters of the layers beneath.

A peer on a slow line can take longer over one TLS record than a dead one is given.  Its bytes have
arrived, and no protocol can be told of them before the record is complete.

A peer that reads slowly gets a ping only after everything that was written in front of it.  It has
not been asked before.  For example, at interval 1 and count 2, with a reply of 3 MB that the peer
reads at 1 MB a second:

 - 0 s: the reply is written, 1 s: a ping.
 - 2 s: a second ping would be due.  2,000,000 bytes are acknowledged and 1,000,028 queued, so all
   that was written ends at 3,000,028.  The peer lives, and has not been asked.
 - 3 s: all are acknowledged.  From now on the peer's silence is judged as ever: a second ping goes
   out at 5 s, and at 6 s the peer is dead.

Had it stopped reading at 1.5 s, nothing would have been acknowledged since, and it would be dead at
4.5 s.  That the pings themselves are taken means nothing, since the kernel takes them for a program
that is stopped.

No clock is read here and nothing is looked at.  The caller says what time it is and what it found.
"""

from __future__ import annotations

from math import inf
from typing import Final

from kaproto.keepalive.kernel import Delivery

__all__ = ["PINGS", "PINGS_MEMORY", "ROUNDING", "Progress"]

PINGS: Final = 256
"""
So few bytes in the queue are no more than pings, be it over TLS.
"""

PINGS_MEMORY: Final = 4096
"""
The memory that Linux takes for so many bytes on a UNIX socket: some 800 for each ping.
"""

ROUNDING: Final = 0.05
"""
Seconds by which the kernel's times may be off: it counts in ticks, of 0.01 s at most.
"""


class Progress:
    """
    What was found at one peer since it left a ping unanswered.

    @ivar takenAt: when the peer last took bytes that were written in front of the ping; C{-inf} if
        it did not as far as is known.
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
        Find out when the peer's latest bytes came, read or not, half a TLS record included.

        @param found: the kernel's counters, C{None} if there are none.
        @param received: how many bytes the TLS layer has received, C{None} if there is no such
            layer or it does not count.
        @return: the time, or as late as it may have been; C{-inf} if none came as far as is known.
        """
        if found is not None and found.silence is not None:
            return now - found.silence
        before, self._received = self._received, received
        return -inf if before is None or before == received else now

    def isAsked(self, now: float, found: Delivery, sent: int, *, isHeldBack: bool) -> bool:
        """
        Find out whether the peer's side has taken all that was written in front of the ping, and
        set L{takenAt}.

        @param found: the kernel's counters.
        @param sent: how many bytes the kernel was given, where it does not count those that are
            acknowledged; from any point on.
        @param isHeldBack: whether the ping has not been written yet.
        """
        if self._isAsked:
            return True
        taken, small = found.acknowledged, PINGS
        if taken is None:
            taken = sent - (found.queued - found.unsent)
            small = PINGS_MEMORY
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
    @return: seconds since the peer took bytes, at the least.  With a full window nothing is in
        flight, and what is acknowledged are probes; bytes were taken when some were last sent.
    """
    return found.sinceAcknowledged if found.inFlight else found.sinceSent
