"""
How a connection ends: by a deadline that was missed, in order, or at once; for one reason, and
with no timer left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol as Slice

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from kaproto.errors import ConnectionClosed, DeadlineMissed
from kaproto.keepalive.deadline import Deadline
from kaproto.limits import Limits
from kaproto.transport import StreamTransport, hasUnread

__all__ = ["ClosingProtocol", "Timed"]


class Timed(Slice):
    """
    What a connection needs of its factory.

    @ivar clock: where timeouts are scheduled.
    @ivar seconds: a monotonic clock.
    @ivar limits: how long to wait for what.
    """

    clock: IReactorTime
    seconds: Callable[[], float]
    limits: Limits


class ClosingProtocol(Protocol):
    """
    A connection that ends for a reason, which it keeps to once it has one.

    @ivar factory: what built it.
    """

    factory: Timed
    transport: StreamTransport  # type: ignore[assignment]

    _reason: Exception | None = None
    _deadline: Deadline | IDelayedCall | None = None
    _ended = False
    _waitingClosed: list[Deferred[Exception]] | None = None

    def closed(self, reason: Exception) -> None:
        """
        The connection is gone.  Override it, and call this one as well.

        @param reason: why, as far as this end knows.
        """

    def whenClosed(self) -> Deferred[Exception]:
        """
        @return: fires, never fails, with the reason once the connection is gone:
            L{kaproto.errors.KeepAliveTimeout}, L{ConnectionClosed},
            L{kaproto.errors.RemoteProtocolError} or what the transport reported.
        """
        if self._ended and self._reason is not None:
            return succeed(self._reason)
        waiting: Deferred[Exception] = Deferred()
        if self._waitingClosed is None:
            self._waitingClosed = []
        self._waitingClosed.append(waiting)
        return waiting

    def setDeadline(self, seconds: float, expected: str) -> None:
        """
        Close the connection with L{DeadlineMissed} unless L{clearDeadline} is called in time.
        There is one deadline at a time.  See L{Deadline} for what a stall of this process means.

        @param expected: what the peer has to do, said as what did not happen.
        """
        self.clearDeadline()
        factory = self.factory
        self._deadline = Deadline(
            factory.clock,
            factory.seconds,
            seconds,
            partial(self._missed, seconds, expected),
            partial(hasUnread, self.transport),
        )

    def clearDeadline(self) -> None:
        """
        What the deadline was for has happened.
        """
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _missed(self, seconds: float, expected: str) -> None:
        self._deadline = None
        self.abort(DeadlineMissed(expected, seconds))

    def disconnect(self, reason: Exception, timeout: float | None = None) -> None:
        """
        Close the connection once all that was written has been sent.

        @param reason: what L{closed} is called with.
        @param timeout: seconds after which to close it all the same, by default
            C{limits.closeTimeout}.
        """
        if self._reason is not None:
            return
        self._end(reason)
        self._deadline = self.factory.clock.callLater(
            self.factory.limits.closeTimeout if timeout is None else timeout, self._closeNow
        )
        self.transport.loseConnection()

    def abort(self, reason: Exception) -> None:
        """
        Close the connection at once, whatever has not been sent.

        @param reason: what L{closed} is called with.
        """
        if self._reason is None:
            self._end(reason)
        self.transport.abortConnection()

    def _end(self, reason: Exception) -> None:
        """
        This end is closing: do nothing more but that.
        """
        # Without the frames that it was raised in: they refer to this connection, which would stay
        # in memory until the garbage collector runs.
        self._reason = reason.with_traceback(None)
        self._stopTimers()

    def _stopTimers(self) -> None:
        """
        Leave no timer behind.
        """
        self.clearDeadline()

    def _closeNow(self) -> None:
        self._deadline = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The transport is gone.
        """
        self._stopTimers()
        if self._reason is None:
            cause = reason.value
            if isinstance(cause, Exception) and not isinstance(cause, ConnectionDone):
                self._reason = cause
            else:
                self._reason = ConnectionClosed("the peer closed the connection")
        try:
            self.closed(self._reason)
        finally:
            self._ended = True
            waiting, self._waitingClosed = self._waitingClosed, None
            for each in waiting or ():
                each.callback(self._reason)
