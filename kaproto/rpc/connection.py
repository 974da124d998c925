"""
One end of a connection: parses messages, keeps the peer watched, applies backpressure, closes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.errors import KeepAliveTimeout, ProtocolError, RemoteProtocolError
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.kernelwatch import KernelWatch, TCPKeepAlive
from kaproto.keepalive.liveness import KeepAlive
from kaproto.logbounds import BOUNDS
from kaproto.rpc.closing import Closing, Shared
from kaproto.rpc.peerpings import PeerPings
from kaproto.transport import StreamTransport, writeNow
from kaproto.wire.filter import Bytes, Header, MessageFilter
from kaproto.wire.message import (
    HEADER,
    HEADER_SIZE,
    MESSAGE_MAX,
    PING,
    PONG,
    TURN_MAX,
    Message,
    MessageReader,
    MessageType,
)
from kaproto.wire.programs import KEEPALIVE_PROGRAM, PROGRAM_VERSION, KeepAliveProcedure
from kaproto.wire.xdr import XDRError

__all__ = ["Connection", "Gate", "Hooks", "Pause", "Reading", "SharedByConnections"]


class Pause:
    """
    Why a peer is not read from.  The reasons are bits, and plain numbers: a bulk transfer adds and
    removes one with each buffer that is full, for which an enumeration takes microseconds.

    @cvar CALLS: too many of its calls wait.
    @cvar CONGESTION: the other side of a relay does not read what this peer sends.
    @cvar TURN: more than L{TURN_MAX} of its messages came at once, and it is the turn of others.
    """

    CALLS: Final = 1
    CONGESTION: Final = 2
    TURN: Final = 4


class Hooks(Protocol):
    """
    What a L{Connection} calls on its protocol.
    """

    def connectionOpened(self) -> None:
        """
        The connection is open.
        """

    def connectionClosed(self, reason: Exception, /) -> None:
        """
        The connection has ended.
        """


class SharedByConnections(Shared, Protocol):
    """
    What a L{Connection} needs of its factory.

    @ivar roundTrips: where latencies are counted.
    @ivar tcpKeepAlive: which peers the kernel watches.
    """

    roundTrips: Histogram
    tcpKeepAlive: TCPKeepAlive


class Reading(Protocol):
    """
    Reads a connection in place of its transport: an L{IPushProducer}.
    """

    def pauseProducing(self) -> None:
        """
        Do not read.
        """

    def resumeProducing(self) -> None:
        """
        Read.
        """

    def stopProducing(self) -> None:
        """
        Never read again.
        """


class Gate:
    """
    Takes the bytes of a peer that has not been accepted yet, in place of the L{MessageReader}.

    @ivar feed: called with the bytes.
    """

    __slots__ = ("feed", "stopped")

    between = False

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self.feed: Callable[[bytes], bool | None] = feed
        self.stopped = False


@implementer(IPushProducer)
class Connection:
    """
    One end of a connection.  L{kaproto.rpc.serverconnection.ServerConnection} and
    L{kaproto.client.connection.ClientConnection} give the messages their meaning: they override
    L{start}, L{messageReceived}, and those of the empty methods that they need.

    Its protocol, a L{kaproto.rpc.protocol.KeepAliveProtocol}, passes received bytes to it.

    @ivar transport: the connection to the peer.
    @ivar hooks: the protocol; C{None} after the end.
    @ivar heartbeat: the watch on the peer.
    @ivar closing: the reason to close, and the deadline.
    @ivar reader: parses messages.
    @ivar incoming: takes the peer's bytes in place of C{reader}, unless it is C{None}.
    @ivar congested: whether the peer is behind with reading what was written to it.
    @ivar bytesReceived: bytes from the peer, without the pongs of idle connections.
    @ivar bytesSent: bytes written to the peer, without pings.
    @ivar relayed: called after bytes of the peer's were relayed, unless it is C{None}.
    @ivar trace: called with each message's direction, C{"in"} from the peer or C{"out"} to it, and
        header, unless it is C{None}.
    """

    __slots__ = (
        "_direct",
        "_kernelWatch",
        "_nextTurn",
        "_outgoing",
        "_pauses",
        "_peerPings",
        "_shared",
        "_source",
        "bytesReceived",
        "bytesSent",
        "closing",
        "congested",
        "heartbeat",
        "hooks",
        "incoming",
        "reader",
        "relayed",
        "trace",
        "transport",
    )
    _log = Logger(observer=BOUNDS)

    def __init__(
        self, transport: StreamTransport, hooks: Hooks, shared: SharedByConnections
    ) -> None:
        """
        @param hooks: the protocol.
        @param shared: its factory.
        """
        self.transport = transport
        self.hooks: Hooks | None = hooks
        self._shared = shared
        self.heartbeat = Heartbeat(
            transport,
            PING,
            died=self.peerDied,
            pong=PONG,
            isBetween=self._isBetweenMessages,
            clock=shared.clock,
        )
        self.heartbeat.roundTrips = shared.roundTrips
        self.closing = Closing(transport, shared.clock, self.abort)
        self.reader = MessageReader(MESSAGE_MAX)
        self.incoming: MessageFilter | Gate | None = None
        self.congested = False
        self.bytesReceived = self.bytesSent = 0
        self.trace: Callable[[str, Header], object] | None = None
        self.relayed: Callable[[], object] | None = None
        self._direct: Reading | None = None
        self._outgoing: MessageFilter | None = None
        self._source: Connection | None = None
        self._pauses = 0
        self._peerPings = PeerPings(shared)
        self._nextTurn: IDelayedCall | None = None
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

        @raise RemoteProtocolError: to close the connection because of it.
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

    def received(self, data: bytes) -> None:
        """
        Parse bytes from the peer.
        """
        self.bytesReceived += len(data)
        if self.closing.reason is not None:
            self.closing.discard(len(data))
            return
        more = self._takeIn(data)
        if more or self.relayed is not None:
            self.tookIn(more=more)

    def tookIn(self, *, more: bool) -> None:
        """
        Bytes of the peer's have been dealt with.

        @param more: whether there are more than one turn allows: then others have theirs.
        """
        if self.relayed is not None:
            self.relayed()
        if more and self._nextTurn is None and self.closing.reason is None:
            self.pauseReading(Pause.TURN)
            self._nextTurn = self._shared.clock.callLater(0, self._readOn)

    def descriptorReceived(self, descriptor: int) -> None:
        """
        A file descriptor arrived over a UNIX socket: close it.  The message it came with decides
        whether that is an error.
        """
        os.close(descriptor)

    def _takeIn(self, data: bytes) -> bool:
        """
        @return: whether messages are left for the next turn, so that other peers have theirs.
        """
        try:
            incoming = self.incoming
            if incoming is not None:
                more = incoming.feed(data)
            else:
                message = self.reader.whole(data)
                if message is not None:
                    self._read(message)
                    return False
                if data:
                    self.reader.feed(data)
                more = self._nextTurn is not None or self._readMessages()
        except (XDRError, ProtocolError) as error:
            self.abortOver(error)
            return False
        return bool(more) and self.closing.reason is None

    def abortOver(self, error: Exception) -> None:
        """
        Close the connection because of what the peer sent.

        @param error: the L{XDRError} or L{ProtocolError}.
        """
        if isinstance(error, XDRError):
            error = RemoteProtocolError(f"a message that cannot be decoded: {error}")
        self.abort(error)

    def _readMessages(self) -> bool:
        for _ in range(TURN_MAX):
            message = self.reader.next()
            if message is None:
                return False
            self._read(message)
            if self.closing.reason is not None:
                return False
        return self.reader.partial is not None

    def _read(self, message: Message) -> None:
        if self.trace is not None:
            self.trace("in", (HEADER_SIZE + len(message.payload), *message[:6]))
        if message.program == KEEPALIVE_PROGRAM:
            self.keepAliveReceived(message)
        else:
            self.messageReceived(message)

    def _readOn(self) -> None:
        self._nextTurn = None
        if self._takeIn(b""):
            self._nextTurn = self._shared.clock.callLater(0, self._readOn)
        elif self.closing.reason is None:
            self.resumeReading(Pause.TURN)

    def _isBetweenMessages(self) -> bool:
        return self.reader.partial is None if self.incoming is None else self.incoming.between

    def startKeepAlive(self, keepAlive: KeepAlive) -> None:
        """
        Ping the peer at this interval and count from now on.  A zero in either stops pinging.
        """
        if self.closing.reason is None:
            self.heartbeat.start(keepAlive)

    def watchByKernel(self, own: KeepAlive | None) -> None:
        """
        The connection is open: let the kernel watch the peer, if the factory says so.

        @param own: the interval and count at which the policy would ping the peer, or C{None}.
        """
        pinged = self.heartbeat.liveness.interval > 0
        terms = self._shared.tcpKeepAlive.termsFor(own, pinged=pinged)
        if terms is not None and self.closing.reason is None:
            pacemaker = self.heartbeat.pacemaker
            watch = KernelWatch(self.transport, terms, pacemaker, self.peerDied)
            if watch.start():
                self._kernelWatch = watch

    def keepAliveReceived(self, message: Message) -> None:
        """
        A message of the keepalive program arrived: answer a ping, note a pong.

        @raise PeerFlooded: when the peer sends too many pings.
        """
        if message.type != MessageType.MESSAGE:
            self.messageReceived(message)
        elif message.version == PROGRAM_VERSION:
            if message.procedure == KeepAliveProcedure.PING:
                self._peerPings.received(congested=self.congested)
                self.sendNow(PONG)
            elif message.procedure == KeepAliveProcedure.PONG:
                self.heartbeat.answered()

    def hasAsked(self) -> bool:
        """
        @return: whether the peer has asked for keepalive, and so answers pings.
        """
        return False

    def _reassure(self) -> None:
        # A peer that is behind with reading needs no more to read.
        if not self.heartbeat.hasToRead() and not self.congested:
            self._write(PONG)

    def send(self, data: bytes) -> None:
        """
        Write a packed message, unless this end is closing.
        """
        if self.closing.reason is None:
            self._write(data)

    def sendNow(self, data: bytes) -> None:
        """
        Write a packed message that is likely to be the only one in this turn of the reactor, unless
        this end is closing.  It is sent at once if nothing else waits to be sent or answered, so
        that replies to messages that arrived together leave together.
        """
        if self.closing.reason is None:
            self._write(data, atOnce=self.reader.partial is None)

    def _write(self, data: bytes, *, atOnce: bool = False) -> None:
        if self.trace is not None and len(data) >= HEADER_SIZE:
            self.trace("out", HEADER.unpack_from(data))
        if self._outgoing is not None:
            self._outgoing.inject(data)
        elif atOnce:
            self.forward(data)
        else:
            self.bytesSent += len(data)
            self.transport.write(data)

    def forward(self, data: Bytes) -> None:
        """
        Write relayed bytes, at once if nothing else waits to be sent.
        """
        self.bytesSent += len(data)
        writeNow(self.transport, data)

    def pauseProducing(self) -> None:
        """
        The transport's buffer is full.
        """
        self.congested = True
        if self._source is not None:
            self._source.pauseReading(Pause.CONGESTION)
            if self._pauses & ~Pause.TURN:
                self.closing.setDeadline(
                    self._shared.limits.stuckTimeout,
                    "it and the other side of the relay did not read on",
                )
        self.congestionBegan()

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty again.
        """
        self.congested = False
        self._peerPings.answersRead()
        if self._source is not None:
            self.closing.clearDeadline()
            self._source.closing.clearDeadline()
            self._source.resumeReading(Pause.CONGESTION)
        self.congestionEnded()

    def stopProducing(self) -> None:
        """
        The transport takes no more.
        """

    def pauseReading(self, reason: int) -> None:
        """
        Read nothing from the peer until L{resumeReading}.  A peer that asked for keepalive is still
        pinged, and the kernel tells whether its answers arrive.
        """
        if self.closing.reason is not None:
            return
        if not self._pauses & ~Pause.TURN:
            asked = reason != Pause.TURN and self.hasAsked()
            self.heartbeat.pause(pingOn=asked, readsOn=asked)
        if not self._pauses:
            (self._direct or self.transport).pauseProducing()
        self._pauses |= reason
        if reason != Pause.TURN:
            self._peerPings.startReassuring(self._reassure, asked=self.hasAsked())

    def resumeReading(self, reason: int) -> None:
        """
        Remove a reason for not reading; read on if it was the last.
        """
        if self._pauses & reason:
            self._pauses &= ~reason
            if not self._pauses & ~Pause.TURN:
                self._peerPings.stopReassuring()
            if not self._pauses:
                self.heartbeat.resume()
                (self._direct or self.transport).resumeProducing()

    @property
    def pauses(self) -> int:
        """
        Why the peer is not read from at present.
        """
        return self._pauses

    def startRelay(
        self, incoming: MessageFilter, outgoing: MessageFilter, source: Connection
    ) -> None:
        """
        Make this connection one half of a relay.

        @param incoming: takes the peer's bytes; it must intercept keepalive messages and pass them
            to L{keepAliveReceived}.
        @param outgoing: writes relayed messages to this connection.  This connection's own
            messages have to fit between them.
        @param source: the connection whose messages C{outgoing} relays.  It is not read while this
            peer is behind with reading.
        """
        self.incoming = incoming
        self._outgoing = outgoing
        self._source = source
        self.heartbeat.relay(self._pingBetween, self._isTakingHalfAMessage, self._isPingWaiting)
        if self.congested:
            source.pauseReading(Pause.CONGESTION)
        rest = self.reader.takeRest()
        if rest:
            self.received(rest)

    def readBy(self, direct: Reading) -> None:
        """
        Have something else than the transport read from the peer.

        @param direct: what is to read; it is told to begin by C{resumeProducing}.
        """
        if self.closing.reason is None:
            self.heartbeat.readElsewhere()
            self._direct = direct
            if not self._pauses:
                direct.resumeProducing()

    def _pingBetween(self) -> None:
        if self._outgoing is None or not self._outgoing.midMessage:
            writeNow(self.transport, PING)
        else:
            self._outgoing.inject(PING)

    def _isPingWaiting(self) -> bool:
        return self._outgoing is not None and self._outgoing.waiting > 0

    def _isTakingHalfAMessage(self) -> bool:
        """
        Whether the peer has read the first part of a message, and the other side of the relay has
        yet to send the rest.
        """
        return self._outgoing is not None and self._outgoing.midMessage and not self.congested

    def disconnect(self, reason: Exception) -> None:
        """
        Close the connection once everything that was written has been sent, and the peer has had
        a moment to read it; after C{limits.closeTimeout} seconds all the same.
        """
        if self.closing.begin(reason):
            self._stop()
            self.closing.finish(self._shared.limits.closeTimeout)

    def leave(self, reason: Exception, seconds: float) -> None:
        """
        Close the connection to a dead peer once everything that was written has been sent, or
        after so many seconds all the same.
        """
        if self.closing.begin(reason):
            self._stop()
            self.closing.leave(seconds)

    def abort(self, reason: Exception) -> None:
        """
        Close the connection at once, and drop what has not been sent.
        """
        if self.closing.begin(reason):
            self._stop()
            self.transport.abortConnection()
        else:
            self.closing.closeNow()

    def _stop(self) -> None:
        self._stopTimers()
        if self._direct is not None:
            self._direct.stopProducing()
        for each in (self.incoming, self._outgoing):
            if each is not None:
                each.stopped = True
        self.transport.unregisterProducer()
        self.stopped()

    def _stopTimers(self) -> None:
        self._peerPings.stopReassuring()
        self.heartbeat.end()
        if self._kernelWatch is not None:
            self._kernelWatch.stop()
            self._kernelWatch = None
        if self._nextTurn is not None:
            self._nextTurn.cancel()
            self._nextTurn = None

    def lost(self, failure: Failure) -> None:
        """
        The transport is gone.
        """
        if self._nextTurn is not None and isinstance(failure.value, ConnectionDone):
            # With TLS, one read can bring the last messages and the end of the connection.
            self._nextTurn.cancel()
            self._nextTurn = None
            while self._takeIn(b""):
                pass
        self._stopTimers()
        reason = self.closing.reason = self.explained(self.closing.lost(failure))
        hooks, self.hooks = self.hooks, None
        # Break the cycles of references, to free the connection without the garbage collector.
        if self._direct is not None:
            self._direct.stopProducing()
        self.incoming = self._outgoing = self._source = self._direct = self.relayed = None
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
