"""
The shell that both ends share: a watch on the peer's life, by pings and pongs.
"""

from __future__ import annotations

from typing import ClassVar, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.errors import KeepAliveTimeout, PeerFlooded
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.heartbeat import Heartbeat, Monitor
from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.rpc.connection import MessageProtocol
from kaproto.transport import StreamTransport, writeNow
from kaproto.wire.filter import MessageFilter
from kaproto.wire.message import PING, PONG, Message, MessageType
from kaproto.wire.programs import PROGRAM_VERSION, KeepAliveProcedure

__all__ = ["KeepAliveFactory", "KeepAliveProtocol"]

_SAVED_MAX: Final = 10
"""
The most seconds for which the ping budget can be saved up.
"""


class KeepAliveFactory(Factory):
    """
    What the connections of one factory share.

    @ivar clock: where timeouts are scheduled, by the monotonic clock.
    @ivar seconds: the monotonic clock.
    @ivar limits: what each peer may cost, and how long it is waited for.  Replace it to change
        them.
    @ivar roundTrips: how long the answers to pings took.
    """

    protocol: type[KeepAliveProtocol]  # type: ignore[assignment]
    noisy = False

    def __init__(self, clock: IReactorTime | None = None, limits: Limits | None = None) -> None:
        """
        @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
        @param limits: by default those of L{Limits}.
        """
        self.limits = Limits() if limits is None else limits
        if clock is None:
            from twisted.internet import reactor

            clock = IReactorTime(reactor)
        self.clock = monotonicClock(clock)
        self.seconds = self.clock.seconds
        # While there is a factory, its reactor's monitor is kept between two connections.
        self._monitor = Monitor.of(clock)
        self.roundTrips = Histogram()


class KeepAliveProtocol(MessageProtocol):
    """
    One end of a connection.  Subclass L{kaproto.server.KeepAliveServerProtocol} or
    L{kaproto.client.KeepAliveClientProtocol}, which say what the messages mean.

    @ivar factory: the L{KeepAliveFactory} that built it.
    """

    factory: KeepAliveFactory

    _log: ClassVar[Logger] = Logger(observer=BOUNDS)
    _pings = 0
    _pingsSince = 0.0
    _pongsUnread = 0

    def makeConnection(self, transport: StreamTransport) -> None:
        """
        Count the peer's appearance as hearing it.
        """
        self._heartbeat = Heartbeat(
            transport,
            PING,
            died=self._peerDied,
            pong=PONG,
            isBetween=self._isBetweenMessages,
            clock=self.factory.clock,
        )
        self._heartbeat.roundTrips = self.factory.roundTrips
        self._pingsSince = self.factory.seconds()
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """
        Take in bytes; whatever they are, they are a sign of life.
        """
        # Heartbeat.heard(), without the cost of a call.
        heartbeat = self._heartbeat
        liveness = heartbeat.liveness
        liveness.heard = heartbeat.pacemaker.now
        liveness.unanswered = 0
        if data == PONG and self._incoming is None and self._reader.partial is None:
            if heartbeat.pingedAt is not None:
                heartbeat.answered()
        else:
            super().dataReceived(data)

    def startKeepAlive(self, keepAlive: KeepAlive) -> None:
        """
        Ping the peer from now on, in place of any earlier interval and count; a zero in either
        stops it.
        """
        if self._reason is None:
            self._heartbeat.start(keepAlive)

    @property
    def keepAlive(self) -> KeepAlive:
        """
        The interval and count at which the peer is being pinged, zeros if it is not.
        """
        return self._heartbeat.keepAlive

    @property
    def latency(self) -> float | None:
        """
        Seconds that the latest answer to a ping took; C{None} until there was one.
        """
        return self._heartbeat.latency

    @property
    def silence(self) -> float:
        """
        Seconds since the peer was last heard, to the precision of
        L{kaproto.keepalive.pacemaker.TICK}, and only while this process watches anybody.
        """
        return self._heartbeat.silence

    def _peerDied(self, reason: KeepAliveTimeout) -> None:
        """
        The peer is dead.
        """
        self.abort(reason)

    def startRelay(
        self, incoming: MessageFilter, outgoing: MessageFilter, source: MessageProtocol
    ) -> None:
        """
        See L{MessageProtocol.startRelay}; pings have to fit between the messages that are
        relayed.
        """
        self._heartbeat.relay(self._pingBetween, self._isTakingHalfAMessage)
        super().startRelay(incoming, outgoing, source)

    def _pingBetween(self) -> None:
        if self._outgoing is None or not self._outgoing.midMessage:
            writeNow(self.transport, PING)
        else:
            self._outgoing.inject(PING)

    def _isTakingHalfAMessage(self) -> bool:
        """
        Whether the peer has read all there is of a message whose rest has yet to come from the
        other side of the relay.
        """
        return self._outgoing is not None and self._outgoing.midMessage and not self._congested

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
                self._heartbeat.answered()

    def _pingReceived(self) -> None:
        now = self.factory.seconds()
        limits = self.factory.limits
        elapsed = now - self._pingsSince
        if elapsed >= 1:
            # Pings sent while this side did not read, because it stalled or had a reason not to,
            # come all at once.
            self._pingsSince = now
            self._pings = -limits.pingBudget * min(int(elapsed) - 1, _SAVED_MAX)
        self._pings += 1
        if self._pings > limits.pingBudget:
            raise PeerFlooded(f"more than {limits.pingBudget} pings in a second")
        if self._congested:
            self._pongsUnread += 1
            if self._pongsUnread > limits.unreadPongs:
                raise PeerFlooded(f"it pings and has not read {limits.unreadPongs} answers")
        self._write(PONG)

    def _stopReading(self) -> None:
        self._heartbeat.pause()
        super()._stopReading()

    def _startReading(self) -> None:
        self._heartbeat.resume()
        super()._startReading()

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty again.  That the peer took what had filled it is a sign
        of life like bytes from it: it may have nothing to say while it reads something long, and
        the pings it should answer come after that.
        """
        self._pongsUnread = 0
        heartbeat = self._heartbeat
        heartbeat.liveness.hear(heartbeat.pacemaker.now)
        super().resumeProducing()

    def _stopTimers(self) -> None:
        super()._stopTimers()
        self._heartbeat.stop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The transport is gone.
        """
        super().connectionLost(reason)
        self._heartbeat.end()
