"""
Samples a server periodically: the delays of its reactor, and the values that the page plots.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs
from twisted.internet.task import LoopingCall

from kaproto.keepalive.histogram import Histogram
from kaproto.status.daemon import Daemon

__all__ = ["INTERVAL", "KEPT", "TICK", "Sample", "Sampler"]

TICK: Final = 0.25
"""
Seconds between two measurements of the reactor.
"""

INTERVAL: Final = 2.0
"""
Seconds between two samples.
"""

KEPT: Final = 300
"""
The number of samples kept: ten minutes.
"""


@attrs.frozen
class Sample:
    """
    One sample.

    @ivar clients: the number of clients.
    @ivar roundTrip: the mean round trip since the previous sample, in seconds; C{None} if there
        was none.
    """

    clients: int
    roundTrip: float | None


class Sampler:
    """
    Takes samples while it runs.

    @ivar turns: the delays of the ticks: each is the time that a tick waited for the reactor's
        current turn to end.
    @ivar samples: the latest samples, the oldest first.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.turns = Histogram()
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self._daemon = daemon
        self._clock = daemon.factory.clock
        self._due = 0.0
        self._ticks = 0
        self._seen = (0, 0.0)
        self._loop = LoopingCall(self._tick)
        self._loop.clock = self._clock

    def start(self) -> None:
        """
        Start sampling.
        """
        self._due = self._clock.seconds()
        self._loop.start(TICK)

    def stop(self) -> None:
        """
        Stop sampling.
        """
        if self._loop.running:
            self._loop.stop()

    def _tick(self) -> None:
        now = self._clock.seconds()
        self.turns.add(max(0.0, now - self._due))
        # A late LoopingCall skips the ticks that it has missed.
        self._due += TICK * max(1, int((now - self._due) / TICK) + 1)
        if self._ticks % round(INTERVAL / TICK) == 0:
            self.samples.append(self._sample())
        self._ticks += 1

    def _sample(self) -> Sample:
        trips = self._daemon.factory.roundTrips
        number, seconds = trips.total, trips.sum
        before, secondsBefore = self._seen
        self._seen = number, seconds
        new = number - before
        roundTrip = (seconds - secondsBefore) / new if new else None
        return Sample(len(self._daemon.register), roundTrip)
