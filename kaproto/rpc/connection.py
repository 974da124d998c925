"""
From bytes to messages, each peer in its turn, and when not to read from a peer: because it has too
many calls waiting, or because somebody else does not read what it sends.
"""

from __future__ import annotations

import os
from typing import Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IFileDescriptorReceiver,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.errors import ProtocolError, RemoteProtocolError
from kaproto.rpc.closing import ClosingProtocol
from kaproto.transport import StreamTransport
from kaproto.wire.filter import MessageFilter
from kaproto.wire.message import MESSAGE_MAX, TURN_MAX, Message, MessageReader
from kaproto.wire.programs import KEEPALIVE_PROGRAM
from kaproto.wire.xdr import XDRError

__all__ = ["CALLS", "CONGESTION", "TURN", "MessageProtocol"]

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


@implementer(IPushProducer, IFileDescriptorReceiver)
class MessageProtocol(ClosingProtocol):
    """
    A connection that reads messages, by itself or as one half of a relay.
    """

    _incoming: MessageFilter | None = None
    _outgoing: MessageFilter | None = None
    _source: MessageProtocol | None = None
    _pauses = 0
    _congested = False
    _nextTurn: IDelayedCall | None = None

    def makeConnection(self, transport: StreamTransport) -> None:
        """
        Begin to watch what the transport has been given and has not sent.
        """
        self._reader = MessageReader(MESSAGE_MAX)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """
        Take in bytes.
        """
        if self._reason is None and self._takeIn(data) and self._nextTurn is None:
            self.pauseReading(TURN)
            self._nextTurn = self.factory.clock.callLater(0, self._readOn)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """
        A file descriptor came over a UNIX socket.  No call takes one here, so close both.
        """
        os.close(descriptor)
        self.abort(RemoteProtocolError("a file descriptor, which is not supported here"))

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

    def _isBetweenMessages(self) -> bool:
        return self._reader.partial is None if self._incoming is None else self._incoming.between

    def messageReceived(self, message: Message) -> None:
        """
        A message came that is not about keepalive.  Override it.

        @raise RemoteProtocolError: to close the connection for what the peer sent.
        """
        raise NotImplementedError

    def keepAliveReceived(self, message: Message) -> None:
        """
        A message of the keepalive program came.  Override it.

        @raise RemoteProtocolError: to close the connection for what the peer sent.
        """
        raise NotImplementedError

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

    def startRelay(
        self, incoming: MessageFilter, outgoing: MessageFilter, source: MessageProtocol
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

    def pauseReading(self, reason: int) -> None:
        """
        Read nothing from the peer until L{resumeReading}; its silence proves nothing meanwhile
        and does not count.

        @param reason: L{CALLS}, L{CONGESTION} or L{TURN}.
        """
        if not self._pauses:
            self._stopReading()
        self._pauses |= reason

    def resumeReading(self, reason: int) -> None:
        """
        A reason for not reading has gone; read on if it was the last.
        """
        if self._pauses & reason:
            self._pauses -= reason
            if not self._pauses:
                self._startReading()

    def _stopReading(self) -> None:
        self.transport.pauseProducing()

    def _startReading(self) -> None:
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
                    self.factory.limits.stuckTimeout,
                    "it and the other side of the relay did not read on",
                )

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty again.
        """
        self._congested = False
        if self._source is not None:
            self.clearDeadline()
            self._source.clearDeadline()
            self._source.resumeReading(CONGESTION)

    def stopProducing(self) -> None:
        """
        The transport takes no more.
        """

    def _end(self, reason: Exception) -> None:
        super()._end(reason)
        for sieve in (self._incoming, self._outgoing):
            if sieve is not None:
                sieve.stopped = True
        self.transport.unregisterProducer()

    def _stopTimers(self) -> None:
        super()._stopTimers()
        if self._nextTurn is not None:
            self._nextTurn.cancel()
            self._nextTurn = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The transport is gone: take in what had to wait for its turn.
        """
        if self._nextTurn is not None and isinstance(reason.value, ConnectionDone):
            # With TLS the end can come in the same read as what was sent before it.
            self._nextTurn.cancel()
            self._nextTurn = None
            while self._takeIn(b""):
                pass
        super().connectionLost(reason)
        self._incoming = self._outgoing = self._source = None
