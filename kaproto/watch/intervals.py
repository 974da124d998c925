"""
Intervals in textual control messages: seconds as decimal numbers.
"""

from __future__ import annotations

import re
from typing import Final

from kaproto.keepalive.liveness import INTERVAL_MAX

__all__ = ["INTERVAL_DIGITS", "packInterval", "readInterval"]

INTERVAL_DIGITS: Final = 16
"""
The most characters in an interval.
"""

_INTERVAL: Final = re.compile(rb"[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?")


def packInterval(interval: float) -> bytes:
    """
    @return: seconds in up to nine digits, such as C{b"0.1"}.
    """
    return b"%.9g" % interval


def readInterval(text: bytes) -> float | None:
    """
    @return: seconds; C{None} if the text is not an interval.
    """
    if len(text) > INTERVAL_DIGITS or _INTERVAL.fullmatch(text) is None:
        return None
    value = float(text)
    return value if value <= INTERVAL_MAX else None
