"""
The watch on one peer: when to ping it, whether it is alive, how fast it answers.

A L{Heartbeat} knows no protocol.  It is told how to send a ping and that something was heard, so
it can watch the peer of any Twisted protocol::

    class Chat(LineReceiver):
        def connectionMade(self):
            self.heartbeat = Heartbeat(self.transport, ping=lambda: self.sendLine(b"PING"))
            self.heartbeat.start(KeepAlive(5, 5))

        def dataReceived(self, data):
            self.heartbeat.heard()
            super().dataReceived(data)
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nextafter
from typing import Final, Protocol, cast
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IReactorTime, ITransport

from kaproto.errors import DeliveryTimeout, KeepAliveTimeout
from kaproto.keepalive.clock import MonotonicClock, monotonicClock
from kaproto.keepalive.histogram import SENT, Histogram
from kaproto.keepalive.idlereader import IdleReader
from kaproto.keepalive.kernel import Delivery, SentCounter, delivery, isReceiveBufferFull
from kaproto.keepalive.kernelwatch import Unacknowledged
from kaproto.keepalive.liveness import KeepAlive, Liveness, Verdict
from kaproto.keepalive.pacemaker import Pacemaker
from kaproto.keepalive.progress import ROUNDING, Progress
from kaproto.transport import StreamTransport, hasUnread, tlsOf, writeNow

__all__ = ["Heartbeat", "Judge", "Monitor"]


class Judge(Protocol):
    """
    Knows more of a peer than its own silence, and has the last word on it.
    """

    def suspected(self) -> None:
        """
        The peer has left a ping unanswered for an interval.
        """

    def excuses(self) -> bool:
        """
        The peer has left all pings unanswered.

        @return: whether it lives all the same.  If so, this is asked again after each interval
            until the peer is heard.
        """


class Monitor:
    """
    What all heartbeats of one reactor share.

    @ivar pacemaker: calls each heartbeat when it is due.
    @ivar idleReader: reads the pongs of idle connections; C{None} where there is no C{epoll}.
    """

    __slots__ = ("__weakref__", "idleReader", "pacemaker")

    def __init__(self, clock: IReactorTime) -> None:
        self.pacemaker = Pacemaker(clock)
        reactor = clock.reactor if isinstance(clock, MonotonicClock) else clock
        self.idleReader = IdleReader.orNone(reactor, self.pacemaker)

    @classmethod
    def of(cls, clock: IReactorTime) -> Monitor:
        """
        @param clock: a reactor, its L{monotonicClock} or a L{twisted.internet.task.Clock}.
        @return: the one of this reactor, which lives as long as anybody refers to it.
        """
        clock = monotonicClock(clock)
        monitor = _monitors.get(clock)
        if monitor is None:
            monitor = _monitors[clock] = cls(clock)
        return monitor


_SECOND: Final = 2

# A member of an enumeration takes longer to look up than a global name.
_WAIT: Final = Verdict.WAIT
_PING: Final = Verdict.PING
_DEAD: Final = Verdict.DEAD

_monitors: Final[WeakValueDictionary[IReactorTime, Monitor]] = WeakValueDictionary()


class Heartbeat:
    """
    Watches the peer at the other end of a transport.

    The peer is pinged after C{interval} seconds of silence, and is dead C{interval * (count + 1)}
    seconds after it was last heard.  Before it is given up, whatever it sent that has not been
    read yet is read.  Time during which this process was stalled or suspended does not count.

    @ivar transport: the connection to the peer.
    @ivar liveness: when it was last heard.  L{heard} sets it; a receive path that cannot afford
        a call does so itself.
    @ivar pacemaker: calls this when it is due, and has the time on the scale of C{liveness}.
    @ivar pong: the bytes that answer a ping, when there is just one way to write them.
    @ivar latency: seconds between the latest ping that was answered and the answer; C{None} until
        there is one.
    @ivar roundTrips: where to count each L{latency}, if anywhere.
    @ivar onAnswer: called with each L{latency}, unless it is C{None}.  While it is there, the
        connection is not read by the L{IdleReader}.
    @ivar slot: where on the wheel this is.  It belongs to the L{Pacemaker}.
    @ivar exact: whether the next time is to be kept exactly.  It belongs to the L{Pacemaker}.
    @ivar idle: the file descriptor while the L{IdleReader} reads it, else negative.
    @ivar judge: asked before the peer is given up, if there is one.
    @ivar pingedAt: when the ping was sent that has not been answered, for L{latency}.
    """

    __slots__ = (
        "_condemned",
        "_died",
        "_isBetween",
        "_isBusy",
        "_isHeldBack",
        "_isUnread",
        "_monitor",
        "_ping",
        "_progress",
        "_sent",
        "_unacknowledged",
        "exact",
        "idle",
        "judge",
        "latency",
        "liveness",
        "onAnswer",
        "pacemaker",
        "pingedAt",
        "pong",
        "roundTrips",
        "slot",
        "transport",
    )

    def __init__(
        self,
        transport: StreamTransport | ITransport | None,
        ping: bytes | Callable[[], object],
        *,
        died: Callable[[KeepAliveTimeout], object] | None = None,
        pong: bytes = b"",
        isBetween: Callable[[], bool] | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param transport: the connection to the peer, which has to be there.
        @param ping: the bytes of a ping, or a function that sends one.
        @param died: called once when the peer is dead, never after the transport has ended; by
            default the transport is aborted.
        @param pong: the bytes that always and only answer a ping.  With them, connections on
            which nothing else happens cost less; see L{IdleReader}.
        @param isBetween: whether nothing is left of what was received but a whole number of
            messages, so that C{pong} can be told from the middle of another message.  Needed
            with C{pong}.
        @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the transport's
            reactor, if it has one, else the installed one.
        """
        if clock is None:
            clock = getattr(transport, "reactor", None)
        if clock is None:
            from twisted.internet import reactor

            clock = IReactorTime(reactor)
        self._monitor = monitor = Monitor.of(clock)
        self.pacemaker = monitor.pacemaker
        self.transport = cast(StreamTransport, transport)
        self.liveness = Liveness(self.pacemaker.now)
        self.pong = pong
        self.judge: Judge | None = None
        self.latency: float | None = None
        self.pingedAt: float | None = None
        self.roundTrips: Histogram | None = None
        self.onAnswer: Callable[[float], object] | None = None
        self.slot = self.idle = -1
        self.exact = False
        self._ping = ping
        self._died = died
        self._isBetween = isBetween
        self._isBusy: Callable[[], bool] | None = None
        self._isHeldBack: Callable[[], bool] | None = None
        self._condemned = self._isUnread = False
        self._unacknowledged: Unacknowledged | None = None
        self._progress: Progress | None = None
        self._sent: SentCounter | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.transport.getPeer()}>"

    @property
    def keepAlive(self) -> KeepAlive:
        """
        The interval and count at which the peer is pinged; zeros if it is not.
        """
        liveness = self.liveness
        return KeepAlive(liveness.interval, liveness.count if liveness.interval else 0)

    @property
    def silence(self) -> float:
        """
        Seconds since the peer was last heard, to the precision of
        L{kaproto.keepalive.pacemaker.TICK}, and only while anybody is watched.
        """
        return self.pacemaker.now - self.liveness.heard

    def start(self, keepAlive: KeepAlive) -> None:
        """
        Ping the peer from now on, in place of any earlier interval and count.  A zero in either
        stops it.
        """
        if keepAlive.enabled:
            self.liveness.start(keepAlive)
            self.pacemaker.watch(self, self.liveness.due())
        else:
            self.stop()

    def stop(self) -> None:
        """
        Do not ping the peer any more.
        """
        self.liveness.stop()
        self.pacemaker.forget(self)
        self._forgetProgress()
        self._readAsUsual()

    def end(self) -> None:
        """
        Stop for good, and let go of the protocol.
        """
        # Without the cycle of references it takes no garbage collector to free a connection.
        self.liveness.stop()
        self.pacemaker.forget(self)
        self._stopIdling()
        self._ping = b""
        self._died = self._isBetween = self._isBusy = self._isHeldBack = None
        self.onAnswer = self.judge = None
        self._forgetProgress()

    def heard(self) -> None:
        """
        Something came from the peer: any bytes, a message in part included.
        """
        self.liveness.hear(self.pacemaker.now)
        self.answered()

    def answered(self) -> None:
        """
        A pong came: measure L{latency}.
        """
        if self.pingedAt is not None:
            self.latency = latency = self.pacemaker.seconds() - self.pingedAt
            self.pingedAt = None
            if self.roundTrips is not None:
                self.roundTrips.add(latency)
            if self.onAnswer is not None:
                self.onAnswer(latency)

    def ask(self, onAnswer: Callable[[float], object]) -> None:
        """
        Ping the peer now, whether it is watched or not.

        @param onAnswer: called with the seconds that this answer took, and each one after it.
        """
        self.watchAnswers(onAnswer)
        self.sendPing()

    def watchAnswers(self, onAnswer: Callable[[float], object]) -> None:
        """
        Have somebody told of each answer to a ping.

        @param onAnswer: called with the seconds that the answer took.
        """
        self._readAsUsual()
        self.onAnswer = onAnswer

    def pause(self, *, pingOn: bool = False) -> None:
        """
        The transport is about to be paused.  The peer cannot be heard until L{resume}, so its
        silence does not count.

        @param pingOn: go on pinging it all the same, where the kernel says when its latest bytes
            came.  Once our receive buffer is full they cannot come, and only a host that is gone
            is found, by the pings that it does not acknowledge.
        """
        now = self.pacemaker.now
        found = delivery(self.transport) if pingOn else None
        self._isUnread = found is not None and found.silence is not None
        if not self._isUnread:
            self.liveness.pause(now)
        elif self.liveness.pausedAt is not None:
            self._countSilence(now)
        self._stopIdling()

    def resume(self) -> None:
        """
        The transport is about to be read again.
        """
        self._isUnread = False
        self._countSilence(self.pacemaker.now)

    def _countSilence(self, now: float) -> None:
        liveness = self.liveness
        liveness.resume(now)
        if liveness.interval and self.slot < 0:
            self.pacemaker.watch(self, liveness.due())

    def relay(
        self,
        ping: Callable[[], object],
        isBusy: Callable[[], bool],
        isHeldBack: Callable[[], bool],
    ) -> None:
        """
        Others write to the transport from now on, whole messages or parts of them, and a ping has
        to fit in between.

        @param ping: sends a ping.
        @param isBusy: whether a ping would now have to wait for the end of a message whose rest
            has not come from its sender.  The peer cannot answer then, so its silence proves
            nothing.
        @param isHeldBack: whether a ping was sent and still waits for the end of a message.
        """
        self._ping, self._isBusy, self._isHeldBack = ping, isBusy, isHeldBack

    def due(self, now: float, /) -> float | None:
        """
        The pacemaker calls at the time it was asked to.

        @return: when to be called next; C{None} for never.
        """
        liveness = self.liveness
        verdict = liveness.check(now)
        if verdict is not _WAIT:
            if verdict is _DEAD or liveness.unanswered >= _SECOND:
                verdict = self._lookBeneath(now, verdict)
            elif self._progress is not None:
                self._forgetProgress()
        if verdict is _WAIT:
            self._condemned = False
            if liveness.pausedAt is not None:
                return None
        elif getattr(self.transport, "disconnected", False):
            self.end()
            return None
        elif verdict is _PING:
            self._condemned = False
            if self._isBusy is not None and self._isBusy():
                return self._waitForMessage(now)
            self.pacemaker.pingLater(self)
            if self.idle < 0 and self._monitor.idleReader is not None:
                self._startIdling(self._monitor.idleReader)
        else:
            return self._confirmDeath(now)
        # A ping may be a little late; after the last one it is death that is due.
        self.exact = liveness.unanswered >= liveness.count
        due = liveness.due()
        # An interval that is too short to be told from none must not mean once more in this turn.
        return due if due > now else nextafter(now, inf)

    def _lookBeneath(self, now: float, verdict: Verdict) -> Verdict:
        """
        A ping has been left unanswered for an interval.  Before the peer is pinged again or given
        up, look at what the layers beneath know of it.
        """
        progress = self._progress
        if progress is None:
            progress = self._progress = Progress()
        found = delivery(self.transport)
        received: int | None = getattr(tlsOf(self.transport), "bytesReceived", None)
        heardAt = progress.heardAt(now, found, received)
        if heardAt > self.liveness.heard + ROUNDING:
            self.liveness.hear(heardAt)
            return self.liveness.check(now)
        if found is not None:
            verdict = self._lookInFront(now, verdict, found)
        if self.judge is not None and verdict is _PING and self.liveness.unanswered == _SECOND:
            self.judge.suspected()
        return verdict

    def _lookInFront(self, now: float, verdict: Verdict, found: Delivery) -> Verdict:
        """
        A peer that reads slowly has not been asked before it has taken what was written in front
        of the ping.
        """
        isHeldBack = self._isHeldBack is not None and self._isHeldBack()
        if isHeldBack and self._isBusy is not None and self._isBusy():
            return Verdict.PING
        if self._sent is None and found.acknowledged is None:
            self._sent = SentCounter(self.transport)
        sent = 0 if self._sent is None else self._sent.total
        progress = self._progress
        assert progress is not None, "it was made by the caller"
        takenBefore = progress.takenAt
        if not progress.isAsked(now, found, sent, isHeldBack=isHeldBack):
            return self.liveness.takes(now, progress.takenAt)
        if progress.takenAt == takenBefore:
            return verdict
        self.liveness.tookAll(progress.takenAt)
        return self.liveness.check(now)

    def _forgetProgress(self) -> None:
        self._progress = None
        if self._sent is not None:
            self._sent.stop()
            self._sent = None

    def _confirmDeath(self, now: float) -> float | None:
        """
        A peer that seems dead is not, if what it sent is waiting to be read.
        """
        unread: bool | None
        if self._isUnread:
            unread = isReceiveBufferFull(self.transport)
            if unread and self._isHostGone(now):
                return None
        else:
            unread = hasUnread(self.transport)
        if unread is None and not self._condemned:
            # Of this transport that cannot be told before the reactor has had its turn.
            self._condemned = True
            return now
        liveness = self.liveness
        if unread:
            self._condemned = self.exact = False
            liveness.hear(now)
            return liveness.due()
        if self.judge is not None and self.judge.excuses():
            self._condemned = False
            return now + liveness.interval
        self._die(liveness.timeout(now))
        return None

    def _startIdling(self, reader: IdleReader) -> None:
        if self._isBetween is not None and self.onAnswer is None and self._isBetween():
            reader.take(self)

    def _waitForMessage(self, now: float) -> float | None:
        """
        A peer that cannot be pinged in the middle of a message is watched by the kernel, which
        finds that its host is gone, and not that its program is stopped.
        """
        if self._isHostGone(now):
            return None
        self.exact = False
        self.pingedAt = None
        self.liveness.hear(now)
        return self.liveness.due()

    def _isHostGone(self, now: float) -> bool:
        if self._unacknowledged is None:
            self._unacknowledged = Unacknowledged()
        waited = self._unacknowledged.looked(now, delivery(self.transport))
        interval, count = self.liveness.interval, self.liveness.count
        if waited < interval * (count + 1):
            return False
        self._die(DeliveryTimeout(interval, count, waited))
        return True

    def _die(self, reason: KeepAliveTimeout) -> None:
        if self._died is None:
            self.transport.abortConnection()
        else:
            self._died(reason)

    def sendPing(self) -> None:
        """
        The pacemaker calls when all who were due have been checked.
        """
        if not self.liveness.interval and self.onAnswer is None:
            return
        self.pingedAt = self.pacemaker.seconds()
        if self.roundTrips is not None:
            self.roundTrips[SENT] += 1
        ping = self._ping
        if isinstance(ping, bytes):
            writeNow(self.transport, ping)
        else:
            ping()

    def _readAsUsual(self) -> None:
        if self.idle >= 0:
            self._stopIdling()
            self.transport.resumeProducing()

    def _stopIdling(self) -> None:
        if self.idle >= 0 and self._monitor.idleReader is not None:
            self._monitor.idleReader.release(self)
