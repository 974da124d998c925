"""
Short turns of the reactor with many clients: adjustments to Python and to Twisted for a process
that is one server.

Two things make a turn long with ten thousand clients.  Twisted's epoll reactor serves all that are
ready in one turn: when all of them call, or leave, at the same moment, that takes a second, and
meanwhile no ping is sent and no timer fires.  And a full garbage collection looks at every object:
that takes a tenth of a second and more, and finds next to nothing, because Python frees a
connection that has ended at once, without the collector.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, Protocol, cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from kaproto.directreader import DirectReader

__all__ = ["MAX_EVENTS", "THRESHOLDS", "GCTuning", "limitEventsPerTurn"]

MAX_EVENTS: Final = 32
"""
How many file descriptors are served in a turn.  The others come first in the next.
"""


_FOR_EVER: Final = -1


class _Poller(Protocol):
    """
    The slice of C{select.epoll} that the reactor uses.
    """

    def poll(self, timeout: float, most: int, /) -> list[tuple[int, int]]:
        """
        Wait until some descriptors are ready.
        """

    def register(self, descriptor: int, events: int, /) -> None:
        """
        Wait for a descriptor, too.
        """

    def modify(self, descriptor: int, events: int, /) -> None:
        """
        Wait for other events of a descriptor.
        """

    def unregister(self, descriptor: int, /) -> None:
        """
        Stop waiting for a descriptor.
        """


class _EPollReactor(Protocol):
    """
    The slice of Twisted's epoll reactor that L{_FewAtATime} uses.
    """

    _selectables: Mapping[int, object]
    _justStopped: bool

    def timeout(self) -> float | None:
        """
        @return: seconds until the next timed call; C{None} if there is none.
        """


class _FewAtATime:
    """
    An C{epoll} that reports at most L{MAX_EVENTS} descriptors at a time.  The kernel begins the
    next time with those that it did not report, so everybody gets a turn.

    When all there is to read is L{DirectReader}'s, the reactor does not need a turn: that would
    look for calls to make, of which there are none, and log contexts to enter, of which there is
    none.
    """

    def __init__(self, poller: _Poller, reactor: _EPollReactor) -> None:
        self._reactor = reactor
        self._poll = poller.poll
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister

    def poll(self, timeout: float, most: int, /) -> list[tuple[int, int]]:
        reactor = self._reactor
        most = min(most, MAX_EVENTS)
        until = time.monotonic() + timeout if timeout >= 0 else inf
        while True:
            events = self._poll(timeout, most)
            reader = reactor._selectables.get(events[0][0]) if len(events) == 1 else None
            if not isinstance(reader, DirectReader):
                return events
            reader.doRead()
            nextCall = reactor.timeout()
            timeout = until - time.monotonic()
            if nextCall is not None and nextCall < timeout:
                timeout = nextCall
            if timeout <= 0 or reactor._justStopped:
                return []
            if timeout == inf:
                timeout = _FOR_EVER


def limitEventsPerTurn(reactor: object) -> None:
    """
    Have a reactor serve at most L{MAX_EVENTS} file descriptors in one turn.

    @param reactor: is left alone unless it is Twisted's epoll reactor.
    """
    # Where there is no epoll, the module cannot be imported.
    module: Any = sys.modules.get("twisted.internet.epollreactor")
    if module is not None and isinstance(reactor, module.EPollReactor):
        poller = getattr(reactor, "_poller", None)
        if poller is not None and not isinstance(poller, _FewAtATime):
            reactor._poller = _FewAtATime(poller, cast(_EPollReactor, reactor))


THRESHOLDS: Final = (700, 5, 1)
"""
What C{gc.set_threshold} gets.  Full collections come often, so each has little to look at.
"""

_LOOK_EVERY: Final = 60.0
_FULL: Final = 2


class GCTuning:
    """
    Has each object looked at by one full collection only: what survives it is frozen
    (C{gc.freeze}).

    Frozen objects are collected when there are no clients, or when their number has doubled, so
    garbage is never more than half of them.
    """

    def __init__(self, clock: IReactorTime, isBusy: Callable[[], bool]) -> None:
        """
        @param clock: the reactor.
        @param isBusy: whether there are clients.
        """
        self._isBusy = isBusy
        self._count = 0
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._thresholds = gc.get_threshold()
        self._frozen = False

    @property
    def running(self) -> bool:
        """
        Whether it has been started, and not stopped since.
        """
        return self._loop.running

    def start(self) -> None:
        """
        Freeze all objects, and from now on those that survive a full collection.
        """
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._collected)
        self._sweep()
        self._loop.start(_LOOK_EVERY, now=False)

    def stop(self) -> None:
        """
        Have the collector work as it did before.
        """
        self._loop.stop()
        gc.callbacks.remove(self._collected)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "stop" and info["generation"] == _FULL:
            gc.freeze()
            self._frozen = True

    def _look(self) -> None:
        if self._frozen and (not self._isBusy() or gc.get_freeze_count() > 2 * self._count):
            self._sweep()

    def _sweep(self) -> None:
        gc.unfreeze()
        gc.collect()
        self._count = gc.get_freeze_count()
        self._frozen = False
