"""
Delays before a worker that has ended is replaced.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LASTED", "LONGEST", "Backoff"]

LASTED: Final = 10.0
"""
Seconds that a worker must run for its start to count as successful.
"""

LONGEST: Final = 30.0
"""
The most seconds until a worker is replaced.
"""

_FIRST: Final = 0.5


class Backoff:
    """
    An exponential backoff.  The first worker that ends, and each one that ran for L{LASTED}
    seconds, is replaced at once.  Workers after it that end sooner are replaced after half a
    second, one second, two, four, up to L{LONGEST}.
    """

    def __init__(self) -> None:
        self._delay = 0.0

    def ended(self, lasted: float) -> float:
        """
        A worker has ended.

        @param lasted: seconds that it ran.
        @return: seconds until its replacement should be started.
        """
        if lasted >= LASTED:
            self._delay = 0.0
        delay = self._delay
        self._delay = min(max(_FIRST, delay * 2), LONGEST)
        return delay
