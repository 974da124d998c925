"""
Tests for L{kaproto.app.process}.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
from typing import Any, cast
from unittest.mock import patch

from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import MemoryReactorClock

from kaproto.app import process as processModule
from kaproto.app.memory import WORTHWHILE, MemoryTrimmer
from kaproto.app.notify import Notifier
from kaproto.app.process import OwnProcess, clientsFor
from kaproto.app.tuning import THRESHOLDS, GCTuning
from tests.support import ClockTestCase


class RecordingNotifier(Notifier):
    """
    Remembers what it is to send.

    @ivar sent: the messages.
    """

    def __init__(self, watchdog: float = 0) -> None:
        super().__init__(None, watchdog)
        self.sent: list[str] = []

    def _send(self, *assignments: str) -> None:
        self.sent.append(assignments[0])


class Controlled:
    """
    What signals control.

    @ivar done: what was done.
    """

    def __init__(self, notifier: RecordingNotifier) -> None:
        self.done: list[str] = []
        self.clients = self.ended = 0
        self._notifier = notifier

    async def reload(self) -> None:
        """
        Remember it.
        """
        self.done.append(f"reload after {self._notifier.sent[-1]}")

    def drain(self) -> None:
        """
        Remember it.
        """
        self.done.append("drain")

    def status(self) -> str:
        """
        @return: the number of clients.
        """
        return f"{self.clients} clients"

    def busy(self) -> bool:
        """
        @return: whether there are some.
        """
        return self.clients > 0

    def connections(self) -> tuple[int, int]:
        """
        @return: how many there are, and how many have been.
        """
        return self.clients, self.ended


class ProcessTestCase(ClockTestCase):
    """
    A test in which no process is changed.

    @ivar handlers: what handles the signals.
    @ivar limits: what the limit of open files was set to.
    """

    def setUp(self) -> None:
        """
        Keep off the process.
        """
        super().setUp()
        self.reactor = MemoryReactorClock()
        self.clock = self.reactor
        vars(self.reactor)["callFromThread"] = lambda work: work()
        self.handlers: dict[int, Any] = {}
        self.patch(signal, "signal", self.handlers.__setitem__)
        self.patch(signal, "getsignal", lambda number: self.handlers.get(number, signal.SIG_DFL))
        self.limits: list[tuple[int, tuple[int, int]]] = []
        self.patch(resource, "getrlimit", lambda _which: (1024, 4096))
        self.patch(resource, "setrlimit", lambda *what: self.limits.append(what))
        self.notifier = RecordingNotifier()
        self.patch(processModule, "takeEnvironment", lambda *_what: self.notifier)
        self.patch(GCTuning, "_sweep", lambda _tuning: None)

    def send(self, number: int) -> None:
        """
        Have the process get a signal.
        """
        self.handlers[number](number, None)

    def started(self) -> tuple[OwnProcess, Controlled]:
        """
        @return: a process that has started, and the server that it is.
        """
        process, controlled = OwnProcess(self.reactor), Controlled(self.notifier)
        process.start(controlled, cast(IReactorTime, self.reactor))
        self.addCleanup(self.stop, process)
        return process, controlled

    def stop(self, process: OwnProcess) -> None:
        """
        Stop it, if the test has not done that.
        """
        if process._loops:
            process.stop()


class SignalTests(ProcessTestCase):
    """
    What signals do.
    """

    def test_hangUp(self) -> None:
        """
        SIGHUP has the server reload, and systemd is told when it begins and when it has ended.
        """
        _process, controlled = self.started()
        self.notifier.sent.clear()
        self.send(signal.SIGHUP)
        self.assertEqual(controlled.done, ["reload after RELOADING=1"])
        self.assertEqual(self.notifier.sent, ["RELOADING=1", "READY=1"])

    def test_hangUpEarly(self) -> None:
        """
        Before the server has started, SIGHUP does not end the process.
        """
        OwnProcess(self.reactor)
        self.send(signal.SIGHUP)
        self.assertEqual(
            self.logged(), ["SIGHUP: the server is starting, and reads everything now"]
        )

    def test_hangUpLate(self) -> None:
        """
        Nor does it when the server has stopped.
        """
        process, controlled = self.started()
        process.stop()
        self.send(signal.SIGHUP)
        self.assertEqual(len(controlled.done), 1)

    def test_inTheReactorsTime(self) -> None:
        """
        What a signal has done is done in a turn of the reactor, not between two instructions.
        """
        calls: list[Any] = []
        vars(self.reactor)["callFromThread"] = calls.append
        _process, controlled = self.started()
        self.send(signal.SIGHUP)
        self.assertEqual(controlled.done, [])
        calls[0]()
        self.assertEqual(len(controlled.done), 1)

    def test_drain(self) -> None:
        """
        SIGUSR2 has the server drained, unless somebody else has a use for it.
        """
        _process, controlled = self.started()
        self.send(signal.SIGUSR2)
        self.assertEqual(controlled.done, ["drain"])
        self.handlers[signal.SIGUSR2] = debugger = object()
        self.started()
        self.assertIs(self.handlers[signal.SIGUSR2], debugger)

    def test_secondSignal(self) -> None:
        """
        When the process begins to shut down, and not before, the next signal ends it at once.
        """
        self.started()
        self.assertNotIn(signal.SIGTERM, self.handlers)
        for trigger, arguments, keywords in self.reactor.triggers["before"]["shutdown"]:
            trigger(*arguments, **keywords)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.assertEqual(self.handlers[number], signal.SIG_DFL)

    def test_noSuchSignal(self) -> None:
        """
        Where there is no such signal, there is nothing to handle.
        """
        with patch.object(signal, "SIGHUP", create=True):
            del signal.SIGHUP
            OwnProcess(self.reactor)
        self.assertEqual(self.handlers, {})


class ManagerTests(ProcessTestCase):
    """
    What systemd is told.
    """

    def test_watchdog(self) -> None:
        """
        The watchdog is fed twice in its time, by the reactor, until the server has stopped.
        """
        self.notifier = RecordingNotifier(watchdog=60)
        process, _controlled = self.started()
        self.assertEqual(self.notifier.sent.count("WATCHDOG=1"), 1)
        self.clock.advance(29)
        self.assertEqual(self.notifier.sent.count("WATCHDOG=1"), 1)
        self.clock.advance(1)
        self.assertEqual(self.notifier.sent.count("WATCHDOG=1"), 2)
        self.clock.advance(30)
        self.assertEqual(self.notifier.sent.count("WATCHDOG=1"), 3)
        process.stop()
        self.clock.advance(300)
        self.assertEqual(self.notifier.sent.count("WATCHDOG=1"), 3)

    def test_noWatchdog(self) -> None:
        """
        Without one, nothing is fed.
        """
        self.started()
        self.clock.advance(300)
        self.assertNotIn("WATCHDOG=1", self.notifier.sent)

    def test_status(self) -> None:
        """
        The status is sent when it has changed, within ten seconds.
        """
        _process, controlled = self.started()
        self.clock.advance(60)
        controlled.clients = 7
        self.clock.advance(10)
        self.assertEqual(self.notifier.sent, ["STATUS=0 clients", "STATUS=7 clients"])

    def test_environment(self) -> None:
        """
        What systemd has put into the environment is taken out of it.
        """
        self.patch(processModule, "takeEnvironment", lambda *what: what)
        process = OwnProcess(self.reactor)
        self.assertEqual(cast(Any, process.notifier), (os.environ, os.getpid()))


class ResourceTests(ProcessTestCase):
    """
    What the process may use.
    """

    def test_files(self) -> None:
        """
        As many files may be open as the system allows, and turns of the reactor are short.
        """
        limited: list[object] = []
        self.patch(processModule, "limitEventsPerTurn", limited.append)
        OwnProcess(self.reactor).prepare()
        self.assertEqual(self.limits, [(resource.RLIMIT_NOFILE, (4096, 4096))])
        self.assertEqual(limited, [self.reactor])

    def test_collector(self) -> None:
        """
        The garbage collector is tuned while the server runs.
        """
        before = gc.get_threshold()
        process, _controlled = self.started()
        self.assertEqual(gc.get_threshold(), THRESHOLDS)
        process.stop()
        self.assertEqual(gc.get_threshold(), before)

    def test_memory(self) -> None:
        """
        Memory is returned to the system within half a minute after a crowd has left.
        """
        done: list[int] = []
        self.patch(processModule, "MemoryTrimmer", lambda: MemoryTrimmer(lambda: done.append(1)))
        process, controlled = self.started()
        controlled.ended = WORTHWHILE
        self.clock.advance(29)
        self.assertEqual(done, [])
        self.clock.advance(1)
        self.assertEqual(done, [1])
        process.stop()

    def test_clientsFor(self) -> None:
        """
        There can be as many clients as there may be open files, less some for the server itself.
        """
        for limit, each, clients in ((4096, 1, 4032), (4096, 2, 2016), (10, 1, 1), (-1, 2, 0)):
            self.patch(resource, "getrlimit", lambda _which, limit=limit: (1024, limit))
            self.assertEqual(clientsFor(each), clients)

    def test_noResource(self) -> None:
        """
        Where the system has no such limits, nothing is raised and nobody is limited.
        """
        self.patch(processModule, "resource", None)
        OwnProcess(self.reactor).prepare()
        self.assertEqual(clientsFor(1), 0)
