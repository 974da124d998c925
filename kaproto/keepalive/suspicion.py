"""
Checks a silent peer before it is pinged again or declared dead.

A peer that has left a ping unanswered for an interval is not dead if

 - its bytes wait in the socket, or a part of a TLS record has arrived;
 - it reads slowly, and has not yet taken everything written before the ping;
 - the ping has to wait for the end of a message that is being relayed to it;
 - a L{Judge} excuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kaproto.errors import DeliveryTimeout, KeepAliveTimeout
from kaproto.keepalive.kernel import Delivery, SentCounter, delivery, isReceiveBufferFull
from kaproto.keepalive.kernelwatch import Unacknowledged
from kaproto.keepalive.liveness import Liveness, Verdict
from kaproto.keepalive.progress import ROUNDING, Progress
from kaproto.keepalive.unreadpeer import UnreadPeer
from kaproto.transport import StreamTransport, hasUnread, tlsOf

__all__ = ["Judge", "Suspicion"]


class Judge(Protocol):
    """
    Has evidence about a peer besides its silence, and decides last.
    """

    def suspected(self) -> None:
        """
        The peer has left a ping unanswered for an interval, or took nothing for an interval while
        bytes written before the ping wait.  This may be called several times.
        """

    def excuses(self) -> bool:
        """
        The peer has left all pings unanswered.

        @return: whether it is alive nevertheless.  If so, this is called again after each interval
            until the peer is heard.
        """


def _never() -> bool:
    return False


class Suspicion:
    """
    The evidence about one peer besides its messages.

    @ivar unread: checks the peer while it is pinged but not read.
    @ivar isBusy: whether a ping would have to wait for the end of a message whose sender has not
        sent the rest yet.  The peer cannot answer then, so its silence proves nothing.
    @ivar isHeldBack: whether a ping was sent and still waits for the end of a message.
    """

    __slots__ = (
        "_condemned",
        "_liveness",
        "_progress",
        "_sent",
        "_transport",
        "_unacknowledged",
        "isBusy",
        "isHeldBack",
        "unread",
    )

    def __init__(self, transport: StreamTransport, liveness: Liveness) -> None:
        self.isBusy: Callable[[], bool] = _never
        self.isHeldBack: Callable[[], bool] = _never
        self.unread: UnreadPeer | None = None
        self._transport = transport
        self._liveness = liveness
        self._condemned = False
        self._progress: Progress | None = None
        self._sent: SentCounter | None = None
        self._unacknowledged: Unacknowledged | None = None

    def clear(self) -> None:
        """
        The peer has answered, or is no longer watched.
        """
        self._condemned = False
        self._progress = None
        if self._sent is not None:
            self._sent.stop()
            self._sent = None

    def examine(self, now: float, verdict: Verdict, judge: Judge | None) -> Verdict:
        """
        A ping has been unanswered for an interval.  Check the TLS layer and the kernel for signs of
        life.

        @param verdict: the verdict by its silence alone: ping it again, or declare it dead.
        @param judge: notified if the peer is silent.
        @return: the verdict.
        """
        liveness = self._liveness
        if self.unread is not None:
            self.unread.look(now)
            if not liveness.unanswered:
                return liveness.check(now)
        verdict = self._askBeneath(now, verdict)
        if verdict is Verdict.DEAD:
            return verdict
        self._condemned = False
        if judge is not None and now - liveness.heard >= liveness.interval:
            judge.suspected()
        return verdict

    def _askBeneath(self, now: float, verdict: Verdict) -> Verdict:
        progress = self._progress
        if progress is None:
            progress = self._progress = Progress()
        found = delivery(self._transport)
        received: int | None = getattr(tlsOf(self._transport), "bytesReceived", None)
        heardAt = progress.heardAt(now, found, received)
        if heardAt > self._liveness.heard + ROUNDING:
            self._liveness.hear(heardAt)
            return self._liveness.check(now)
        return verdict if found is None else self._lookInFront(now, verdict, found, progress)

    def _lookInFront(
        self, now: float, verdict: Verdict, found: Delivery, progress: Progress
    ) -> Verdict:
        """
        Check whether the ping has reached the peer: a peer that reads slowly must first take
        everything written before the ping.
        """
        isHeldBack = self.isHeldBack()
        if isHeldBack and self.isBusy():
            return Verdict.PING
        if self._sent is None and found.acknowledged is None:
            self._sent = SentCounter(self._transport)
        sent = 0 if self._sent is None else self._sent.total
        takenBefore = progress.takenAt
        if not progress.isAsked(now, found, sent, isHeldBack=isHeldBack):
            return self._liveness.takes(now, progress.takenAt)
        if progress.takenAt == takenBefore:
            return verdict
        self._liveness.tookAll(progress.takenAt)
        return self._liveness.check(now)

    def conclude(self, now: float, judge: Judge | None) -> float | KeepAliveTimeout:
        """
        The peer has left all pings unanswered.  It is alive if its bytes wait to be read.

        @param judge: asked last.
        @return: the time of the next check, or the reason why the peer is dead.
        """
        liveness = self._liveness
        found = None if self.unread is None else delivery(self._transport)
        if self.unread is None:
            unread = hasUnread(self._transport)
        elif found is not None and found.local:
            # A live peer would have read our pings here, even if it could not answer them.
            unread = False
        else:
            unread = isReceiveBufferFull(self._transport)
            gone = self._hostGone(now) if unread else None
            if gone is not None:
                return gone
        if unread is None and not self._condemned:
            # This transport's socket is not known: let the reactor read from it first.
            self._condemned = True
            return now
        if unread:
            self._condemned = False
            liveness.hear(now)
            return liveness.due()
        if judge is not None and judge.excuses():
            self._condemned = False
            return now + liveness.interval
        return liveness.timeout(now)

    def wait(self, now: float) -> float | KeepAliveTimeout:
        """
        A ping has to wait for the end of a message, see L{isBusy}.

        @return: the time of the next check, or the reason why the peer is dead.
        """
        gone = self._hostGone(now)
        if gone is not None:
            return gone
        self._liveness.hear(now)
        return self._liveness.due()

    def _hostGone(self, now: float) -> DeliveryTimeout | None:
        """
        Check the kernel's counters for a peer whose silence proves nothing.  They show that its
        host is gone, but not that its program is stopped.

        @return: the reason why the peer is dead; C{None} if it is not known to be.
        """
        if self._unacknowledged is None:
            self._unacknowledged = Unacknowledged()
        waited = self._unacknowledged.looked(now, delivery(self._transport))
        interval, count = self._liveness.interval, self._liveness.count
        if waited < interval * (count + 1):
            return None
        return DeliveryTimeout(interval, count, waited)
