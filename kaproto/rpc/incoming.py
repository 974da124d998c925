"""
Parses messages from a peer's bytes, a limited number in each turn of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kaproto.errors import ProtocolError, RemoteProtocolError
from kaproto.rpc.closing import Closing
from kaproto.rpc.reading import Pause, Reading
from kaproto.wire.filter import Header, MessageFilter
from kaproto.wire.message import HEADER_SIZE, MESSAGE_MAX, TURN_MAX, Message, MessageReader
from kaproto.wire.xdr import XDRError

__all__ = ["Gate", "Incoming", "Receiver"]


class Receiver(Protocol):
    """
    The part of the connection that L{Incoming} uses.
    """

    def received(self, message: Message, /) -> None:
        """
        Process a message.

        @raise XDRError: when its payload cannot be decoded.  The connection is aborted.
        @raise ProtocolError: for any other error of the peer.  The connection is aborted.
        """


class Gate:
    """
    Receives the bytes of a peer that has not been accepted yet, in place of the L{MessageReader}.

    @ivar feed: called with the bytes.
    """

    __slots__ = ("feed", "stopped")

    between = False

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self.feed: Callable[[bytes], bool | None] = feed
        self.stopped = False


class Incoming:
    """
    Parses the bytes of one peer, and passes on each message.

    When thousands of messages arrive at once, L{TURN_MAX} are passed on per turn of the reactor, so
    that other peers are served in between.  The peer is not read until all have been passed on.

    @ivar reader: parses messages.
    @ivar bypass: receives the bytes in place of C{reader}, unless it is C{None}.
    @ivar bytesReceived: bytes from the peer, not counting the pongs of idle connections.
    @ivar relayed: called after bytes were relayed, unless it is C{None}.
    @ivar trace: called with C{"in"} and the header of each message, unless it is C{None}.
    """

    __slots__ = (
        "_clock",
        "_closing",
        "_nextTurn",
        "_reading",
        "_receiver",
        "bypass",
        "bytesReceived",
        "reader",
        "relayed",
        "trace",
    )

    def __init__(
        self,
        clock: IReactorTime,
        closing: Closing,
        reading: Reading,
        receiver: Receiver,
    ) -> None:
        """
        @param receiver: is passed each message.
        """
        self.reader = MessageReader(MESSAGE_MAX)
        self.bypass: MessageFilter | Gate | None = None
        self.bytesReceived = 0
        self.relayed: Callable[[], object] | None = None
        self.trace: Callable[[str, Header], object] | None = None
        self._clock = clock
        self._closing = closing
        self._reading = reading
        self._receiver: Receiver | None = receiver
        self._nextTurn: IDelayedCall | None = None

    def isBetweenMessages(self) -> bool:
        """
        @return: whether all bytes received so far are complete messages.
        """
        return self.reader.partial is None if self.bypass is None else self.bypass.between

    def feed(self, data: bytes) -> None:
        """
        Bytes arrived from the peer.
        """
        self.bytesReceived += len(data)
        if self._closing.reason is not None:
            self._closing.discard(len(data))
            return
        more = self._parse(data)
        if more or self.relayed is not None:
            self.fed(more=more)

    def fed(self, *, more: bool) -> None:
        """
        Bytes from the peer have been parsed or relayed.

        @param more: whether messages are left for the next turn.
        """
        if self.relayed is not None:
            self.relayed()
        if more and self._nextTurn is None and self._closing.reason is None:
            self._reading.pause(Pause.TURN)
            self._nextTurn = self._clock.callLater(0, self._parseOn)

    def fail(self, error: Exception) -> None:
        """
        Abort the connection because of an error in the peer's bytes.

        @param error: the L{XDRError} or L{ProtocolError}.
        """
        if isinstance(error, XDRError):
            error = RemoteProtocolError(f"a message that cannot be decoded: {error}")
        self._closing.abort(error)

    def finish(self) -> None:
        """
        The peer has closed: pass on the remaining messages.  With TLS, one read can return the last
        messages and the end of the connection.
        """
        if self._nextTurn is not None:
            self._cancelTurn()
            while self._parse(b""):
                pass

    def stop(self) -> None:
        """
        The connection closes: pass on nothing more.
        """
        self._cancelTurn()
        if self.bypass is not None:
            self.bypass.stopped = True

    def end(self) -> None:
        """
        The connection has ended.
        """
        # These refer to the connection.  Break the cycle, to free it without the garbage collector.
        self.bypass = self.relayed = self._receiver = None

    def _parse(self, data: bytes) -> bool:
        """
        @return: whether messages are left for the next turn.
        """
        try:
            if self.bypass is not None:
                more = self.bypass.feed(data)
            else:
                message = self.reader.whole(data)
                if message is not None:
                    self._handOver(message)
                    return False
                if data:
                    self.reader.feed(data)
                more = self._nextTurn is not None or self._handOverSome()
        except (XDRError, ProtocolError) as error:
            self.fail(error)
            return False
        return bool(more) and self._closing.reason is None

    def _handOverSome(self) -> bool:
        for _ in range(TURN_MAX):
            message = self.reader.next()
            if message is None:
                return False
            self._handOver(message)
            if self._closing.reason is not None:
                return False
        return self.reader.partial is not None

    def _handOver(self, message: Message) -> None:
        if self.trace is not None:
            self.trace("in", (HEADER_SIZE + len(message.payload), *message[:6]))
        assert self._receiver is not None, "no message is passed on after the end"
        self._receiver.received(message)

    def _cancelTurn(self) -> None:
        if self._nextTurn is not None:
            self._nextTurn.cancel()
            self._nextTurn = None

    def _parseOn(self) -> None:
        self._nextTurn = None
        if self._parse(b""):
            self._nextTurn = self._clock.callLater(0, self._parseOn)
        elif self._closing.reason is None:
            self._reading.resume(Pause.TURN)
