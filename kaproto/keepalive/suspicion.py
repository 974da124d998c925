"""
The look at a silent peer before it is pinged again or given up.

A peer that has left a ping unanswered for an interval is not dead if

 - bytes of it wait in the socket, or half a TLS record has come;
 - it reads slowly, and has not yet taken what was written in front of the ping;
 - the ping has to wait for the end of a message that is being relayed to it;
 - a L{Judge} knows better.
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
    Knows more of a peer than its own silence, and has the last word on it.
    """

    def suspected(self) -> None:
        """
        The peer has left a ping unanswered for an interval, or has yet to take what was written in
        front of it and took nothing for an interval.  This may be said several times.
        """

    def excuses(self) -> bool:
        """
        The peer has left all pings unanswered.

        @return: whether it lives all the same.  If so, this is asked again after each interval
            until the peer is heard.
        """


def _never() -> bool:
    return False


class Suspicion:
    """
    What is known of one peer apart from what it says.

    @ivar unread: looks at the peer while it is pinged although it is not read.
    @ivar isBusy: whether a ping would now have to wait for the end of a message whose rest has not
        come from its sender.  The peer cannot answer then, so its silence proves nothing.
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
        The peer has answered, or is not watched any longer.
        """
        self._condemned = False
        self._progress = None
        if self._sent is not None:
            self._sent.stop()
            self._sent = None

    def examine(self, now: float, verdict: Verdict, judge: Judge | None) -> Verdict:
        """
        A ping has been left unanswered for an interval.  Ask the layers beneath about the peer.

        @param verdict: what its silence alone says: ping it again, or give it up.
        @param judge: told if the peer is silent.
        @return: what to do.
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
        A peer that reads slowly has not been asked before it has taken what was written in front
        of the ping.
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
        The peer has left all pings unanswered.  It is alive if what it sent waits to be read.

        @param judge: asked at last.
        @return: when to look again, or why it is dead.
        """
        liveness = self._liveness
        found = None if self.unread is None else delivery(self._transport)
        if self.unread is None:
            unread = hasUnread(self._transport)
        elif found is not None and found.local:
            # It could read our pings, whether or not it could answer them.
            unread = False
        else:
            unread = isReceiveBufferFull(self._transport)
            gone = self._hostGone(now) if unread else None
            if gone is not None:
                return gone
        if unread is None and not self._condemned:
            # Of this transport that cannot be told before the reactor has had its turn.
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
        The peer can be pinged after the end of a message only, see L{isBusy}.

        @return: when to look again, or why it is dead.
        """
        gone = self._hostGone(now)
        if gone is not None:
            return gone
        self._liveness.hear(now)
        return self._liveness.due()

    def _hostGone(self, now: float) -> DeliveryTimeout | None:
        """
        A peer that cannot be pinged in the middle of a message is watched by the kernel, which
        finds that its host is gone, but not that its program is stopped.

        @return: why it is dead, if it is.
        """
        if self._unacknowledged is None:
            self._unacknowledged = Unacknowledged()
        waited = self._unacknowledged.looked(now, delivery(self._transport))
        interval, count = self._liveness.interval, self._liveness.count
        if waited < interval * (count + 1):
            return None
        return DeliveryTimeout(interval, count, waited)
