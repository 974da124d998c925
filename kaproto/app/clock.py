"""
A reactor that does not mind when somebody sets the wall clock.
"""

from __future__ import annotations

import time

from twisted.internet.base import DelayedCall, ReactorBase

__all__ = ["useMonotonicClock"]


def useMonotonicClock(reactor: object) -> None:
    """
    Make a reactor schedule by the monotonic clock.  By default it uses the wall clock, so that
    all its timers wait for an hour, or fire an hour early, when that is set by an hour.

    Timers that were scheduled already keep the time they have left.

    @param reactor: something that is not one of Twisted's own reactors is left alone.
    """
    if not isinstance(reactor, ReactorBase) or reactor.seconds is time.monotonic:
        return
    shift = time.monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        if isinstance(call, DelayedCall):
            call.time += shift
            call.seconds = time.monotonic
    reactor.seconds = time.monotonic
