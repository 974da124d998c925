"""
A reactor that serves a few connections at a time, so that nobody has to wait for a crowd.

Twisted's epoll reactor takes all that is ready in one turn.  When ten thousand clients call, or
go, at the same moment, that is a turn of a second, in which no ping is sent and no timer fires.
"""

from __future__ import annotations

import sys
from typing import Any, Final, Protocol

__all__ = ["MAX_EVENTS", "limitEventsPerTurn"]

MAX_EVENTS: Final = 32
"""
How many file descriptors are served in a turn.  The others are the first of the next.
"""


class _Poller(Protocol):
    """
    The slice of C{select.epoll} that the reactor uses.
    """

    def poll(self, timeout: float, most: int, /) -> list[tuple[int, int]]:
        """
        Wait.
        """

    def register(self, descriptor: int, events: int, /) -> None:
        """
        Wait for it, too.
        """

    def modify(self, descriptor: int, events: int, /) -> None:
        """
        Wait for something else of it.
        """

    def unregister(self, descriptor: int, /) -> None:
        """
        Wait for it no more.
        """


class _FewAtATime:
    """
    An C{epoll} that tells of L{MAX_EVENTS} file descriptors at a time.  The kernel begins the next
    time with those that had to wait, so that each has its turn.
    """

    def __init__(self, poller: _Poller) -> None:
        self._poll = poller.poll
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister

    def poll(self, timeout: float, most: int, /) -> list[tuple[int, int]]:
        return self._poll(timeout, min(most, MAX_EVENTS))


def limitEventsPerTurn(reactor: object) -> None:
    """
    Have a reactor serve no more than L{MAX_EVENTS} file descriptors in one turn.

    @param reactor: one that is not Twisted's epoll reactor is left alone.
    """
    # Where there is no epoll, the module cannot be imported.
    module: Any = sys.modules.get("twisted.internet.epollreactor")
    if module is not None and isinstance(reactor, module.EPollReactor):
        poller = getattr(reactor, "_poller", None)
        if poller is not None and not isinstance(poller, _FewAtATime):
            reactor._poller = _FewAtATime(poller)
