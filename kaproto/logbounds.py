"""
Limits on the log lines that peers can cause: lines per peer, lines in all, and characters per line.

A class that logs actions of peers makes its logger with the observer L{BOUNDS}, and adds the peer
to each event::

    _log = Logger(observer=BOUNDS)
    ...
    self._log.warn("dropped {peer}: {reason}", peer=peer, reason=reason)

An example with the numbers below: a host connects 5,000 times within ten seconds, and each time
sends garbage.  The first 1,000 lines are written, then 2 a second.  After a minute one line says
that 3,980 more were not logged.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from typing import Final

import attrs
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.peer import Peer

__all__ = ["BOUNDS", "VALUE_MAX", "LogBounds", "Rate", "shorten"]

VALUE_MAX: Final = 1000
"""
The maximum length of one value in a line, in characters.
"""

_TRACEBACK_MAX: Final = 16_384
_SHORT: Final = (int, float, type(None))
_SUMMARY_EVERY: Final = 60.0


@attrs.frozen
class Rate:
    """
    A limit on lines, as a token bucket.

    @ivar burst: how many lines may be written at once.
    @ivar perSecond: how many may be written each second in the long run.
    """

    burst: float
    perSecond: float


@attrs.define
class _Bucket:
    """
    @ivar lines: how many lines could be written at the time C{at}.
    @ivar at: the time of the last update, in monotonic seconds.
    @ivar suppressed: how many lines were left out since the last summary.
    """

    lines: float
    at: float
    suppressed: int = 0

    def fill(self, rate: Rate, now: float) -> None:
        """
        Add the lines allowed for the time that has passed.
        """
        self.lines = min(rate.burst, self.lines + (now - self.at) * rate.perSecond)
        self.at = now


@implementer(ILogObserver)
class LogBounds:
    """
    An observer between loggers and the log.  It limits the number of events whose C{peer} is a
    L{Peer}, and shortens the values in all events.

    @ivar perPeer: the limit for one network (L{Peer.network}).
    @ivar overall: the limit for all networks together.
    """

    PEERS_MAX: Final = 4096

    def __init__(
        self,
        log: ILogObserver,
        seconds: Callable[[], float] = time.monotonic,
        perPeer: Rate = Rate(1_000, 2),
        overall: Rate = Rate(10_000, 100),
    ) -> None:
        """
        @param log: receives the events within the limits.
        @param seconds: a monotonic clock.
        """
        self.perPeer = perPeer
        self.overall = overall
        self._log = log
        self._seconds = seconds
        self._own = Logger(observer=log)
        self.clear()

    def clear(self) -> None:
        """
        Reset all counts.
        """
        now = self._seconds()
        self._all = _Bucket(self.overall.burst, now)
        # Ordered by their last event, the oldest first.
        self._peers: OrderedDict[str, _Bucket] = OrderedDict()
        self._forgotten = 0
        self._summaryAt = now

    def __call__(self, event: LogEvent) -> None:
        """
        Pass on an event, with its values shortened, if it is within the limits.
        """
        peer = event.get("peer")
        if not isinstance(peer, Peer) or self.admits(peer):
            self.admitted(event)

    def admitted(self, event: LogEvent) -> None:
        """
        Pass on an event that L{admits} has counted already, with its values shortened.
        """
        self._log(_shortened(event))
        self._summarizeIfDue()

    def admits(self, peer: Peer) -> bool:
        """
        Count a line about a peer.  Call this first if composing the line is expensive.

        @return: whether it may be written.
        """
        now = self._seconds()
        network = peer.network
        bucket = self._peers.pop(network, None)
        if bucket is None:
            bucket = _Bucket(self.perPeer.burst, now)
            if len(self._peers) >= self.PEERS_MAX:
                self._forgotten += self._peers.popitem(last=False)[1].suppressed
        self._peers[network] = bucket
        bucket.fill(self.perPeer, now)
        self._all.fill(self.overall, now)
        if bucket.lines < 1 or self._all.lines < 1:
            bucket.suppressed += 1
            self._summarizeIfDue()
            return False
        bucket.lines -= 1
        self._all.lines -= 1
        return True

    def _summarizeIfDue(self) -> None:
        if self._seconds() - self._summaryAt >= _SUMMARY_EVERY:
            self.summarize()

    def summarize(self) -> None:
        """
        Log how many lines were left out since the last summary, if any.  This also runs with the
        first event a minute after the last summary; call it regularly in case no event follows.
        """
        self._summaryAt = self._seconds()
        counts = {each: bucket.suppressed for each, bucket in self._peers.items()}
        total = sum(counts.values()) + self._forgotten
        if not total:
            return
        most = max(counts, key=counts.__getitem__)
        self._own.warn(
            "{total} more lines about clients were not logged; {count} of them about {network}",
            total=total,
            count=counts[most],
            network=most,
        )
        self._forgotten = 0
        for bucket in self._peers.values():
            bucket.suppressed = 0


def shorten(text: str, most: int = VALUE_MAX) -> str:
    """
    @return: the text in one line of at most about C{most} printable characters.  If it was cut, it
        ends with its original length.
    """
    shown = text[:most]
    if not shown.isprintable():
        shown = "".join(
            each if each.isprintable() else each.encode("unicode-escape").decode("ascii")
            for each in shown
        )[:most]
    return shown if len(text) <= most else f"{shown}... ({len(text):,} characters)"


def _shortened(event: LogEvent) -> LogEvent:
    """
    @return: the event, or a copy of it with shortened values.
    """
    changed: LogEvent = {
        name: shorten(text)
        for name, value in event.items()
        if not (isinstance(value, _SHORT) or name.startswith("log_"))
        if len(text := str(value)) > VALUE_MAX or not text.isprintable()
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure) and len(traceback := failure.getTraceback()) > _TRACEBACK_MAX:
        # Observers format a failure with its getTraceback().
        changed["log_failure"] = short = copy(failure)
        short.getTraceback = lambda *_: traceback[:_TRACEBACK_MAX]  # type: ignore[method-assign]
    return {**event, **changed} if changed else event


BOUNDS: Final = LogBounds(globalLogPublisher)
"""
The limits for all loggers of this process.
"""
