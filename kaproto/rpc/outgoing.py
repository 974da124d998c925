"""
Writes to a peer: this end's own messages, and relayed ones.
"""

from __future__ import annotations

from collections.abc import Callable

from kaproto.transport import StreamTransport, writeNow
from kaproto.wire.filter import Bytes, Header, MessageFilter
from kaproto.wire.message import HEADER, HEADER_SIZE, PING

__all__ = ["Outgoing"]


class Outgoing:
    """
    Writes to one peer.

    @ivar bytesSent: bytes written, not counting pings.
    @ivar congested: whether the peer is behind with reading.
    @ivar filter: forwards relayed messages to the peer, if this end is one half of a relay.  This
        end's own messages are injected between them.
    @ivar trace: called with C{"out"} and the header of each of this end's own messages, unless it
        is C{None}.
    """

    __slots__ = ("_stopped", "_transport", "bytesSent", "congested", "filter", "trace")

    def __init__(self, transport: StreamTransport) -> None:
        self._transport = transport
        self._stopped = False
        self.bytesSent = 0
        self.congested = False
        self.filter: MessageFilter | None = None
        self.trace: Callable[[str, Header], object] | None = None

    def write(self, data: bytes, *, atOnce: bool = False) -> None:
        """
        Write one of this end's own packed messages, unless this end is closing.

        @param atOnce: whether to send it at once if nothing else waits to be sent.
        """
        if self._stopped:
            return
        if self.trace is not None and len(data) >= HEADER_SIZE:
            self.trace("out", HEADER.unpack_from(data))
        if self.filter is not None:
            self.filter.inject(data)
            return
        self.bytesSent += len(data)
        if atOnce:
            writeNow(self._transport, data)
        else:
            self._transport.write(data)

    def forward(self, data: Bytes) -> None:
        """
        Write relayed bytes, at once if nothing else waits to be sent.
        """
        self.bytesSent += len(data)
        writeNow(self._transport, data)

    def ping(self) -> None:
        """
        Write a ping, now or after the end of the message that is being relayed.
        """
        if self.isMidMessage:
            self.write(PING)
        else:
            writeNow(self._transport, PING)

    @property
    def isMidMessage(self) -> bool:
        """
        Whether a message has been relayed in part.
        """
        return self.filter is not None and self.filter.midMessage

    def isPingWaiting(self) -> bool:
        """
        @return: whether this end's own messages wait for the end of the one being relayed.
        """
        return self.filter is not None and self.filter.waiting > 0

    def isWaitingForRest(self) -> bool:
        """
        @return: whether the peer has read the first part of a message, and the other side of the
            relay has not sent the rest.
        """
        return self.isMidMessage and not self.congested

    def stop(self) -> None:
        """
        This end is closing: write nothing more, neither own nor relayed messages.
        """
        self._stopped = True
        if self.filter is not None:
            self.filter.stopped = True
