"""
The shell that both ends share: transport to messages, messages to transport, and a watch on the
peer's life.
"""

from __future__ import annotations

from functools import partial
from math import inf, nextafter
from typing import ClassVar, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.deadline import Deadline
from kaproto.errors import (
    ConnectionClosed,
    DeadlineMissed,
    KeepAliveTimeout,
    PeerFlooded,
    ProtocolError,
    RemoteProtocolError,
)
from kaproto.idle import IdleReader
from kaproto.liveness import KeepAlive, Liveness, Verdict
from kaproto.pacemaker import Pacemaker, monotonicSeconds
from kaproto.transport import StreamTransport, hasUnread, writeSoon
from kaproto.wire.message import (
    MESSAGE_MAX,
    PING,
    PONG,
    TURN_MAX,
    Message,
    MessageReader,
    MessageType,
)
from kaproto.wire.programs import KEEPALIVE_PROGRAM, PROGRAM_VERSION, KeepAliveProcedure
from kaproto.wire.sieve import MessageSieve
from kaproto.wire.xdr import XDRError

__all__ = ["CALLS", "CONGESTION", "TURN", "KeepAliveFactory", "KeepAliveProtocol"]

_PONGS_UNREAD_MAX: Final = 64
_SAVED_MAX: Final = 10
"""
The most seconds for which the ping budget can be saved up.
"""

# An enum's members are looked up at every use, which every ping would pay for.
_PING_DUE: Final = Verdict.PING
_DEAD: Final = Verdict.DEAD

CALLS: Final = 1
"""
A reason for not reading from a peer: it has too many calls waiting.
"""

CONGESTION: Final = 2
"""
A reason for not reading from a peer: the other side of a relay does not read what it sends.
"""

TURN: Final = 4
"""
A reason for not reading from a peer: it is the turn of others, as more than L{TURN_MAX}
messages have come from it at once.
"""


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


@implementer(IPushProducer)
class KeepAliveProtocol(Protocol):
    """
    One end of a connection.  Subclass L{kaproto.server.KeepAliveServerProtocol} or
    L{kaproto.client.KeepAliveClientProtocol}, which say what the messages mean.

    @ivar factory: the L{KeepAliveFactory} that built it.
    @ivar pingBudget: how many pings the peer may send in a second.  What it does not use for
        some seconds, up to ten, it may use later.
    @ivar closeTimeout: seconds the peer has to read what was written, once this end closes.
    @ivar stuckTimeout: seconds for which both sides of a relay may leave unread what comes from
        the other, which neither can be judged by keepalive for.
    @ivar measuresLatency: whether to measure L{latency}, which costs two looks at the clock for
        each ping.
    @ivar latency: seconds that the latest ping's answer took; C{None} until there was one.
    """

    factory: KeepAliveFactory
    transport: StreamTransport  # type: ignore[assignment]
    pingBudget: ClassVar[int] = 100
    closeTimeout: ClassVar[float] = 5.0
    stuckTimeout: ClassVar[float] = 60.0
    measuresLatency: ClassVar[bool] = False
    latency: float | None = None
    slot = -1
    exact = False
    idle = -1

    _log: ClassVar[Logger] = Logger()
    _reason: Exception | None = None
    _deadline: Deadline | IDelayedCall | None = None
    _pingedAt: float | None = None
    _pings = 0
    _pingsSince = 0.0
    _pongsUnread = 0
    _incoming: MessageSieve | None = None
    _outgoing: MessageSieve | None = None
    _source: KeepAliveProtocol | None = None
    _pauses = 0
    _condemned = False
    _congested = False
    _nextTurn: IDelayedCall | None = None

    def makeConnection(self, transport: StreamTransport) -> None:
        """
        Begin to watch what the transport has been given and has not sent.
        """
        self._pacemaker = self.factory.pacemaker
        self._liveness = Liveness(self._pacemaker.now)
        self._pingsSince = self.factory.seconds()
        self._reader = MessageReader(MESSAGE_MAX)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

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
        elif self._reason is None and self._takeIn(data) and self._nextTurn is None:
            self.pauseReading(TURN)
            self._nextTurn = self.factory.clock.callLater(0, self._readOn)

    def _takeIn(self, data: bytes) -> bool:
        """
        @return: whether there is more, which has to wait until others have had their turn.
        """
        try:
            if self._incoming is not None:
                self._incoming.feed(data)
                more = self._incoming.more
            else:
                if data:
                    self._reader.feed(data)
                more = self._nextTurn is not None or self._readMessages()
        except XDRError as error:
            self.abort(RemoteProtocolError(f"a message that cannot be decoded: {error}"))
        except ProtocolError as error:
            self.abort(error)
        else:
            return more and self._reason is None
        return False

    def _readMessages(self) -> bool:
        for _ in range(TURN_MAX):
            message = self._reader.next()
            if message is None:
                return False
            if message.program == KEEPALIVE_PROGRAM:
                self.keepAliveReceived(message)
            else:
                self.messageReceived(message)
            if self._reason is not None:
                return False
        return self._reader.partial is not None

    def _readOn(self) -> None:
        self._nextTurn = None
        if self._takeIn(b""):
            self._nextTurn = self.factory.clock.callLater(0, self._readOn)
        elif self._reason is None:
            self.resumeReading(TURN)

    def startRelay(
        self, incoming: MessageSieve, outgoing: MessageSieve, source: KeepAliveProtocol
    ) -> None:
        """
        Make this connection one half of a relay: from now on what comes from the peer goes
        through a sieve, and is still a sign of life.

        @param incoming: takes what comes from this connection's peer; it must keep back keepalive
            messages and have them brought to L{keepAliveReceived}.
        @param outgoing: what else writes to this connection, between whose messages this
            connection's own have to fit.
        @param source: the connection that C{outgoing} reads, which is not read while this peer
            is behind.
        """
        self._incoming = incoming
        self._outgoing = outgoing
        self._source = source
        if self._congested:
            source.pauseReading(CONGESTION)
        rest = self._reader.takeRest()
        if rest:
            self.dataReceived(rest)

    def messageReceived(self, message: Message) -> None:
        """
        A message came that is not about keepalive.  Override it.

        @raise RemoteProtocolError: to close the connection for what the peer sent.
        """
        raise NotImplementedError

    def closed(self, reason: Exception) -> None:
        """
        The connection is gone.  Override it.

        @param reason: why, as far as this end knows.
        """

    def send(self, data: bytes) -> None:
        """
        Write a packed message, unless this end is closing.
        """
        if self._reason is None:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._outgoing is None:
            self.transport.write(data)
        else:
            self._outgoing.inject(data)

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
        Seconds since the peer was last heard, to the precision of L{kaproto.pacemaker.TICK}, and
        only while its factory watches anybody.
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
                writeSoon(self.transport, PING)
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

    def _goIdle(self) -> None:
        """
        The peer has been silent long enough to be pinged: expect nothing but pongs from it.
        """
        reader, incoming = self.factory.idle, self._incoming
        between = self._reader.partial is None if incoming is None else incoming.between
        if reader is not None and between and not self.measuresLatency:
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

    def pauseReading(self, reason: int) -> None:
        """
        Read nothing from the peer until L{resumeReading}; its silence proves nothing meanwhile
        and does not count.

        @param reason: L{CALLS}, L{CONGESTION} or L{TURN}.
        """
        if not self._pauses:
            self._liveness.pause(self._pacemaker.now)
            self._stopIdling()
            self.transport.pauseProducing()
        self._pauses |= reason

    def resumeReading(self, reason: int) -> None:
        """
        A reason for not reading has gone; read on if it was the last.
        """
        if self._pauses & reason:
            self._pauses -= reason
            if not self._pauses:
                liveness = self._liveness
                liveness.resume(self._pacemaker.now)
                if liveness.interval and self.slot < 0:
                    self._pacemaker.watch(self, liveness.due())
                self.transport.resumeProducing()

    @property
    def readingPaused(self) -> bool:
        """
        Whether nothing is read from the peer at present.
        """
        return bool(self._pauses)

    def isPausedFor(self, reason: int) -> bool:
        """
        @return: whether this is among the reasons why nothing is read from the peer at present.
        """
        return bool(self._pauses & reason)

    @property
    def congested(self) -> bool:
        """
        Whether the peer is behind with reading what was written to it.
        """
        return self._congested

    def pauseProducing(self) -> None:
        """
        The transport's buffer is full.  See L{IPushProducer}.
        """
        self._congested = True
        if self._source is not None:
            self._source.pauseReading(CONGESTION)
            if self._pauses & ~TURN:
                self.setDeadline(
                    self.stuckTimeout, "it and the other side of the relay did not read on"
                )

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty again.  That the peer took what had filled it is a sign
        of life like bytes from it: it may have nothing to say while it reads something long, and
        the pings it should answer come after that.
        """
        self._congested = False
        self._pongsUnread = 0
        self._liveness.hear(self._pacemaker.now)
        if self._source is not None:
            self.clearDeadline()
            self._source.clearDeadline()
            self._source.resumeReading(CONGESTION)

    def stopProducing(self) -> None:
        """
        The transport takes no more.
        """

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
        @param timeout: seconds after which to close it all the same, by default C{closeTimeout}.
        """
        if self._reason is not None:
            return
        self._end(reason)
        self._deadline = self.factory.clock.callLater(
            self.closeTimeout if timeout is None else timeout, self._closeNow
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
        self._reason = reason
        for sieve in (self._incoming, self._outgoing):
            if sieve is not None:
                sieve.stopped = True
        self.clearDeadline()
        self._forgetTurn()
        self._liveness.stop()
        self._pacemaker.forget(self)
        self._stopIdling()
        self.transport.unregisterProducer()

    def _forgetTurn(self) -> None:
        if self._nextTurn is not None:
            self._nextTurn.cancel()
            self._nextTurn = None

    def _closeNow(self) -> None:
        self._deadline = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The transport is gone: leave no timer behind.
        """
        if self._nextTurn is not None:
            self._forgetTurn()
            # With TLS the end can come in the same read as what was sent before it.
            while isinstance(reason.value, ConnectionDone) and self._takeIn(b""):
                pass
        self.clearDeadline()
        self._pacemaker.forget(self)
        self._stopIdling()
        if self._reason is None:
            cause = reason.value
            if isinstance(cause, Exception) and not isinstance(cause, ConnectionDone):
                self._reason = cause
            else:
                self._reason = ConnectionClosed("the peer closed the connection")
        self.closed(self._reason)
        self._incoming = self._outgoing = self._source = None
