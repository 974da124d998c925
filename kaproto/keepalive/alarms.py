"""
Alarms: timers that wake a reactor independently of the wall clock.

L{GuardedAlarm} uses the reactor's own timer, which is cheap, and a timerfd to detect that this
timer is late.  For example, a call is due in 5 seconds, and the wall clock is set back by an hour
after 2:

 - 0 s: the reactor's timer is set to 5 s.
 - 2 s: the wall clock is set back.  The reactor would now wait for an hour and 3 seconds.
 - 5.3 s: the timerfd, which becomes readable every half second of the monotonic clock, wakes the
   reactor.  The call is overdue, so the reactor's timer is set to fire at once.

When the wall clock is set forward, the reactor's timer fires early.  No call is due then, so the
timer is set again.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Final, Protocol, cast

import attrs
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorTime,
    IReadDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = [
    "GUARD",
    "Alarm",
    "AlarmThread",
    "GuardedAlarm",
    "TimerFunctions",
    "makeAlarm",
    "timerFunctions",
]

GUARD: Final = 0.5
"""
Seconds within which a L{GuardedAlarm} notices that the wall clock was set back.
"""

_LONGEST_WAIT: Final = 3600.0
_NANOSECONDS: Final = 10**9
_CLOSED: Final = -1


class Alarm(Protocol):
    """
    Calls a function in the reactor's thread after a delay, measured by the monotonic clock.
    """

    def set(self, delay: float) -> None:
        """
        Call the function in C{delay} seconds, instead of at any time set earlier.
        """

    def stop(self) -> None:
        """
        Cancel the alarm, and leave nothing registered in the reactor.
        """


@attrs.frozen
class TimerFunctions:
    """
    Linux's timerfd.

    @ivar create: creates a file descriptor; raises L{OSError}.
    @ivar repeat: makes it readable periodically; takes the period in seconds.
    """

    create: Callable[[], int]
    repeat: Callable[[int, float], object]


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    @classmethod
    def of(cls, seconds: float) -> _Timespec:
        return cls(*divmod(int(seconds * _NANOSECONDS), _NANOSECONDS))


class _TimerSpec(ctypes.Structure):
    """
    C{struct itimerspec}.
    """

    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def timerFunctions() -> TimerFunctions | None:
    """
    @return: Python's own functions, from 3.13 on; before that, those of the C library; C{None} if
        it has none.
    """
    flags = os.O_NONBLOCK | os.O_CLOEXEC
    create = getattr(os, "timerfd_create", None)
    if create is not None:
        set_ = os.timerfd_settime  # type: ignore[attr-defined, unused-ignore]
        return TimerFunctions(
            lambda: cast(int, create(time.CLOCK_MONOTONIC, flags=flags)),
            lambda descriptor, every: set_(descriptor, initial=every, interval=every),
        )
    try:
        library = ctypes.CDLL(None, use_errno=True)
        libraryCreate, librarySet = library.timerfd_create, library.timerfd_settime
    except (AttributeError, OSError):
        return None

    def createTimer() -> int:
        descriptor: int = libraryCreate(time.CLOCK_MONOTONIC, flags)
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return descriptor

    def repeatTimer(descriptor: int, every: float) -> object:
        spec = _TimerSpec(_Timespec.of(every), _Timespec.of(every))
        return librarySet(descriptor, 0, ctypes.byref(spec), None)

    return TimerFunctions(createTimer, repeatTimer)


def makeAlarm(reactor: IReactorTime, ring: Callable[[], object]) -> Alarm:
    """
    @param ring: the function to call.
    @return: a L{GuardedAlarm} if the system has timerfd and the reactor can wait for it, else an
        L{AlarmThread}.
    """
    functions = timerFunctions()
    if functions is not None and IReactorFDSet.providedBy(reactor):
        with suppress(OSError):
            return GuardedAlarm(reactor, ring, functions)
    return AlarmThread(cast(IReactorFromThreads, reactor), ring)


@implementer(IReadDescriptor)
class GuardedAlarm:
    """
    The reactor's own timer, with a timerfd that notices when the wall clock was set back.
    """

    def __init__(
        self, reactor: IReactorTime, ring: Callable[[], object], functions: TimerFunctions
    ) -> None:
        """
        @raise OSError: when no file descriptor is left.
        """
        self._reactor = reactor
        self._ring = ring
        self._descriptor = functions.create()
        functions.repeat(self._descriptor, GUARD)
        self._due = inf
        self._call: IDelayedCall | None = None

    def set(self, delay: float) -> None:
        """
        Call the function in C{delay} seconds.
        """
        if self._descriptor == _CLOSED:
            return
        self._due = time.monotonic() + delay
        self._cancel()
        self._call = self._reactor.callLater(delay, self._rings)
        cast(IReactorFDSet, self._reactor).addReader(self)

    def stop(self) -> None:
        """
        Cancel the timer, and unregister the timerfd from the reactor.
        """
        if self._descriptor != _CLOSED:
            cast(IReactorFDSet, self._reactor).removeReader(self)
        self._cancel()

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _rings(self) -> None:
        self._call = None
        self._ring()

    def fileno(self) -> int:
        """
        @return: the timerfd.
        """
        return self._descriptor

    def logPrefix(self) -> str:
        """
        @return: this descriptor's name in the log.
        """
        return "monotonic clock"

    def doRead(self) -> None:
        """
        Check whether the reactor's timer is late.
        """
        with suppress(BlockingIOError):
            os.read(self._descriptor, 8)
        if self._call is not None and time.monotonic() >= self._due:
            self._call.reset(0)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has stopped.
        """
        os.close(self._descriptor)
        self._descriptor = _CLOSED
        self._cancel()


class AlarmThread:
    """
    A thread that sleeps until the alarm is due, for systems and reactors without timerfd.
    """

    def __init__(self, reactor: IReactorFromThreads, ring: Callable[[], object]) -> None:
        self._reactor = reactor
        self._ring = ring
        self._lock = threading.Lock()
        self._due = inf
        self._thread: threading.Thread | None = None
        self._waker, self._sleeper = socket.socketpair()

    def set(self, delay: float) -> None:
        """
        Call the function in C{delay} seconds.
        """
        with self._lock:
            self._due = time.monotonic() + delay
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._wait, name="kaproto monotonic clock", daemon=True
            )
            self._thread.start()
        else:
            self._waker.send(b"\0")

    def stop(self) -> None:
        """
        Cancel the alarm.  The thread keeps sleeping.
        """
        with self._lock:
            self._due = inf

    def _wait(self) -> None:
        while True:
            with self._lock:
                left = self._due - time.monotonic()
                if left <= 0:
                    self._due = inf
            if left <= 0:
                self._reactor.callFromThread(self._ring)
            else:
                # A socket's timeout is relative: no change of the wall clock moves it.
                self._sleeper.settimeout(min(left, _LONGEST_WAIT))
                with suppress(TimeoutError):
                    self._sleeper.recv(64)
