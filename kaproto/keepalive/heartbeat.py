"""
The heartbeat of one connection: when to ping the peer, whether it is alive, how fast it answers.

A L{Heartbeat} works with any protocol.  The protocol passes it a function that sends a ping, and
reports received bytes.
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
    seconds after it was last heard.  Before it is declared dead, its bytes that wait in the socket
    are read.  Time during which this process was stalled or suspended does not count.

    @ivar transport: the connection to the peer.
    @ivar liveness: the time when the peer was last heard.  L{heard} sets it; a receive path that
        cannot afford the call sets it directly.
    @ivar pacemaker: calls this heartbeat when it is due; its C{now} is the time scale of
        C{liveness}.
    @ivar pong: the bytes of a pong, if all pongs have the same bytes.
    @ivar latency: the round trip of the latest answered ping, in seconds; C{None} before the first
        answer.
    @ivar roundTrips: the histogram that counts each L{latency}, if there is one.
    @ivar onAnswer: called with each L{latency}, unless it is C{None}.  While it is set, the
        L{IdleReader} does not read the connection.
    @ivar slot: the slot on the timer wheel.  Only the L{Pacemaker} changes it.
    @ivar exact: whether the next call must be exactly on time.  The L{Pacemaker} reads it.
    @ivar idle: the file descriptor while the L{IdleReader} reads it, else negative.
    @ivar judge: asked before the peer is declared dead, if there is one.
    @ivar pingedAt: the time when the unanswered ping was sent, for L{latency}.
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
        @param transport: the connected transport.
        @param ping: the bytes of a ping, or a function that sends one.
        @param died: called once when the peer is dead, never after the transport is lost; by
            default the transport is aborted.
        @param pong: the bytes of every pong, and of no other message.  With them, idle connections
            cost less; see L{IdleReader}.
        @param isBetween: whether all bytes received so far are complete messages, so that C{pong}
            cannot be the middle of another message.  Required with C{pong}.
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
        L{kaproto.keepalive.pacemaker.TICK}; measured only while at least one peer is watched.
        """
        return self.pacemaker.now - self.liveness.heard

    def start(self, keepAlive: KeepAlive) -> None:
        """
        Start pinging the peer, or change interval and count.  A zero in either stops the pings.
        """
        if keepAlive.enabled:
            self.liveness.start(keepAlive)
            self.pacemaker.watch(self, self.liveness.due())
        else:
            self.stop()

    def stop(self) -> None:
        """
        Stop pinging the peer.
        """
        self.liveness.stop()
        self.pacemaker.forget(self)
        self._clear()
        self._readAsUsual()

    def end(self) -> None:
        """
        Stop for good, and drop the references to the protocol.
        """
        # Break the cycle of references, to free the connection without the garbage collector.
        self.liveness.stop()
        self.pacemaker.forget(self)
        self._stopIdling()
        self._clear()
        self._ping = b""
        self._died = self._isBetween = self._suspicion = None
        self.onAnswer = self.judge = None

    def heard(self) -> None:
        """
        Bytes arrived from the peer, even if only a part of a message.
        """
        self.liveness.hear(self.pacemaker.now)
        self.answered()

    def answered(self) -> None:
        """
        A pong arrived: measure L{latency}.
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
        Ping the peer now, even if it is not watched.

        @param onAnswer: called with the round trip in seconds, for this ping and each later one.
        """
        self.watchAnswers(onAnswer)
        self.sendPing()

    def watchAnswers(self, onAnswer: Callable[[float], object]) -> None:
        """
        Report each answer to a ping.

        @param onAnswer: called with the round trip in seconds.
        """
        self._readAsUsual()
        self.onAnswer = onAnswer

    def pause(self, *, pingOn: bool = False, readsOn: bool = False) -> None:
        """
        The transport is about to be paused.  The peer cannot be heard until L{resume}, so its
        silence does not count.

        @param pingOn: whether to keep pinging the peer if the kernel can tell whether it is alive,
            see L{kaproto.keepalive.unreadpeer}.
        @param readsOn: whether a live peer keeps reading while this side does not read from it, as
            libvirt's clients do.  Then the peer is pinged on UNIX sockets too.
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
        @return: whether this side does not read from the peer, and the peer is known to have unread
            bytes, so that another pong would be useless.
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
        A relay writes to the transport from now on, messages or parts of messages, and pings must
        be sent between messages.

        @param ping: sends a ping.
        @param isBusy: as L{Suspicion.isBusy}.
        @param isHeldBack: as L{Suspicion.isHeldBack}.
        """
        self._ping = ping
        suspicion = self._suspect()
        suspicion.isBusy, suspicion.isHeldBack = isBusy, isHeldBack

    def readElsewhere(self) -> None:
        """
        Another reader replaces the transport from now on, so the L{IdleReader} must not read the
        connection.
        """
        self._readAsUsual()
        self._isBetween = None

    def due(self, now: float, /) -> float | None:
        """
        Called by the pacemaker at the requested time.

        @return: the time of the next call; C{None} for never.
        """
        liveness, suspicion = self.liveness, self._suspicion
        verdict = liveness.check(now)
        if verdict is _DEAD or (verdict is _PING and liveness.unanswered >= _SECOND):
            verdict = self._suspect().examine(now, verdict, self.judge)
        elif verdict is _PING and suspicion is not None:
            suspicion.clear()
        if verdict is _WAIT:
            if liveness.pausedAt is not None:
                # resume() schedules the next call.
                return None
        elif getattr(self.transport, "disconnected", False):
            # The transport is lost, and the protocol has not called end().
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
        # A ping may be a little late.  After the last ping, the next call declares the peer dead,
        # and must be on time.
        self.exact = liveness.unanswered >= liveness.count
        due = liveness.due()
        # Adding a tiny interval may not change the float; the next call must still be in a later
        # turn.
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
        @param fate: the time of the next check, or the reason why the peer is dead.
        """
        if not isinstance(fate, KeepAliveTimeout):
            # The next call may declare the peer dead, unless the peer was heard.
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
        Called by the pacemaker after all due peers have been checked.
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
