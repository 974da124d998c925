"""
The process that runs only kaserver: file limits, signals, garbage collection, and notifications to
systemd.
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
A generous estimate of the open files that do not belong to clients.
"""

_STATUS_EVERY: Final = 10.0
_TRIM_EVERY: Final = 30.0


class Controlled(Protocol):
    """
    A server under the control of signals.
    """

    async def reload(self) -> object:
        """
        Reload files.
        """

    def drain(self) -> None:
        """
        Accept no new clients, and stop when the present ones have left.
        """

    def status(self) -> str:
        """
        @return: the state of the server, in one line.
        """

    def busy(self) -> bool:
        """
        @return: whether there are clients.
        """

    def connections(self) -> tuple[int, int]:
        """
        @return: the numbers of open connections, and of connections that ended since the start.
        """


class OwnProcess:
    """
    A process that runs one server and nothing else.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401 - the reactor, of several interfaces
        """
        Handle SIGHUP from now on, which by default would end the process.
        """
        self._reactor = reactor
        self.notifier = takeEnvironment(os.environ, os.getpid())
        self._controlled: Controlled | None = None
        self._loops: list[LoopingCall] = []
        self._collector: GCTuning | None = None
        self.handle("SIGHUP", self._reload)

    def handle(self, name: str, work: Callable[[], None]) -> None:
        """
        Install a handler of a signal.

        @param name: the signal's name.  Nothing is installed if this platform lacks the signal, or
            if it has a handler already, such as that of C{twistd --debug} for SIGUSR2.
        @param work: called in the reactor's thread, in its next turn.
        """
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) != signal.SIG_DFL:
            return

        def caught(number: int, frame: FrameType | None) -> None:
            self._reactor.callFromThread(work)

        signal.signal(number, caught)

    def prepare(self) -> None:
        """
        Raise the file limit, and limit the events in one turn of the reactor.
        """
        limitEventsPerTurn(self._reactor)
        _raiseFileLimit()

    def start(self, controlled: Controlled, clock: IReactorTime) -> None:
        """
        Let signals control the server, and start the periodic work.  SIGHUP reloads the server,
        SIGUSR2 drains it, and during the shutdown SIGTERM or SIGINT ends the process at once.

        @param clock: schedules the periodic work.
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
        Stop the periodic work: the server has stopped.
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
    @param files: the number of open files that a client needs.
    @return: the number of clients that the file limit allows; 0 for no limit.
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
