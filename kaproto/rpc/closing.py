"""
Closing a connection: cleanly, at once, or on a missed deadline.  The first reason wins, and no
timer is left.
"""

from __future__ import annotations

from functools import partial
from typing import Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from kaproto.errors import ConnectionClosed, DeadlineMissed
from kaproto.keepalive.deadline import Deadline
from kaproto.rpc.shared import Shared
from kaproto.transport import StreamTransport, closeIfSent, endWriting, hasUnread
from kaproto.waiting import Waiting
from kaproto.wire.message import MESSAGE_MAX

__all__ = ["Closing", "Stopped"]

_LINGER: Final = 1.0
"""
Seconds that a peer has to close its end, after everything has been sent to it.
"""


class Stopped(Protocol):
    """
    The part of the connection that L{Closing} uses.
    """

    def closingBegan(self) -> None:
        """
        The connection begins to close: send nothing more.
        """


class Closing:
    """
    Closes one connection, for a reason or because of a missed deadline.

    @ivar reason: why the connection closes; C{None} while it does not.  The first reason wins.
    """

    __slots__ = (
        "_connection",
        "_deadline",
        "_discarded",
        "_ended",
        "_shared",
        "_transport",
        "_waiting",
        "reason",
    )

    def __init__(
        self,
        transport: StreamTransport,
        shared: Shared,
        connection: Stopped,
    ) -> None:
        """
        @param shared: has the clock and the limits.
        @param connection: notified when the connection begins to close.
        """
        self.reason: Exception | None = None
        self._transport = transport
        self._shared = shared
        self._connection: Stopped | None = connection
        self._deadline: Deadline | IDelayedCall | None = None
        self._waiting: Waiting[Exception] | None = None
        self._discarded = 0
        self._ended = False

    def whenClosed(self) -> Deferred[Exception]:
        """
        @return: fires, never fails, with the reason once the connection is gone:
            L{kaproto.errors.KeepAliveTimeout}, L{ConnectionClosed},
            L{kaproto.errors.RemoteProtocolError} or what the transport reported.
        """
        if self._ended and self.reason is not None:
            return succeed(self.reason)
        if self._waiting is None:
            self._waiting = Waiting()
        return self._waiting.wait()

    def setDeadline(
        self,
        seconds: float,
        expected: str,
        allowed: float | None = None,
        setting: str | None = None,
    ) -> None:
        """
        Close the connection with L{DeadlineMissed} unless L{clearDeadline} is called in time.
        There is one deadline at a time.  It does not run while this process is stalled, see
        L{Deadline}.

        @param expected: the step that the peer failed to take, such as C{"it did not log in"}.
        @param allowed: the seconds to name in the error, if the peer has used up some of them
            already; by default C{seconds}.
        @param setting: the setting of kaserver to name in the error.
        """
        self.clearDeadline()
        self._deadline = Deadline(
            self._shared.clock,
            seconds,
            partial(self._missed, expected, allowed or seconds, setting),
            partial(hasUnread, self._transport),
        )

    def clearDeadline(self) -> None:
        """
        The peer has done what the deadline was for.
        """
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @property
    def timeLeft(self) -> float:
        """
        Seconds until the deadline; 0 when there is none.
        """
        return self._deadline.left if isinstance(self._deadline, Deadline) else 0.0

    def _missed(self, expected: str, seconds: float, setting: str | None) -> None:
        self._deadline = None
        self.abort(DeadlineMissed(expected, seconds, setting))

    def disconnect(self, reason: Exception) -> None:
        """
        Send the buffered bytes, close the sending direction, and wait for the peer to close its
        end, so that it can finish writing and read the reason.  After C{limits.closeTimeout}
        seconds the connection is closed in any case.
        """
        if self._begin(reason):
            endWriting(self._transport)
            seconds = self._shared.limits.closeTimeout
            linger = min(seconds, _LINGER)
            self._lingerFor(linger, seconds - linger)

    def leave(self, reason: Exception, seconds: float) -> None:
        """
        Send the buffered bytes and close, without waiting for the peer, which is dead.

        @param seconds: the time after which the connection is aborted if not everything was sent.
        """
        if self._begin(reason):
            self._transport.loseConnection()
            self._lingerFor(seconds, 0)

    def abort(self, reason: Exception) -> None:
        """
        Close the connection at once, without sending what is buffered.
        """
        if self._begin(reason):
            self._transport.abortConnection()
        else:
            self.closeNow()

    def _begin(self, reason: Exception) -> bool:
        """
        @return: whether this is the first reason to close.
        """
        if self.reason is not None:
            return False
        # The frames of its traceback refer to this connection, and would keep it in memory until
        # the garbage collector runs.
        self.reason = reason.with_traceback(None)
        self.clearDeadline()
        assert self._connection is not None, "a connection that has ended has a reason"
        self._connection.closingBegan()
        return True

    def _lingerFor(self, seconds: float, more: float) -> None:
        self._deadline = self._shared.clock.callLater(seconds, self._lingered, more)

    def _lingered(self, left: float) -> None:
        self._deadline = None
        if closeIfSent(self._transport):
            return
        if left:
            self._lingerFor(left, 0)
        else:
            self._transport.abortConnection()

    def discard(self, size: int) -> None:
        """
        Bytes arrived from the peer while the connection closes.  The peer may finish the message
        that it is writing, of any size; if it sends more, the connection is closed.
        """
        self._discarded += size
        if self._discarded > MESSAGE_MAX:
            self.closeNow()

    def closeNow(self) -> None:
        """
        Close without waiting for the peer any longer.
        """
        self.clearDeadline()
        self._lingered(0)

    def lost(self, failure: Failure) -> Exception:
        """
        The transport is gone.

        @return: the reason.
        """
        self.clearDeadline()
        if self.reason is None:
            cause = failure.value
            if isinstance(cause, Exception) and not isinstance(cause, ConnectionDone):
                self.reason = cause
            else:
                self.reason = ConnectionClosed("the peer closed the connection")
        return self.reason

    def end(self) -> None:
        """
        The connection has ended: fire every Deferred of L{whenClosed}.
        """
        self._ended = True
        # Break the cycle of references, to free the connection without the garbage collector.
        self._connection = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            assert self.reason is not None, "it is set when the transport is lost"
            waiting.fire(self.reason)
