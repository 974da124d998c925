"""
Tests for L{kaproto.keepalive.alarms}.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import threading
import time
from collections.abc import Callable
from queue import Empty, Queue
from types import SimpleNamespace
from unittest.mock import patch

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive import alarms as module
from kaproto.keepalive.alarms import (
    GUARD,
    AlarmThread,
    GuardedAlarm,
    TimerFunctions,
    makeAlarm,
    timerFunctions,
)

PATIENCE = 10.0


class FakeTimer:
    """
    A timerfd made of a pipe.
    """

    def __init__(self) -> None:
        self.every: list[float] = []
        self.functions = TimerFunctions(self.create, self.repeat)

    def create(self) -> int:
        """
        Create a readable descriptor.
        """
        self.descriptor, self.far = os.pipe2(os.O_NONBLOCK)
        return self.descriptor

    def repeat(self, descriptor: int, every: float) -> None:
        """
        Record the period.
        """
        self.every.append(every)

    def expire(self) -> None:
        """
        Make the descriptor readable.
        """
        os.write(self.far, bytes(8))


class GuardedAlarmTests(SynchronousTestCase):
    """
    Tests for L{GuardedAlarm}, with separate wall and monotonic clocks.
    """

    def setUp(self) -> None:
        """
        Create an alarm.
        """
        self.timer = FakeTimer()
        self.reactor = MemoryReactorClock()
        self.monotonic = 100.0
        self.patch(module, "time", SimpleNamespace(monotonic=lambda: self.monotonic))
        self.rung: list[float] = []
        self.alarm = GuardedAlarm(self.reactor, self.ring, self.timer.functions)
        self.addCleanup(os.close, self.timer.far)

    def ring(self) -> None:
        """
        Record the time.
        """
        self.rung.append(self.monotonic)

    def advance(self, seconds: float) -> None:
        """
        Advance both clocks.
        """
        self.monotonic += seconds
        self.reactor.advance(seconds)

    def guard(self) -> None:
        """
        Let the timerfd expire.
        """
        self.timer.expire()
        self.alarm.doRead()
        self.assertRaises(BlockingIOError, os.read, self.timer.descriptor, 8)
        self.reactor.advance(0)

    def tearDown(self) -> None:
        """
        Check that a stopped reactor closes the descriptor and leaves no timer.
        """
        if self.alarm.fileno() >= 0:
            self.alarm.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.alarm.fileno(), -1)
        self.assertRaises(OSError, os.fstat, self.timer.descriptor)
        self.alarm.set(1)
        self.alarm.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_name(self) -> None:
        """
        The alarm has a name for the log.
        """
        self.assertEqual(self.alarm.logPrefix(), "monotonic clock")

    def test_rings(self) -> None:
        """
        The alarm rings once, at its time, even if the timerfd expires meanwhile.
        """
        self.assertEqual(self.timer.every, [GUARD])
        self.alarm.set(5)
        self.assertEqual(self.reactor.getReaders(), [self.alarm])
        self.advance(4.9)
        self.guard()
        self.assertEqual(self.rung, [])
        self.advance(0.2)
        self.guard()
        self.assertEqual(len(self.rung), 1)

    def test_setAgain(self) -> None:
        """
        Setting the alarm again replaces the earlier time.
        """
        self.alarm.set(5)
        self.alarm.set(1)
        self.advance(1)
        self.alarm.set(3)
        self.advance(2.9)
        self.assertEqual(len(self.rung), 1)
        self.advance(0.2)
        self.assertEqual(len(self.rung), 2)

    def test_wallClockSetBack(self) -> None:
        """
        If the wall clock is set back, the timerfd makes the alarm ring in time.
        """
        self.alarm.set(5)
        self.advance(2)
        self.reactor.rightNow -= 3600
        self.advance(2.9)
        self.guard()
        self.assertEqual(self.rung, [])
        self.advance(0.2)
        self.assertEqual(self.rung, [])
        self.guard()
        self.assertEqual(len(self.rung), 1)
        self.advance(7200)
        self.assertEqual(len(self.rung), 1)

    def test_wallClockSetForward(self) -> None:
        """
        If the wall clock is set forward, the alarm rings early and can be set again.
        """
        self.alarm.set(5)
        self.reactor.advance(3600)
        self.assertEqual(self.rung, [100])
        self.alarm.set(5)
        self.advance(5)
        self.assertEqual(self.rung, [100, 105])

    def test_nothingToRead(self) -> None:
        """
        A read without an expired timer is harmless.
        """
        self.alarm.set(5)
        self.alarm.doRead()
        self.reactor.advance(0)
        self.assertEqual(self.rung, [])

    def test_stop(self) -> None:
        """
        A stopped alarm leaves nothing in the reactor.
        """
        self.alarm.set(5)
        self.alarm.stop()
        self.assertEqual((self.reactor.getReaders(), self.reactor.getDelayedCalls()), ([], []))
        self.alarm.doRead()
        self.advance(10)
        self.assertEqual(self.rung, [])


class TimerFunctionsTests(SynchronousTestCase):
    """
    Tests for L{timerFunctions}.
    """

    def assertExpires(self, functions: TimerFunctions) -> None:
        """
        Check that a timer becomes readable at its time, and repeatedly.
        """
        descriptor = functions.create()
        self.addCleanup(os.close, descriptor)
        begun = time.monotonic()
        functions.repeat(descriptor, 0.01)
        self.assertRaises(BlockingIOError, os.read, descriptor, 8)
        for bound in (0.01, 0.02):
            self.assertEqual(select.select([descriptor], [], [], PATIENCE)[0], [descriptor])
            self.assertGreaterEqual(time.monotonic() - begun, bound)
            os.read(descriptor, 8)
        functions.repeat(descriptor, 2147483.25)
        self.assertEqual(select.select([descriptor], [], [], 0)[0], [])

    def test_system(self) -> None:
        """
        The functions of this Python and system work.
        """
        functions = timerFunctions()
        assert functions is not None
        self.assertExpires(functions)

    def test_library(self) -> None:
        """
        Without timerfd in Python, as before 3.13, the C library's functions are used.
        """
        with patch.object(os, "timerfd_create", None, create=True):
            functions = timerFunctions()
            assert functions is not None
            self.assertExpires(functions)

    def test_python(self) -> None:
        """
        Python's own functions are called with the clock, the flags and the seconds.
        """
        calls: list[object] = []

        def create(*args: object, **kw: object) -> int:
            calls.append((args, kw))
            return 7

        def setTime(*args: object, **kw: object) -> None:
            calls.append((args, kw))

        with (
            patch.object(os, "timerfd_create", create, create=True),
            patch.object(os, "timerfd_settime", setTime, create=True),
        ):
            functions = timerFunctions()
        assert functions is not None
        self.assertEqual(functions.create(), 7)
        functions.repeat(7, 1.5)
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self.assertEqual(
            calls,
            [
                ((time.CLOCK_MONOTONIC,), {"flags": flags}),
                ((7,), {"initial": 1.5, "interval": 1.5}),
            ],
        )

    def test_libraryFails(self) -> None:
        """
        An error in the C library is raised as L{OSError}.
        """

        class Library:
            timerfd_settime = None

            @staticmethod
            def timerfd_create(_clock: int, _flags: int) -> int:
                """
                Fail as Linux does.
                """
                ctypes.set_errno(errno.EMFILE)
                return -1

        with (
            patch.object(os, "timerfd_create", None, create=True),
            patch.object(ctypes, "CDLL", lambda *_args, **_kw: Library),
        ):
            functions = timerFunctions()
        assert functions is not None
        self.assertEqual(self.assertRaises(OSError, functions.create).errno, errno.EMFILE)

    def test_none(self) -> None:
        """
        On other systems there are no timer functions.
        """
        with (
            patch.object(os, "timerfd_create", None, create=True),
            patch.object(ctypes, "CDLL", lambda *_args, **_kw: object()),
        ):
            self.assertIsNone(timerFunctions())


class ThreadsReactor:
    """
    A reactor with only L{callFromThread}.
    """

    def __init__(self) -> None:
        self.queue: Queue[tuple[Callable[[], object], int]] = Queue()

    def callFromThread(self, function: Callable[[], object]) -> None:
        """
        Record the function and the calling thread.
        """
        self.queue.put((function, threading.get_ident()))


class AlarmThreadTests(SynchronousTestCase):
    """
    Tests for L{AlarmThread}.
    """

    def setUp(self) -> None:
        """
        Create an alarm.
        """
        self.reactor = ThreadsReactor()
        self.alarm = AlarmThread(self.reactor, self.ring)  # type: ignore[arg-type]

    def ring(self) -> None:
        """
        Never called, only compared.
        """

    def test_rings(self) -> None:
        """
        The alarm calls the reactor from its thread, once each time it is set, and not early.
        """
        for _ in range(2):
            begun = time.monotonic()
            self.alarm.set(0.01)
            function, thread = self.reactor.queue.get(timeout=PATIENCE)
            self.assertGreaterEqual(time.monotonic() - begun, 0.01)
            self.assertEqual(function, self.ring)
            self.assertNotEqual(thread, threading.get_ident())
        self.assertRaises(Empty, self.reactor.queue.get_nowait)

    def test_earlier(self) -> None:
        """
        An earlier time replaces a later one.
        """
        self.alarm.set(3600)
        self.alarm.set(0)
        self.reactor.queue.get(timeout=PATIENCE)

    def test_stop(self) -> None:
        """
        An alarm that is stopped before it is due does not ring.
        """
        delay, late = 0.01, True
        while late:
            # On a busy machine it may be due before it is stopped: try again with a longer delay.
            self.setUp()
            delay *= 2
            due = time.monotonic() + delay
            self.alarm.set(delay)
            self.alarm.stop()
            late = time.monotonic() >= due
        self.assertRaises(Empty, self.reactor.queue.get, timeout=2 * delay)
        self.alarm.set(0)
        self.reactor.queue.get(timeout=PATIENCE)


class MakeAlarmTests(SynchronousTestCase):
    """
    Tests for L{makeAlarm}.
    """

    def test_timer(self) -> None:
        """
        A reactor that waits for file descriptors gets a timerfd.
        """
        reactor = MemoryReactorClock()
        self.assertTrue(IReactorFDSet.providedBy(reactor))
        alarm = makeAlarm(reactor, lambda: None)
        assert isinstance(alarm, GuardedAlarm)
        alarm.connectionLost(Failure(ConnectionDone()))

    def test_thread(self) -> None:
        """
        Other reactors and systems get a thread, as does a process at its open-file limit.
        """

        def create() -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        full = TimerFunctions(create, lambda _descriptor, _delay: None)
        for reactor, functions in (
            (Clock(), timerFunctions()),
            (MemoryReactorClock(), None),
            (MemoryReactorClock(), full),
        ):
            with patch("kaproto.keepalive.alarms.timerFunctions", return_value=functions):
                self.assertIsInstance(makeAlarm(reactor, lambda: None), AlarmThread)
