"""
The state shared by all heartbeats of one reactor.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IReactorTime

from kaproto.keepalive.clock import MonotonicClock, monotonicClock
from kaproto.keepalive.idlereader import IdleReader
from kaproto.keepalive.pacemaker import Pacemaker

__all__ = ["Monitor"]


class Monitor:
    """
    The timer wheel of a reactor, and the reader of its idle connections.

    @ivar pacemaker: calls each heartbeat when it is due.
    @ivar idleReader: reads the pongs of idle connections; C{None} where there is no C{epoll}.
    """

    __slots__ = ("__weakref__", "idleReader", "pacemaker")

    def __init__(self, clock: IReactorTime) -> None:
        self.pacemaker = Pacemaker(clock)
        reactor = clock.reactor if isinstance(clock, MonotonicClock) else clock
        self.idleReader = IdleReader.orNone(reactor, self.pacemaker)

    @classmethod
    def of(cls, clock: IReactorTime | None) -> Monitor:
        """
        @param clock: a reactor, its L{monotonicClock} or a L{twisted.internet.task.Clock}; C{None}
            for the installed reactor.
        @return: the monitor of this reactor, which is kept only while something refers to it.
        """
        if clock is None:
            from twisted.internet import reactor

            clock = IReactorTime(reactor)
        monitor = _monitors.get(clock)
        if monitor is None:
            clock = monotonicClock(clock)
            monitor = _monitors.get(clock)
            if monitor is None:
                monitor = _monitors[clock] = cls(clock)
        return monitor


_monitors: Final[WeakValueDictionary[IReactorTime, Monitor]] = WeakValueDictionary()
