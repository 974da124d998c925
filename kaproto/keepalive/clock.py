"""
Timers that do not depend on the wall clock.

Twisted's reactors schedule by the wall clock.  When that clock is set back by an hour, every timer
is an hour late; when it is set forward, every timer due within the hour fires at once.
L{MonotonicClock} schedules by the monotonic clock, in the same reactor, and wakes the reactor by an
alarm: see L{kaproto.keepalive.alarms}.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.internet.task import Clock
from twisted.logger import Logger
from zope.interface import implementer

from kaproto.keepalive.alarms import Alarm, makeAlarm

__all__ = ["MonotonicClock", "monotonicClock"]

_NEVER: Final = inf
_logsFailures: Final = Logger().failureHandler("a scheduled call failed")


def monotonicClock(reactor: IReactorTime) -> IReactorTime:
    """
    @param reactor: a reactor, or a stand-in for one such as L{twisted.internet.task.Clock}.
    @return: the clock for scheduling calls: for a reactor, always the same L{MonotonicClock}; for a
        stand-in, the stand-in itself, because the test controls its time.
    """
    if isinstance(reactor, Clock) or not IReactorFromThreads.providedBy(reactor):
        return reactor
    return _clockOf(reactor)


@cache
def _clockOf(reactor: IReactorTime) -> IReactorTime:
    # A process has one reactor, so the cache never holds more than one clock.
    return MonotonicClock(reactor)


@implementer(IReactorTime)
class MonotonicClock:
    """
    Schedules calls by C{time.monotonic}.

    @ivar reactor: the reactor that makes the calls.
    """

    # Called for every ping and pong.
    seconds = staticmethod(time.monotonic)

    def __init__(
        self,
        reactor: IReactorTime,
        makeAlarm: Callable[[IReactorTime, Callable[[], object]], Alarm] = makeAlarm,
    ) -> None:
        """
        @param makeAlarm: makes an alarm that wakes the reactor and calls a function there.
        """
        self.reactor = reactor
        self._alarm = makeAlarm(reactor, self._run)
        self._calls: list[DelayedCall] = []
        self._new: list[DelayedCall] = []
        self._cancelled = 0
        self._armedFor = _NEVER

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """
        Schedule a call.  With no delay, it is made in the reactor's next turn, after all reads of
        that turn.
        """
        now = self.seconds()
        call = DelayedCall(now + delay, callable, args, kw, self._forget, self._moved, self.seconds)
        self._new.append(call)
        self._arm(call.time, now)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """
        @return: the calls that have not been made.
        """
        return [call for call in self._calls + self._new if not call.cancelled]

    def _arm(self, due: float, now: float) -> None:
        if due < self._armedFor:
            self._armedFor = due
            self._alarm.set(max(0.0, due - now))

    def _moved(self, call: DelayedCall) -> None:
        """
        A call was moved to an earlier time.
        """
        heapify(self._calls)
        self._arm(call.time, self.seconds())

    def _forget(self, cancelled: DelayedCall) -> None:
        """
        A call is being cancelled.  Cancelled calls are removed when they are more than half of the
        heap.
        """
        self._cancelled += 1
        if self._cancelled * 2 > len(self._calls) + len(self._new):
            self._calls = [
                call for call in self._calls if not (call is cancelled or call.cancelled)
            ]
            self._new = [call for call in self._new if not (call is cancelled or call.cancelled)]
            heapify(self._calls)
            self._cancelled = 0
            self._rest()

    def _rest(self) -> None:
        if not self._calls and not self._new:
            self._armedFor = _NEVER
            self._alarm.stop()

    def _run(self) -> None:
        """
        The alarm rings: make the calls that are due.  Calls scheduled meanwhile wait for the next
        ring, so that calls without a delay cannot keep the reactor from reading.
        """
        now = self.seconds()
        self._armedFor = -inf
        for call in self._new:
            heappush(self._calls, call)
        self._new = []
        while self._calls and self._calls[0].time <= now:
            call = heappop(self._calls)
            if call.cancelled:
                self._cancelled -= 1
            elif call.delayed_time:
                call.activate_delay()
                heappush(self._calls, call)
            else:
                call.called = 1
                with _logsFailures:
                    call.func(*call.args, **call.kw)
        self._armedFor = _NEVER
        waiting = [call.time for call in self._calls[:1] + self._new]
        if waiting:
            self._arm(min(waiting), self.seconds())
        self._rest()
