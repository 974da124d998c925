"""
A log that nobody reads: C{twistd --logger=silence.observer}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import LogEvent


def observer() -> Callable[[LogEvent], None]:
    """
    @return: takes events, and writes nothing.
    """
    return lambda _event: None
