"""
The process that kaserver has to itself: its limits, its signals, its garbage collector, and what
systemd is told of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kaproto.app.memory import MemoryTrimmer
from kaproto.app.notify import takeEnvironment
from kaproto.app.tuning import GCTuning, limitEventsPerTurn
from kaproto.logbounds import BOUNDS

try:
    import resource
except ImportError:  # pragma: no cover - see tests.unit.app.test_process
    resource = None  # type: ignore[assignment]

__all__ = ["Controlled", "OwnProcess", "clientsFor"]

_OTHER_FILES: Final = 64
"""
Open files that are not clients', generously counted.
"""

_STATUS_EVERY: Final = 10.0
_TRIM_EVERY: Final = 30.0


class Controlled(Protocol):
    """
    What signals control.
    """

    async def reload(self) -> object:
        """
        Read files again.
        """

    def drain(self) -> None:
        """
        Accept no new clients, and stop when those that are there have left.
        """

    def status(self) -> str:
        """
        @return: how the server is, in a line.
        """

    def busy(self) -> bool:
        """
        @return: whether there are clients.
        """

    def connections(self) -> tuple[int, int]:
        """
        @return: how many connections there are, and how many have ended since the start.
        """


class OwnProcess:
    """
    A process that is one server.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401 - the reactor, of several interfaces
        """
        From now on SIGHUP does not end the process, which it does by default.
        """
        self._reactor = reactor
        self.notifier = takeEnvironment(os.environ, os.getpid())
        self._controlled: Controlled | None = None
        self._loops: list[LoopingCall] = []
        self._collector: GCTuning | None = None
        self.handle("SIGHUP", self._reload)

    def handle(self, name: str, work: Callable[[], None]) -> None:
        """
        Have a signal do some work, in a turn of the reactor of its own.

        @param name: the signal's name.  Nothing happens if there is no such signal here, or
            somebody has a use for it already, as C{twistd --debug} for SIGUSR2.
        """
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) != signal.SIG_DFL:
            return

        def caught(number: int, frame: FrameType | None) -> None:
            self._reactor.callFromThread(work)

        signal.signal(number, caught)

    def prepare(self) -> None:
        """
        Make room for many clients.
        """
        limitEventsPerTurn(self._reactor)
        _raiseFileLimit()

    def start(self, controlled: Controlled, clock: IReactorTime) -> None:
        """
        Have signals control the server: SIGHUP reloads, SIGUSR2 drains it, and the one after that
        which stops it ends the process at once.

        @param clock: where to schedule.
        """
        self._controlled = controlled
        self.handle("SIGUSR2", controlled.drain)
        self._reactor.addSystemEventTrigger("before", "shutdown", _dieOfNextSignal)
        self._collector = GCTuning(clock, controlled.busy)
        self._collector.start()
        watchdog = self.notifier.watchdog
        self._repeat(clock, lambda: self._say(controlled), _STATUS_EVERY)
        trimmer = MemoryTrimmer()
        self._repeat(clock, lambda: trimmer.look(*controlled.connections()), _TRIM_EVERY)
        if watchdog:
            self._repeat(clock, self.notifier.alive, watchdog / 2)

    def _repeat(self, clock: IReactorTime, work: Callable[[], None], interval: float) -> None:
        loop = LoopingCall(work)
        loop.clock = clock
        loop.start(interval)
        self._loops.append(loop)

    def _say(self, controlled: Controlled) -> None:
        self.notifier.status(controlled.status())
        BOUNDS.summarize()

    def stop(self) -> None:
        """
        The server has stopped.
        """
        for each in self._loops:
            each.stop()
        self._loops.clear()
        if self._collector is not None:
            self._collector.stop()
            self._collector = None

    def _reload(self) -> None:
        if self._controlled is None:
            self._log.info("SIGHUP: the server is starting, and reads everything now")
        else:
            self.notifier.reloading()
            reloaded = Deferred.fromCoroutine(self._controlled.reload())
            reloaded.addBoth(lambda _: self.notifier.ready())


def clientsFor(files: int) -> int:
    """
    @param files: how many open files a client needs.
    @return: how many clients there can be; 0 for any number.
    """
    if resource is None:
        return 0
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return 0
    return max(1, (hard - _OTHER_FILES) // files)


def _raiseFileLimit() -> None:
    if resource is not None:
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _dieOfNextSignal() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
