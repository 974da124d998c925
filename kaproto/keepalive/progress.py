"""
Signs of life that a peer's messages do not show, found in the counters of the layers beneath.

A peer on a slow line can take longer over one TLS record than a dead one is given.  Its bytes have
arrived, and no protocol can be told of them before the record is complete.

No clock is read here and nothing is looked at.  The caller says what time it is and what it found.
"""

from __future__ import annotations

from math import inf
from typing import Final

from kaproto.keepalive.kernel import Delivery

__all__ = ["ROUNDING", "Progress"]

ROUNDING: Final = 0.05
"""
Seconds by which the kernel's times may be off: it counts in ticks, of 0.01 s at most.
"""


class Progress:
    """
    What was found at one peer since it left a ping unanswered.
    """

    __slots__ = ("_received",)

    def __init__(self) -> None:
        self._received: int | None = None

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
