"""
The watch on one peer: when to ping it, whether it is alive, how fast it answers.

A L{Heartbeat} knows no protocol: it is told how to send a ping and that something was heard.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nextafter
from typing import Final, cast

from twisted.internet.interfaces import IReactorTime, ITransport

from kaproto.errors import KeepAliveTimeout
from kaproto.keepalive.histogram import SENT, Histogram
from kaproto.keepalive.idlereader import IdleReader
from kaproto.keepalive.liveness import KeepAlive, Liveness, Verdict
from kaproto.keepalive.monitor import Monitor
from kaproto.keepalive.suspicion import Judge, Suspicion
from kaproto.keepalive.unreadpeer import UnreadPeer
from kaproto.transport import StreamTransport, writeNow

__all__ = ["Heartbeat"]


_SECOND: Final = 2

# A member of an enumeration takes longer to look up than a global name.
_WAIT: Final = Verdict.WAIT
_PING: Final = Verdict.PING
_DEAD: Final = Verdict.DEAD


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
        "_died",
        "_isBetween",
        "_monitor",
        "_ping",
        "_suspicion",
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
        self._monitor = monitor = Monitor.of(clock or getattr(transport, "reactor", None))
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
        self._suspicion: Suspicion | None = None

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
        self._clear()
        self._readAsUsual()

    def end(self) -> None:
        """
        Stop for good, and let go of the protocol.
        """
        # Without the cycle of references it takes no garbage collector to free a connection.
        self.liveness.stop()
        self.pacemaker.forget(self)
        self._stopIdling()
        self._clear()
        self._ping = b""
        self._died = self._isBetween = self._suspicion = None
        self.onAnswer = self.judge = None

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

    def pause(self, *, pingOn: bool = False, readsOn: bool = False) -> None:
        """
        The transport is about to be paused.  The peer cannot be heard until L{resume}, so its
        silence does not count.

        @param pingOn: ping it all the same, where the kernel says whether it lives, see
            L{kaproto.keepalive.unreadpeer}.
        @param readsOn: whether the peer reads on if it lives, though it is not read, as libvirt's
            clients do.  Then this is done on UNIX sockets too.
        """
        now, liveness = self.pacemaker.now, self.liveness
        unread = None
        if pingOn:
            unread = UnreadPeer.orNone(self.transport, liveness, readsOn=readsOn)
        self._setUnread(unread)
        if unread is None:
            liveness.pause(now)
        elif liveness.pausedAt is not None:
            self._countSilence(now)
        self._stopIdling()

    def resume(self) -> None:
        """
        The transport is about to be read again.
        """
        self._setUnread(None)
        self._countSilence(self.pacemaker.now)

    def hasToRead(self) -> bool:
        """
        @return: whether the peer is not read, and is known not to have read everything itself, so
            that another pong is of no use.
        """
        unread = None if self._suspicion is None else self._suspicion.unread
        return unread is not None and unread.look(self.pacemaker.now)

    def _setUnread(self, unread: UnreadPeer | None) -> None:
        if unread is not None:
            self._suspect().unread = unread
        elif self._suspicion is not None:
            self._suspicion.unread = None

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
        @param isBusy: as L{Suspicion.isBusy}.
        @param isHeldBack: as L{Suspicion.isHeldBack}.
        """
        self._ping = ping
        suspicion = self._suspect()
        suspicion.isBusy, suspicion.isHeldBack = isBusy, isHeldBack

    def readElsewhere(self) -> None:
        """
        Something else than the transport reads the connection from now on, and the L{IdleReader}
        does not.
        """
        self._readAsUsual()
        self._isBetween = None

    def due(self, now: float, /) -> float | None:
        """
        The pacemaker calls at the time it was asked to.

        @return: when to be called next; C{None} for never.
        """
        liveness, suspicion = self.liveness, self._suspicion
        verdict = liveness.check(now)
        if verdict is _DEAD or (verdict is _PING and liveness.unanswered >= _SECOND):
            verdict = self._suspect().examine(now, verdict, self.judge)
        elif verdict is _PING and suspicion is not None:
            suspicion.clear()
        if verdict is _WAIT:
            if liveness.pausedAt is not None:
                return None
        elif getattr(self.transport, "disconnected", False):
            self.end()
            return None
        elif verdict is _DEAD:
            return self._settle(self._suspect().conclude(now, self.judge))
        elif suspicion is not None and suspicion.isBusy():
            self.pingedAt = None
            return self._settle(suspicion.wait(now))
        else:
            self.pacemaker.pingLater(self)
            if self.idle < 0 and self._monitor.idleReader is not None:
                self._startIdling(self._monitor.idleReader)
        # A ping may be a little late; after the last one it is death that is due.
        self.exact = liveness.unanswered >= liveness.count
        due = liveness.due()
        # An interval that is too short to be told from none must not mean once more in this turn.
        return due if due > now else nextafter(now, inf)

    def _suspect(self) -> Suspicion:
        if self._suspicion is None:
            self._suspicion = Suspicion(self.transport, self.liveness)
        return self._suspicion

    def _clear(self) -> None:
        if self._suspicion is not None:
            self._suspicion.clear()

    def _settle(self, fate: float | KeepAliveTimeout) -> float | None:
        """
        @param fate: when to look at the peer again, or why it is dead.
        """
        if not isinstance(fate, KeepAliveTimeout):
            # It is death that is due, unless the peer was heard.
            self.exact = self.liveness.unanswered > 0
            return fate
        if self._died is None:
            self.transport.abortConnection()
        else:
            self._died(fate)
        return None

    def _startIdling(self, reader: IdleReader) -> None:
        if self._isBetween is not None and self.onAnswer is None and self._isBetween():
            reader.take(self)

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
