"""
A log observer that writes nothing: C{twistd --logger=silence.observer}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import LogEvent


def observer() -> Callable[[LogEvent], None]:
    """
    @return: a log observer that discards events.
    """
    return lambda _event: None
