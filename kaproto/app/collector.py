"""
Keeps Python's garbage collector from holding up a server with many clients.

A full collection looks at every object that there is: with ten thousand clients it takes a tenth of
a second and more, during which nobody is served.  It finds next to nothing, because a client's
connection that has ended is freed at once, without a collector, and of a gateway's to libvirtd only
what Twisted knows of it remains for the collector.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

__all__ = ["THRESHOLDS", "GCTuning"]

THRESHOLDS: Final = (700, 5, 1)
"""
What C{gc.set_threshold} gets: full collections come often, so that each has little to look at.
"""

_LOOK_EVERY: Final = 60.0
_FULL: Final = 2


class GCTuning:
    """
    Has each object looked at by one full collection only: what survives it is set aside
    (C{gc.freeze}).  What is set aside is looked at again when no client is there to be held up,
    or else when it has doubled, so that what nobody refers to never is the larger part of it.
    """

    def __init__(self, clock: IReactorTime, isBusy: Callable[[], bool]) -> None:
        """
        @param clock: the reactor.
        @param isBusy: whether there are clients.
        """
        self._isBusy = isBusy
        self._frozen = 0
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._thresholds = gc.get_threshold()
        self._setAside = False

    @property
    def running(self) -> bool:
        """
        Whether it has been started, and not stopped since.
        """
        return self._loop.running

    def start(self) -> None:
        """
        Set aside what there is, and from now on what every full collection leaves.
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
            self._setAside = True

    def _look(self) -> None:
        if self._setAside and (not self._isBusy() or gc.get_freeze_count() > 2 * self._frozen):
            self._sweep()

    def _sweep(self) -> None:
        gc.unfreeze()
        gc.collect()
        self._frozen = gc.get_freeze_count()
        self._setAside = False
