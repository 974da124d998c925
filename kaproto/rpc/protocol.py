"""
The shell that both ends share: a watch on the peer's life, by pings and pongs.
"""

from __future__ import annotations

from math import inf, nextafter
from typing import ClassVar, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from kaproto.errors import KeepAliveTimeout, PeerFlooded
from kaproto.keepalive.idlereader import IdleReader
from kaproto.keepalive.liveness import KeepAlive, Liveness, Verdict
from kaproto.keepalive.pacemaker import Pacemaker, monotonicSeconds
from kaproto.rpc.connection import MessageProtocol
from kaproto.transport import StreamTransport, hasUnread, writeNow
from kaproto.wire.message import PING, PONG, Message, MessageType
from kaproto.wire.programs import PROGRAM_VERSION, KeepAliveProcedure

__all__ = ["KeepAliveFactory", "KeepAliveProtocol"]

_PONGS_UNREAD_MAX: Final = 64
_SAVED_MAX: Final = 10
"""
The most seconds for which the ping budget can be saved up.
"""

# An enum's members are looked up at every use, which every ping would pay for.
_PING_DUE: Final = Verdict.PING
_DEAD: Final = Verdict.DEAD


class KeepAliveFactory(Factory):
    """
    What the connections of one factory share: a clock and a pacemaker.

    @ivar clock: where timeouts are scheduled.
    @ivar seconds: a monotonic clock.
    @ivar pacemaker: drives the pings of all connections.
    @ivar idle: reads the connections that only answer pings, C{None} where that cannot be done.
    """

    protocol: type[KeepAliveProtocol]  # type: ignore[assignment]
    noisy = False

    def __init__(self, clock: IReactorTime | None = None) -> None:
        """
        @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
        """
        if clock is None:
            from twisted.internet import reactor

            clock = IReactorTime(reactor)
        self.clock = clock
        self.seconds = monotonicSeconds(clock)
        self.pacemaker = pacemaker = Pacemaker(clock, self.seconds)
        self.idle = IdleReader.orNone(clock, lambda: pacemaker.now)


class KeepAliveProtocol(MessageProtocol):
    """
    One end of a connection.  Subclass L{kaproto.server.KeepAliveServerProtocol} or
    L{kaproto.client.KeepAliveClientProtocol}, which say what the messages mean.

    @ivar factory: the L{KeepAliveFactory} that built it.
    @ivar pingBudget: how many pings the peer may send in a second.  What it does not use for
        some seconds, up to ten, it may use later.
    @ivar measuresLatency: whether to measure L{latency}, which costs two looks at the clock for
        each ping.
    @ivar latency: seconds that the latest ping's answer took; C{None} until there was one.
    """

    factory: KeepAliveFactory
    pingBudget: ClassVar[int] = 100
    measuresLatency: ClassVar[bool] = False
    latency: float | None = None
    slot = -1
    exact = False
    idle = -1

    _log: ClassVar[Logger] = Logger()
    _pingedAt: float | None = None
    _pings = 0
    _pingsSince = 0.0
    _pongsUnread = 0
    _condemned = False

    def makeConnection(self, transport: StreamTransport) -> None:
        """
        Count the peer's appearance as hearing it.
        """
        self._pacemaker = self.factory.pacemaker
        self._liveness = Liveness(self._pacemaker.now)
        self._pingsSince = self.factory.seconds()
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """
        Take in bytes; whatever they are, they are a sign of life.
        """
        liveness = self._liveness
        liveness.heard = self._pacemaker.now
        liveness.unanswered = 0
        if data == PONG and self._incoming is None and self._reader.partial is None:
            if self._pingedAt is not None:
                self._measure()
        else:
            super().dataReceived(data)

    def startKeepAlive(self, keepAlive: KeepAlive) -> None:
        """
        Ping the peer from now on, in place of any earlier interval and count; a zero in either
        stops it.
        """
        if self._reason is not None:
            return
        if keepAlive.enabled:
            self._liveness.start(keepAlive)
            self._pacemaker.watch(self, self._liveness.due())
        else:
            self._liveness.stop()
            self._pacemaker.forget(self)

    @property
    def keepAlive(self) -> KeepAlive:
        """
        The interval and count at which the peer is being pinged, zeros if it is not.
        """
        liveness = self._liveness
        return KeepAlive(liveness.interval, liveness.count if liveness.interval else 0)

    @property
    def silence(self) -> float:
        """
        Seconds since the peer was last heard, to the precision of
        L{kaproto.keepalive.pacemaker.TICK}, and only while its factory watches anybody.
        """
        return self._pacemaker.now - self._liveness.heard

    def beat(self, now: float) -> float | None:
        """
        The pacemaker calls: see L{kaproto.pacemaker.Watched.beat}.  A peer that seems dead is
        not, if what it sent is waiting to be read.
        """
        liveness = self._liveness
        verdict = liveness.check(now)
        if verdict is _PING_DUE:
            self._condemned = False
            outgoing = self._outgoing
            if self.measuresLatency:
                self._pingedAt = self.factory.seconds()
            if outgoing is None or not outgoing.midMessage:
                self._pacemaker.pings.append(self)
                if self.idle < 0:
                    self._goIdle()
            elif self._congested:
                outgoing.inject(PING)
            else:
                # The ping would have to wait for the other side of the relay to end the message
                # that it is sending, and this peer has read all of it that there is. Its silence,
                # to which it has every right, proves nothing then.
                self._pingedAt = None
                liveness.hear(now)
        elif verdict is _DEAD:
            unread = hasUnread(self.transport)
            if unread is None and not self._condemned:
                # Of this transport that cannot be told before the reactor has had its turn.
                self._condemned = True
                return now
            if not unread:
                self.died(liveness.timeout(now))
                return None
            self._condemned = False
            liveness.hear(now)
        else:
            self._condemned = False
            if self._pauses:
                return None
        # A ping may be a little late; after the last one it is death that is due.
        self.exact = liveness.unanswered >= liveness.count
        due = liveness.due()
        # An interval that is too short to be told from none must not mean once more in this turn.
        return due if due > now else nextafter(now, inf)

    def ping(self) -> None:
        """
        The pacemaker calls: see L{kaproto.pacemaker.Watched.ping}.
        """
        if self._reason is None:
            writeNow(self.transport, PING)

    def _goIdle(self) -> None:
        """
        The peer has been silent long enough to be pinged: expect nothing but pongs from it.
        """
        reader = self.factory.idle
        if reader is not None and self._betweenMessages and not self.measuresLatency:
            reader.take(self, self._liveness)

    def _stopIdling(self) -> None:
        if self.idle >= 0 and self.factory.idle is not None:
            self.factory.idle.release(self)

    def died(self, reason: KeepAliveTimeout) -> None:
        """
        The peer is dead.
        """
        self.abort(reason)

    def _measure(self) -> None:
        if self._pingedAt is not None:
            self.latency = self.factory.seconds() - self._pingedAt
            self._pingedAt = None

    def keepAliveReceived(self, message: Message) -> None:
        """
        A message of the keepalive program came: answer a ping, within the peer's budget.

        @raise RemoteProtocolError: when the peer is over its budget.
        """
        if message.type != MessageType.MESSAGE:
            self.messageReceived(message)
        elif message.version == PROGRAM_VERSION:
            if message.procedure == KeepAliveProcedure.PING:
                self._pingReceived()
            elif message.procedure == KeepAliveProcedure.PONG:
                self._measure()

    def _pingReceived(self) -> None:
        now = self.factory.seconds()
        elapsed = now - self._pingsSince
        if elapsed >= 1:
            # Pings sent while this side did not read, because it stalled or had a reason not to,
            # come all at once.
            self._pingsSince = now
            self._pings = -self.pingBudget * min(int(elapsed) - 1, _SAVED_MAX)
        self._pings += 1
        if self._pings > self.pingBudget:
            raise PeerFlooded(f"more than {self.pingBudget} pings in a second")
        if self._congested:
            self._pongsUnread += 1
            if self._pongsUnread > _PONGS_UNREAD_MAX:
                raise PeerFlooded(f"it pings and has not read {_PONGS_UNREAD_MAX} answers")
        self._write(PONG)

    def _stopReading(self) -> None:
        self._liveness.pause(self._pacemaker.now)
        self._stopIdling()
        super()._stopReading()

    def _startReading(self) -> None:
        liveness = self._liveness
        liveness.resume(self._pacemaker.now)
        if liveness.interval and self.slot < 0:
            self._pacemaker.watch(self, liveness.due())
        super()._startReading()

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty again.  That the peer took what had filled it is a sign
        of life like bytes from it: it may have nothing to say while it reads something long, and
        the pings it should answer come after that.
        """
        self._pongsUnread = 0
        self._liveness.hear(self._pacemaker.now)
        super().resumeProducing()

    def _stopTimers(self) -> None:
        super()._stopTimers()
        self._liveness.stop()
        self._pacemaker.forget(self)
        self._stopIdling()
