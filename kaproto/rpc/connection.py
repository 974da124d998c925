"""
One end of a connection: creates its parts, connects them to each other, and stops them.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.errors import KeepAliveTimeout
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.kernelwatch import KernelWatch
from kaproto.keepalive.liveness import KeepAlive
from kaproto.logbounds import BOUNDS
from kaproto.rpc.closing import Closing
from kaproto.rpc.incoming import Incoming
from kaproto.rpc.outgoing import Outgoing
from kaproto.rpc.peerpings import PeerPings
from kaproto.rpc.reading import Pause, Reading
from kaproto.rpc.shared import Hooks, SharedByConnections
from kaproto.transport import StreamTransport
from kaproto.wire.filter import MessageFilter
from kaproto.wire.message import PING, PONG, Message, MessageType
from kaproto.wire.programs import KEEPALIVE_PROGRAM, PROGRAM_VERSION, KeepAliveProcedure

__all__ = ["Connection"]


@implementer(IPushProducer)
class Connection:
    """
    One end of a connection.  L{kaproto.rpc.serverconnection.ServerConnection} and
    L{kaproto.client.connection.ClientConnection} handle the messages: they override L{start},
    L{messageReceived} and, as needed, the empty methods.

    @ivar transport: the connection to the peer.
    @ivar hooks: the protocol; C{None} after the end.
    @ivar heartbeat: pings the peer, and detects its death.
    @ivar closing: closes the connection; has the reason and the deadline.
    @ivar incoming: parses the peer's bytes.
    @ivar outgoing: writes to the peer.
    @ivar reading: pauses and resumes reading from the peer.
    """

    __slots__ = (
        "_kernelWatch",
        "_peerPings",
        "_shared",
        "_source",
        "closing",
        "heartbeat",
        "hooks",
        "incoming",
        "outgoing",
        "reading",
        "transport",
    )
    _log = Logger(observer=BOUNDS)

    def __init__(
        self, transport: StreamTransport, hooks: Hooks, shared: SharedByConnections
    ) -> None:
        self.transport = transport
        self.hooks: Hooks | None = hooks
        self.closing = Closing(transport, shared, self)
        self.heartbeat = heartbeat = Heartbeat(
            transport,
            PING,
            died=self.peerDied,
            pong=PONG,
            isBetween=self._isBetweenMessages,
            clock=shared.clock,
        )
        heartbeat.roundTrips = shared.roundTrips
        self.outgoing = Outgoing(transport)
        self._peerPings = PeerPings(shared)
        self.reading = Reading(transport, heartbeat, self.outgoing, self._peerPings)
        self.incoming = Incoming(shared.clock, self.closing, self.reading, self)
        self._shared = shared
        self._source: Connection | None = None
        self._kernelWatch: KernelWatch | None = None
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)

    def start(self) -> None:
        """
        The transport is connected.
        """
        raise NotImplementedError

    def messageReceived(self, message: Message) -> None:
        """
        A message arrived, other than a ping or a pong.

        @raise RemoteProtocolError: when the peer may not send it.  The connection is closed.
        """
        raise NotImplementedError

    def peerDied(self, reason: KeepAliveTimeout) -> None:
        """
        The peer is dead.
        """
        self.abort(reason)

    def congestionBegan(self) -> None:
        """
        The peer is behind with reading.
        """

    def congestionEnded(self) -> None:
        """
        The peer has caught up with reading.
        """

    def stopped(self) -> None:
        """
        The connection begins to close: nothing more is sent.
        """

    def explained(self, reason: Exception) -> Exception:
        """
        @return: a better reason for the end of the connection, or the same.
        """
        return reason

    def ended(self, reason: Exception) -> None:
        """
        The connection has ended.
        """

    def hasAsked(self) -> bool:
        """
        @return: whether the peer has asked for keepalive, and so answers pings.
        """
        return False

    def received(self, message: Message) -> None:
        """
        A message arrived: answer a ping, record a pong, pass on any other message.

        @raise PeerFlooded: when the peer sends too many pings.
        """
        if message.program != KEEPALIVE_PROGRAM or message.type != MessageType.MESSAGE:
            self.messageReceived(message)
        elif message.version == PROGRAM_VERSION:
            if message.procedure == KeepAliveProcedure.PING:
                self._peerPings.received(congested=self.outgoing.congested)
                self.sendNow(PONG)
            elif message.procedure == KeepAliveProcedure.PONG:
                self.heartbeat.answered()

    def _isBetweenMessages(self) -> bool:
        return self.incoming.isBetweenMessages()

    def startKeepAlive(self, keepAlive: KeepAlive) -> None:
        """
        Start pinging the peer at this interval and count.  A zero in either stops pinging.
        """
        if self.closing.reason is None:
            self.heartbeat.start(keepAlive)

    def watchByKernel(self, own: KeepAlive | None) -> None:
        """
        The connection is open: let the kernel watch the peer, if C{tcpKeepAlive} says so.

        @param own: the interval and count at which the policy would ping the peer, or C{None}.
        """
        pinged = self.heartbeat.liveness.interval > 0
        terms = self._shared.tcpKeepAlive.termsFor(own, pinged=pinged)
        if terms is not None and self.closing.reason is None:
            pacemaker = self.heartbeat.pacemaker
            self._kernelWatch = KernelWatch(self.transport, terms, pacemaker, self.peerDied)
            self._kernelWatch.start()

    def send(self, data: bytes) -> None:
        """
        Write a packed message, unless this end is closing.
        """
        self.outgoing.write(data)

    def sendNow(self, data: bytes) -> None:
        """
        Write a packed message, unless this end is closing.  It is sent at once, unless other
        messages wait to be sent or answered: replies to messages that arrived together are sent
        together.
        """
        self.outgoing.write(data, atOnce=self.incoming.reader.partial is None)

    def pauseReading(self, reason: int) -> None:
        """
        Read nothing from the peer until C{reading.resume} is called with the same reason.

        @param reason: one bit of L{Pause}.
        """
        self.reading.pause(reason, asked=self.hasAsked())

    def pauseProducing(self) -> None:
        """
        The transport's buffer is full.
        """
        self.outgoing.congested = True
        if self._source is not None:
            self._source.pauseReading(Pause.CONGESTION)
            if self.reading.pauses & ~Pause.TURN:
                self.closing.setDeadline(
                    self._shared.limits.stuckTimeout,
                    "neither it nor the other side of the relay read anything",
                )
        self.congestionBegan()

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty again.
        """
        self.outgoing.congested = False
        self._peerPings.answersRead()
        if self._source is not None:
            self.closing.clearDeadline()
            self._source.closing.clearDeadline()
            self._source.reading.resume(Pause.CONGESTION)
        self.congestionEnded()

    def stopProducing(self) -> None:
        """
        The transport accepts no more bytes.
        """

    def startRelay(
        self, incoming: MessageFilter, outgoing: MessageFilter, source: Connection
    ) -> None:
        """
        Make this connection one half of a relay.

        @param incoming: is fed the peer's bytes; it passes intercepted keepalive messages to
            L{received}.
        @param outgoing: writes relayed messages to the peer.
        @param source: the other half, which is not read while the peer is behind with reading.
        """
        own = self.outgoing
        self.incoming.bypass = incoming
        own.filter = outgoing
        self._source = source
        self.heartbeat.relay(own.ping, own.isWaitingForRest, own.isPingWaiting)
        if own.congested:
            source.pauseReading(Pause.CONGESTION)
        rest = self.incoming.reader.takeRest()
        if rest:
            self.incoming.feed(rest)

    def disconnect(self, reason: Exception) -> None:
        """
        Close the connection once everything that was written has been sent.
        """
        self.closing.disconnect(reason)

    def abort(self, reason: Exception) -> None:
        """
        Close the connection at once, without sending what is buffered.
        """
        self.closing.abort(reason)

    def closingBegan(self) -> None:
        """
        The connection begins to close: stop all parts.
        """
        self._stopParts()
        self.transport.unregisterProducer()
        self.stopped()

    def _stopParts(self) -> None:
        self.reading.stop()
        self.incoming.stop()
        self.outgoing.stop()
        self.heartbeat.end()
        if self._kernelWatch is not None:
            self._kernelWatch.stop()

    def lost(self, failure: Failure) -> None:
        """
        The transport is gone.
        """
        if isinstance(failure.value, ConnectionDone):
            self.incoming.finish()
        self._stopParts()
        reason = self.closing.reason = self.explained(self.closing.lost(failure))
        hooks, self.hooks = self.hooks, None
        # Break the cycles of references, to free the connection without the garbage collector.
        self.incoming.end()
        self.outgoing.filter = self._source = None
        try:
            self.ended(reason)
            if hooks is not None:
                self._callHook(hooks.connectionClosed, reason)
        finally:
            self.closing.end()

    def opened(self) -> None:
        """
        Call the user's C{connectionOpened}.  If it raises, close the connection, as reactors do for
        a protocol's methods.
        """
        assert self.hooks is not None, "no connection opens after its end"
        error = self._callHook(self.hooks.connectionOpened)
        if error is not None:
            self.abort(error)

    def _callHook(self, hook: Callable[..., None], *arguments: object) -> Exception | None:
        try:
            hook(*arguments)
        except Exception as error:
            self._log.failure("{hook!r} failed", hook=hook)
            return error
        return None
