"""
Converts monotonic times to the time of day.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["WallClock"]

_STEP: Final = 0.5


class WallClock:
    """
    Times are recorded in monotonic seconds, which do not change when the wall clock is set, and
    converted to a time of day when they are shown.

    The same moment always gives the same time of day, to the last digit, until the wall clock is
    set by more than half a second.  Then all times of day shift with it.
    """

    def __init__(self, seconds: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        """
        @param seconds: the monotonic clock.
        @param wall: the wall clock, in seconds since 1970.
        """
        self._seconds = seconds
        self._wall = wall
        self._offset = wall() - seconds()

    def timeOfDay(self, moment: float) -> float:
        """
        @param moment: in monotonic seconds.
        @return: in seconds since 1970.
        """
        offset = self._wall() - self._seconds()
        if abs(offset - self._offset) > _STEP:
            self._offset = offset
        return moment + self._offset
