"""
Tools for testing your own subclasses: connect two ends in memory, advance their clock, and let the
network drop everything.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.keepalive.pacemaker import TICK
from kaproto.memorytransport import MemoryTransport, Sent
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol

__all__ = [
    "ConnectedPair",
    "MemoryEndpoint",
    "MemoryTransport",
    "Sent",
    "connectedPair",
    "memoryPair",
]

_Server = TypeVar("_Server")
_Client = TypeVar("_Client")


@attrs.define
class ConnectedPair(Generic[_Server, _Client]):
    """
    A connected server and client.

    @ivar clock: the clock of both.
    @ivar server: the server's protocol.
    @ivar client: the client's protocol.
    @ivar sent: all bytes that either end has written.
    """

    clock: Clock
    server: _Server
    client: _Client
    serverTransport: MemoryTransport
    clientTransport: MemoryTransport
    sent: list[Sent]

    def flush(self) -> None:
        """
        Deliver everything that was written, then the answers, until neither end writes any more.
        """
        moving = True
        while moving:
            self.clock.advance(0)
            fromClient = self.clientTransport.deliver()
            fromServer = self.serverTransport.deliver()
            moving = fromClient or fromServer

    def advance(self, seconds: float) -> None:
        """
        Advance the clock in steps of L{kaproto.keepalive.pacemaker.TICK}, and deliver what is
        written.  One large step would be a stall, during which silence does not count.
        """
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 0:
            self.clock.advance(min(TICK, left))
            self.flush()

    def blackhole(self, *, on: bool = True) -> None:
        """
        Make the network drop everything that either end writes, as if a cable was pulled: neither
        end is notified.
        """
        self.serverTransport.blackhole = on
        self.clientTransport.blackhole = on

    def writtenBy(self, name: str) -> list[tuple[float, bytes]]:
        """
        @param name: C{"server"} or C{"client"}.
        @return: the bytes that this end wrote, with their times.
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

    @param serverFactory: the server's factory.  Both must have been made with the same L{Clock}.
    @param clientFactory: the client's factory.
    @param flush: whether the two ends negotiate before this returns; otherwise nothing is delivered
        yet.
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
    Connect the protocols of any two factories, such as those of L{kaproto.watch.watched} and
    L{kaproto.watch.watchedClient}.

    @param serverFactory: builds one protocol.
    @param clientFactory: builds one protocol.
    @param clock: the clock with which both were made.
    @return: the pair; nothing is delivered yet.
    """
    sent: list[Sent] = []
    serverAddress = IPv4Address("TCP", "127.0.0.1", 16509)
    clientAddress = IPv4Address("TCP", "127.0.0.1", 54321)
    server = serverFactory.buildProtocol(clientAddress)
    client = clientFactory.buildProtocol(serverAddress)
    serverTransport = MemoryTransport("server", clock, sent, serverAddress, clientAddress)
    clientTransport = MemoryTransport("client", clock, sent, clientAddress, serverAddress)
    serverTransport.attach(cast(Protocol, server), clientTransport)
    clientTransport.attach(cast(Protocol, client), serverTransport)
    return ConnectedPair(clock, server, client, serverTransport, clientTransport, sent)


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    An endpoint that connects to a server's factory in memory, for clients that need an endpoint:
    tunnels, L{kaproto.watch.watchedEndpoint}, web sockets.

    @ivar pair: the latest connection; unset before the first.
    """

    pair: ConnectedPair[Any, Any]

    def __init__(self, serverFactory: IProtocolFactory, clock: Clock) -> None:
        """
        @param serverFactory: builds one protocol for each connection.
        @param clock: the clock of the server's factory.
        """
        self._serverFactory = serverFactory
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @return: has already fired with the client's protocol.  Nothing is delivered before
            L{ConnectedPair.flush}.
        """
        self.pair = memoryPair(self._serverFactory, protocolFactory, self._clock)
        return succeed(self.pair.client)

    def endpointForURI(self, uri: object) -> MemoryEndpoint:
        """
        @return: this endpoint, for a L{twisted.web.client.Agent} or a
            L{twisted.web.websocket.WebSocketClientEndpoint}.
        """
        return self
