"""
Delays before a worker that has ended is replaced.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LASTED", "LONGEST", "Backoff"]

LASTED: Final = 10.0
"""
Seconds after which a worker counts as working.
"""

LONGEST: Final = 30.0
"""
The most seconds until a worker is replaced.
"""

_FIRST: Final = 0.5


class Backoff:
    """
    An exponential backoff.  A worker that worked is replaced at once; workers that end soon after
    their start are replaced after half a second, one second, two, four, up to L{LONGEST}.
    """

    def __init__(self) -> None:
        self._delay = 0.0

    def ended(self, lasted: float) -> float:
        """
        A worker has ended.

        @param lasted: seconds from its start until then.
        @return: seconds until its replacement should be started.
        """
        if lasted >= LASTED:
            self._delay = 0.0
        delay = self._delay
        self._delay = min(max(_FIRST, delay * 2), LONGEST)
        return delay
