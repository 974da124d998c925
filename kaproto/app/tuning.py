"""
Keeps turns of the reactor short with many clients: adjusts Python and Twisted for a process that
runs one server.

Two things make a turn long with ten thousand clients.  First, Twisted's epoll reactor serves all
ready connections in one turn.  If all clients call, or leave, at the same moment, that takes a
second, in which no ping is sent and no timer fires.  Second, a full garbage collection traverses
every object.  That takes a tenth of a second or more, and frees almost nothing, because reference
counting frees a closed connection at once.
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
The most file descriptors served in one turn.  The others are served first in the next turn.
"""


_FOR_EVER: Final = -1


class _Poller(Protocol):
    """
    The methods of C{select.epoll} that the reactor uses.
    """

    def poll(self, timeout: float, most: int, /) -> list[tuple[int, int]]:
        """
        Wait until some descriptors are ready.
        """

    def register(self, descriptor: int, events: int, /) -> None:
        """
        Add a descriptor.
        """

    def modify(self, descriptor: int, events: int, /) -> None:
        """
        Change the events of a descriptor.
        """

    def unregister(self, descriptor: int, /) -> None:
        """
        Remove a descriptor.
        """


class _EPollReactor(Protocol):
    """
    The members of Twisted's epoll reactor that L{_FewAtATime} uses.
    """

    _selectables: Mapping[int, object]
    _justStopped: bool

    def _doReadOrWrite(self, selectable: object, descriptor: int, event: int) -> None:
        """
        Let a descriptor read or write.  Errors are logged, and close it.
        """

    def timeout(self) -> float | None:
        """
        @return: seconds until the next timed call; C{None} if there is none.
        """


class _FewAtATime:
    """
    An C{epoll} that reports at most L{MAX_EVENTS} descriptors at a time.  The kernel reports the
    remaining ones first the next time, so no descriptor starves.

    It also serves the descriptors itself.  The reactor would set a log context for
    C{twisted.python.log} around each one, which takes five more function calls.

    While a L{DirectReader} is the only readable descriptor, L{poll} keeps reading it and does not
    return to the reactor, until the next timed call is due.  This saves the turns in which the
    reactor would find no timed call to run.
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
                self._serve(events)
                return []
            reader.doRead()
            nextCall = reactor.timeout()
            timeout = until - time.monotonic()
            if nextCall is not None and nextCall < timeout:
                timeout = nextCall
            if timeout <= 0 or reactor._justStopped:
                return []
            if timeout == inf:
                timeout = _FOR_EVER

    def _serve(self, events: list[tuple[int, int]]) -> None:
        reactor = self._reactor
        for descriptor, event in events:
            selectable = reactor._selectables.get(descriptor)
            # A descriptor served earlier in this turn may have closed this one.
            if selectable is not None:
                reactor._doReadOrWrite(selectable, descriptor, event)


def limitEventsPerTurn(reactor: object) -> None:
    """
    Make a reactor serve at most L{MAX_EVENTS} file descriptors in one turn.

    @param reactor: a reactor, which is changed only if it is Twisted's epoll reactor.
    """
    # Do not import the module: it cannot be imported on platforms without epoll.
    module: Any = sys.modules.get("twisted.internet.epollreactor")
    if module is not None and isinstance(reactor, module.EPollReactor):
        poller = getattr(reactor, "_poller", None)
        if poller is not None and not isinstance(poller, _FewAtATime):
            reactor._poller = _FewAtATime(poller, cast(_EPollReactor, reactor))


THRESHOLDS: Final = (700, 5, 1)
"""
The arguments of C{gc.set_threshold}.  Full collections are frequent, so each traverses few objects.
"""

_LOOK_EVERY: Final = 60.0
_FULL: Final = 2


class GCTuning:
    """
    Lets each object be traversed by only one full collection, and freezes the survivors
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
        Whether it is in effect.
        """
        return self._loop.running

    def start(self) -> None:
        """
        Freeze all objects, and from now on the survivors of each full collection.
        """
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._collected)
        self._sweep()
        self._loop.start(_LOOK_EVERY, now=False)

    def stop(self) -> None:
        """
        Restore the collector's settings.
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
