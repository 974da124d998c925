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
    A notifier that records messages instead of sending them.

    @ivar sent: the messages.
    """

    def __init__(self, watchdog: float = 0) -> None:
        super().__init__(None, watchdog)
        self.sent: list[str] = []

    def _send(self, *assignments: str) -> None:
        self.sent.append(assignments[0])


class Controlled:
    """
    A fake service that records what signals make it do.

    @ivar done: the actions.
    """

    def __init__(self, notifier: RecordingNotifier) -> None:
        self.done: list[str] = []
        self.clients = self.ended = 0
        self._notifier = notifier

    async def reload(self) -> None:
        """
        Record that it reloads, and what systemd was told before.
        """
        self.done.append(f"reload after {self._notifier.sent[-1]}")

    def drain(self) -> None:
        """
        Record that it drains.
        """
        self.done.append("drain")

    def status(self) -> str:
        """
        @return: the number of clients, as text.
        """
        return f"{self.clients} clients"

    def busy(self) -> bool:
        """
        @return: whether there are clients.
        """
        return self.clients > 0

    def connections(self) -> tuple[int, int]:
        """
        @return: how many clients are connected, and how many have left.
        """
        return self.clients, self.ended


class ProcessTestCase(ClockTestCase):
    """
    A test case that does not change the process.

    @ivar handlers: the signal handlers by signal number.
    @ivar limits: the calls of C{setrlimit}.
    """

    def setUp(self) -> None:
        """
        Replace everything that would change the process.
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
        Call the handler of a signal.
        """
        self.handlers[number](number, None)

    def started(self) -> tuple[OwnProcess, Controlled]:
        """
        @return: a started process and its fake service.
        """
        process, controlled = OwnProcess(self.reactor), Controlled(self.notifier)
        process.start(controlled, cast(IReactorTime, self.reactor))
        self.addCleanup(self.stop, process)
        return process, controlled

    def stop(self, process: OwnProcess) -> None:
        """
        Stop the process, unless the test has.
        """
        if process._loops:
            process.stop()


class SignalTests(ProcessTestCase):
    """
    Tests for signals.
    """

    def test_hangUp(self) -> None:
        """
        SIGHUP reloads, and systemd is notified when the reload begins and ends.
        """
        _process, controlled = self.started()
        self.notifier.sent.clear()
        self.send(signal.SIGHUP)
        self.assertEqual(controlled.done, ["reload after RELOADING=1"])
        self.assertEqual(self.notifier.sent, ["RELOADING=1", "READY=1"])

    def test_hangUpEarly(self) -> None:
        """
        SIGHUP does not end a process whose service has not started yet.
        """
        OwnProcess(self.reactor)
        self.send(signal.SIGHUP)
        self.assertEqual(
            self.logged(), ["SIGHUP: the server is starting, and reads everything now"]
        )

    def test_hangUpLate(self) -> None:
        """
        SIGHUP does not end a process whose service has stopped.
        """
        process, controlled = self.started()
        process.stop()
        self.send(signal.SIGHUP)
        self.assertEqual(len(controlled.done), 1)

    def test_inTheReactorsTime(self) -> None:
        """
        A signal's work is done in a turn of the reactor, not in the signal handler.
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
        SIGUSR2 drains the server, but a handler that somebody else has installed is kept.
        """
        _process, controlled = self.started()
        self.send(signal.SIGUSR2)
        self.assertEqual(controlled.done, ["drain"])
        self.handlers[signal.SIGUSR2] = debugger = object()
        self.started()
        self.assertIs(self.handlers[signal.SIGUSR2], debugger)

    def test_secondSignal(self) -> None:
        """
        Once the shutdown has begun, and not before, a second signal ends the process at once.
        """
        self.started()
        self.assertNotIn(signal.SIGTERM, self.handlers)
        for trigger, arguments, keywords in self.reactor.triggers["before"]["shutdown"]:
            trigger(*arguments, **keywords)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.assertEqual(self.handlers[number], signal.SIG_DFL)

    def test_noSuchSignal(self) -> None:
        """
        On a platform without SIGHUP no handler is installed.
        """
        with patch.object(signal, "SIGHUP", create=True):
            del signal.SIGHUP
            OwnProcess(self.reactor)
        self.assertEqual(self.handlers, {})


class ManagerTests(ProcessTestCase):
    """
    Tests for messages to systemd.
    """

    def test_watchdog(self) -> None:
        """
        The watchdog is notified twice per period, until the service stops.
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
        Without a watchdog nothing is sent to it.
        """
        self.started()
        self.clock.advance(300)
        self.assertNotIn("WATCHDOG=1", self.notifier.sent)

    def test_status(self) -> None:
        """
        A changed status is sent within ten seconds.
        """
        _process, controlled = self.started()
        self.clock.advance(60)
        controlled.clients = 7
        self.clock.advance(10)
        self.assertEqual(self.notifier.sent, ["STATUS=0 clients", "STATUS=7 clients"])

    def test_environment(self) -> None:
        """
        The notifier is made from the environment and the id of this process.
        """
        self.patch(processModule, "takeEnvironment", lambda *what: what)
        process = OwnProcess(self.reactor)
        self.assertEqual(cast(Any, process.notifier), (os.environ, os.getpid()))


class ResourceTests(ProcessTestCase):
    """
    Tests for resource limits.
    """

    def test_files(self) -> None:
        """
        The limit of open files is raised to the hard limit, and the events per turn of the reactor
        are limited.
        """
        limited: list[object] = []
        self.patch(processModule, "limitEventsPerTurn", limited.append)
        OwnProcess(self.reactor).prepare()
        self.assertEqual(self.limits, [(resource.RLIMIT_NOFILE, (4096, 4096))])
        self.assertEqual(limited, [self.reactor])

    def test_collector(self) -> None:
        """
        The garbage collector is tuned while the service runs.
        """
        before = gc.get_threshold()
        process, _controlled = self.started()
        self.assertEqual(gc.get_threshold(), THRESHOLDS)
        process.stop()
        self.assertEqual(gc.get_threshold(), before)

    def test_memory(self) -> None:
        """
        Memory is returned to the system within 30 seconds after many clients have left.
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
        The maximal number of clients follows from the limit of open files, less a reserve for the
        server itself.
        """
        for limit, each, clients in ((4096, 1, 4032), (4096, 2, 2016), (10, 1, 1), (-1, 2, 0)):
            self.patch(resource, "getrlimit", lambda _which, limit=limit: (1024, limit))
            self.assertEqual(clientsFor(each), clients)

    def test_noResource(self) -> None:
        """
        On a platform without such limits nothing is raised, and clients are not limited.
        """
        self.patch(processModule, "resource", None)
        OwnProcess(self.reactor).prepare()
        self.assertEqual(clientsFor(1), 0)
