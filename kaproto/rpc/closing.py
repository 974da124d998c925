"""
Closing a connection: the ways to close, the reason, the deadline, and those who wait for the end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

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

__all__ = ["Closing"]

_LINGER: Final = 1.0
"""
Seconds that a peer has to close its end, once it has been sent everything.
"""


class Closing:
    """
    Closes one connection, for a reason or because of a missed deadline.

    @ivar reason: why the connection closes; C{None} while it does not.  The first reason wins.
    """

    __slots__ = (
        "_deadline",
        "_discarded",
        "_ended",
        "_shared",
        "_stop",
        "_transport",
        "_waiting",
        "reason",
    )

    def __init__(
        self,
        transport: StreamTransport,
        shared: Shared,
        stop: Callable[[], object],
    ) -> None:
        """
        @param shared: has the clock and the limits.
        @param stop: called when the connection begins to close: nothing more may be sent.
        """
        self.reason: Exception | None = None
        self._transport = transport
        self._shared = shared
        self._stop = stop
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

        @param expected: what the peer failed to do, such as C{"it did not log in"}.
        @param allowed: the seconds that the error names, if the peer has used up some already.
        @param setting: the setting of kaserver that the error names.
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
        Send what was written and the end of it, and wait for the peer to close its end too, so that
        it can finish what it is writing and read why.  After C{limits.closeTimeout} seconds the
        connection is closed all the same.
        """
        if self._begin(reason):
            endWriting(self._transport)
            seconds = self._shared.limits.closeTimeout
            linger = min(seconds, _LINGER)
            self._lingerFor(linger, seconds - linger)

    def leave(self, reason: Exception, seconds: float) -> None:
        """
        Send what was written and close, without waiting for a dead peer.

        @param seconds: after which to abort the connection if not everything was sent.
        """
        if self._begin(reason):
            self._transport.loseConnection()
            self._lingerFor(seconds, 0)

    def abort(self, reason: Exception) -> None:
        """
        Close the connection at once, and drop what has not been sent.
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
        # The frames in which it was raised refer to this connection, which would stay in memory
        # until the garbage collector runs.
        self.reason = reason.with_traceback(None)
        self.clearDeadline()
        self._stop()
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
        Bytes came from the peer while the connection closes.  It may finish the message that it is
        writing, whatever its size, but is not waited for if it sends more.
        """
        self._discarded += size
        if self._discarded > MESSAGE_MAX:
            self.closeNow()

    def closeNow(self) -> None:
        """
        Wait for the peer no longer.
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
        # The function refers to the connection, which it would keep in memory.
        self._stop = lambda: None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            assert self.reason is not None, "it is set when the transport is lost"
            waiting.fire(self.reason)
