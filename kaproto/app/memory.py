"""
Returns freed memory to the system.

The C library returns memory only from the end of its heap, which is usually still in use.
OpenSSL allocates from this heap: 3,000 TLS clients took 93 MiB, and the process kept all of it
after they had left.  C{malloc_trim} of glibc returned the free pages in 7 ms, and left 12 MiB.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

__all__ = ["WORTHWHILE", "MemoryTrimmer", "trimMemory"]

WORTHWHILE: Final = 100
"""
Memory is returned only after at least this many connections have ended.
"""


def trimMemory() -> None:
    """
    Return free pages to the system, if the C library is glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryTrimmer:
    """
    Returns memory after many clients have left: when at least L{WORTHWHILE} connections, and at
    least as many as are open now, have ended since the last time.
    """

    def __init__(self, trim: Callable[[], None] = trimMemory) -> None:
        self._trim = trim
        self._ended = 0

    def look(self, present: int, ended: int) -> None:
        """
        Return memory if enough connections have ended.

        @param present: the number of open connections.
        @param ended: the number of connections that ended since the process was started.
        """
        if ended - self._ended >= max(WORTHWHILE, present):
            self._ended = ended
            self._trim()
