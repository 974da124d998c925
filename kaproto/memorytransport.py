"""
A transport in memory, for tests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import attrs
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

__all__ = ["MemoryTransport", "Sent"]

_BUFFER_SIZE: Final = 65536


@attrs.frozen
class Sent:
    """
    Bytes that one end wrote.

    @ivar at: the time, by the clock.
    @ivar by: C{"server"} or C{"client"}.
    @ivar data: the bytes.
    """

    at: float
    by: str
    data: bytes


class MemoryTransport:
    """
    One end's transport.  Written bytes are delivered when L{deliver} is called.

    @ivar name: C{"server"} or C{"client"}.
    @ivar reactor: the clock, under the name that L{kaproto.keepalive.Heartbeat} expects.
    @ivar blackhole: whether written bytes are dropped.
    @ivar reading: whether the protocol wants to read.
    """

    def __init__(
        self, name: str, clock: Clock, log: list[Sent], host: IAddress, peer: IAddress
    ) -> None:
        self.name = name
        self.blackhole = False
        self.reading = True
        self.reactor = self._clock = clock
        self._log = log
        self._host = host
        self._peer = peer
        self._buffer: deque[bytes] = deque()
        self._size = 0
        self._producer: IPushProducer | None = None
        self._full = False
        self._losing = False
        self._aborting = False
        self._lost = False
        self._protocol: Protocol | None = None
        self._other: MemoryTransport | None = None

    def attach(self, protocol: Protocol, other: MemoryTransport) -> None:
        """
        Connect a protocol to this end.

        @param other: the transport at the other end.
        """
        self._protocol = protocol
        self._other = other
        protocol.makeConnection(self)

    @property
    def disconnected(self) -> bool:
        """
        Whether C{connectionLost} has been called on the protocol.
        """
        return self._lost

    @property
    def disconnecting(self) -> bool:
        """
        Whether the protocol has closed the connection.
        """
        return self._losing

    def writeSequence(self, data: Iterable[bytes], /) -> None:
        """
        Send several pieces.
        """
        self.write(b"".join(data))

    def write(self, data: bytes, /) -> None:
        """
        Send bytes.  A registered producer is paused while more than 64 KiB wait.
        """
        if self._lost or self._losing:
            return
        self._log.append(Sent(self._clock.seconds(), self.name, data))
        if self.blackhole:
            return
        self._buffer.append(data)
        self._size += len(data)
        if self._producer is not None and self._size > _BUFFER_SIZE and not self._full:
            self._full = True
            self._producer.pauseProducing()

    def loseConnection(self) -> None:
        """
        Close once everything has been delivered.
        """
        self._losing = True

    def abortConnection(self) -> None:
        """
        Close at once.  The other end is notified, unless C{blackhole} is set.
        """
        if not self._lost:
            self._losing = self._aborting = True
            self._buffer.clear()
            self._clock.callLater(0, self._lose, ConnectionAborted(), ConnectionLost())

    def pauseProducing(self) -> None:
        """
        Stop reading.
        """
        self.reading = False

    def resumeProducing(self) -> None:
        """
        Start reading again.
        """
        self.reading = True

    def registerProducer(self, producer: IPushProducer, streaming: bool, /) -> None:
        """
        Pause this producer while the buffer is full.
        """
        self._producer = producer

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        self._producer = None

    def getHost(self) -> IAddress:
        """
        @return: the address of this end.
        """
        return self._host

    def getPeer(self) -> IAddress:
        """
        @return: the address of the other end.
        """
        return self._peer

    def deliver(self) -> bool:
        """
        Deliver the written bytes to the other end.

        @return: whether anything happened.
        """
        other = self._other
        assert other is not None, "attach() both ends first"
        moved = False
        while self._buffer and other.reading and not other.disconnected:
            data = self._buffer.popleft()
            self._size -= len(data)
            moved = True
            assert other._protocol is not None
            other._protocol.dataReceived(data)
        if not self._buffer and self._full:
            self._full = False
            moved = True
            if self._producer is not None:
                self._producer.resumeProducing()
        if self._losing and not self._aborting and not self._buffer and not self._lost:
            self._lose(ConnectionDone(), ConnectionDone())
            moved = True
        return moved

    def _lose(self, here: Exception, there: Exception) -> None:
        if self._lost:
            return
        self._lost = True
        assert self._protocol is not None
        assert self._other is not None
        self._protocol.connectionLost(Failure(here))
        if not self.blackhole:
            self._other._lose(there, there)
