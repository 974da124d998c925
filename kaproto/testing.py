"""
Test your own subclasses: two ends connected in memory, on a clock that you advance, with a switch
that makes the network swallow everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Generic, TypeVar, cast

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IProtocolFactory, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.keepalive.pacemaker import TICK
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol

__all__ = ["ConnectedPair", "MemoryTransport", "Sent", "connectedPair", "memoryPair"]

_BUFFER_SIZE: Final = 65536
_Server = TypeVar("_Server")
_Client = TypeVar("_Client")


@attrs.frozen
class Sent:
    """
    Bytes that one end wrote.

    @ivar at: when, by the clock.
    @ivar by: C{"server"} or C{"client"}.
    @ivar data: what.
    """

    at: float
    by: str
    data: bytes


class MemoryTransport:
    """
    One end's transport.  What is written moves when L{ConnectedPair.flush} is called.

    @ivar name: C{"server"} or C{"client"}.
    @ivar blackhole: whether what is written from now on is lost on the way.
    @ivar reading: whether the protocol wants to read.
    """

    def __init__(self, name: str, clock: Clock, log: list[Sent], peer: IAddress) -> None:
        self.name = name
        self.blackhole = False
        self.reading = True
        self._clock = clock
        self._log = log
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
        Whether the protocol has been told that the connection is gone.
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
        See L{kaproto.transport.StreamTransport}.
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
        Close at once; the other end is told unless the network is a black hole.
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
        Read on.
        """
        self.reading = True

    def registerProducer(self, producer: IPushProducer, streaming: bool, /) -> None:
        """
        See L{kaproto.transport.StreamTransport}.
        """
        self._producer = producer

    def unregisterProducer(self) -> None:
        """
        See L{kaproto.transport.StreamTransport}.
        """
        self._producer = None

    def getPeer(self) -> IAddress:
        """
        See L{kaproto.transport.StreamTransport}.
        """
        return self._peer

    def deliver(self) -> bool:
        """
        Move what was written to the other end.

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


@attrs.define
class ConnectedPair(Generic[_Server, _Client]):
    """
    A server's and a client's end, connected.

    @ivar clock: the time of both.
    @ivar server: the server's end.
    @ivar client: the client's end.
    @ivar sent: all that either has written.
    """

    clock: Clock
    server: _Server
    client: _Client
    serverTransport: MemoryTransport
    clientTransport: MemoryTransport
    sent: list[Sent]

    def flush(self) -> None:
        """
        Deliver everything that was written, and what is written in answer, until all is quiet.
        """
        moving = True
        while moving:
            self.clock.advance(0)
            fromClient = self.clientTransport.deliver()
            fromServer = self.serverTransport.deliver()
            moving = fromClient or fromServer

    def advance(self, seconds: float) -> None:
        """
        Let time pass, in steps of L{kaproto.keepalive.pacemaker.TICK}, and deliver what is written.
        One large step of the clock would be a stall, during which no silence is counted.
        """
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 0:
            self.clock.advance(min(TICK, left))
            self.flush()

    def blackhole(self, *, on: bool = True) -> None:
        """
        Make the network swallow all that is written by either end from now on, as it does when a
        cable is pulled: neither end is told.
        """
        self.serverTransport.blackhole = on
        self.clientTransport.blackhole = on

    def writtenBy(self, name: str) -> list[tuple[float, bytes]]:
        """
        @param name: C{"server"} or C{"client"}.
        @return: when that end wrote what.
        """
        return [(each.at, each.data) for each in self.sent if each.by == name]


def connectedPair(
    serverFactory: KeepAliveServerFactory,
    clientFactory: KeepAliveClientFactory,
    *,
    flush: bool = True,
) -> ConnectedPair[KeepAliveServerProtocol, KeepAliveClientProtocol]:
    """
    Connect two factories' protocols.

    @param serverFactory: both must have been made with the same L{Clock}.
    @param clientFactory: what opens.
    @param flush: whether to let the two negotiate at once; otherwise nothing is delivered yet.
    @return: the pair.
    @raise TypeError: when the factories do not share a L{Clock}.
    """
    clock = serverFactory.clock
    if not isinstance(clock, Clock) or clientFactory.clock is not clock:
        raise TypeError("make both factories with clock= the same twisted.internet.task.Clock")
    pair: ConnectedPair[KeepAliveServerProtocol, KeepAliveClientProtocol] = memoryPair(
        serverFactory, clientFactory, clock
    )
    if flush:
        pair.flush()
    return pair


def memoryPair(
    serverFactory: IProtocolFactory, clientFactory: IProtocolFactory, clock: Clock
) -> ConnectedPair[Any, Any]:
    """
    Connect the protocols of any two factories, such as those that L{kaproto.watch.watched} and
    L{kaproto.watch.watchedClient} make.

    @param serverFactory: asked for one protocol.
    @param clientFactory: asked for one too.
    @param clock: the one with which both were made.
    @return: the pair; nothing is delivered yet.
    """
    sent: list[Sent] = []
    serverAddress = IPv4Address("TCP", "127.0.0.1", 16509)
    clientAddress = IPv4Address("TCP", "127.0.0.1", 54321)
    server = serverFactory.buildProtocol(clientAddress)
    client = clientFactory.buildProtocol(serverAddress)
    serverTransport = MemoryTransport("server", clock, sent, clientAddress)
    clientTransport = MemoryTransport("client", clock, sent, serverAddress)
    serverTransport.attach(cast(Protocol, server), clientTransport)
    clientTransport.attach(cast(Protocol, client), serverTransport)
    return ConnectedPair(clock, server, client, serverTransport, clientTransport, sent)
