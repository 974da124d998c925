"""
Formats times for people.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

__all__ = ["elapsed", "milliseconds", "shortTime", "timeOfDay"]

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def elapsed(seconds: float) -> str:
    """
    @return: a duration in its two largest units, such as C{5d3h} or C{12s}.
    """
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        number, rest = divmod(rest, size)
        if number or parts or unit == "s":
            parts.append(f"{number}{unit}")
    return "".join(parts[:2])


def milliseconds(seconds: float | None) -> str:
    """
    @return: a short duration, such as C{0.25 ms}; a dash for C{None}.
    """
    return "-" if seconds is None else f"{seconds * 1000:.2f} ms"


def timeOfDay(seconds: float) -> str:
    """
    @param seconds: since 1970.
    @return: the time, such as C{2026-11-26 03:00:07 UTC}.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def shortTime(seconds: float, now: float) -> str:
    """
    @param seconds: since 1970.
    @param now: the current time, since 1970.
    @return: the time, such as C{03:00:07 UTC}, with the date unless it is today's.
    """
    date, _, time = timeOfDay(seconds).partition(" ")
    return time if timeOfDay(now).startswith(date) else f"{date} {time}"
