"""
A TCP forwarder that records what passes through it and when, independently of both ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.protocols import portforward
from twisted.python.failure import Failure

from tests.interop.support import InteropTestCase, reactor, waitUntil
from tests.interop.wire import KEEPALIVE, Frame, FrameReader

__all__ = ["Forwarder", "Link", "Side"]


@dataclass
class Side:
    """
    What arrived from one end of a forwarded connection.

    @ivar lastByte: when the last byte arrived, on the monotonic clock, or C{None}.
    @ivar lostAt: when this end closed the connection or saw it closed, or C{None}.
    @ivar frames: the complete messages received.
    """

    lastByte: float | None = None
    lostAt: float | None = None
    frames: list[Frame] = field(default_factory=list)
    _reader: FrameReader = field(default_factory=FrameReader)

    def received(self, data: bytes) -> None:
        """
        Record the bytes.
        """
        self.lastByte = time.monotonic()
        self.frames += self._reader.feed(data, self.lastByte)

    def lost(self) -> None:
        """
        Record the end of the connection.
        """
        self.lostAt = time.monotonic()

    @property
    def pings(self) -> list[float]:
        """
        When this end sent each of its pings.
        """
        return [
            frame.at for frame in self.frames if frame.program == KEEPALIVE and frame.procedure == 1
        ]

    @property
    def pongs(self) -> list[float]:
        """
        When this end sent each of its pongs.
        """
        return [
            frame.at for frame in self.frames if frame.program == KEEPALIVE and frame.procedure == 2
        ]


@dataclass
class Link:
    """
    One forwarded connection.

    @ivar client: what arrived from the end that connected.
    @ivar server: what arrived from the end that was connected to.
    """

    client: Side = field(default_factory=Side)
    server: Side = field(default_factory=Side)


class _FromServer(portforward.ProxyClient):
    """
    The connection to the server.
    """

    factory: _TowardsServer

    def dataReceived(self, data: bytes) -> None:
        """
        Record and forward the bytes.
        """
        self.factory.link.server.received(data)
        super().dataReceived(data)  # type: ignore[no-untyped-call]  # not annotated there

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the end, and close the client's connection.
        """
        self.factory.link.server.lost()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # not annotated there


class _TowardsServer(portforward.ProxyClientFactory):
    """
    Connects to the server on behalf of one client.
    """

    protocol = _FromServer
    noisy = False
    link: Link

    def setServer(self, server: _FromClient) -> None:
        """
        Use the record of the client's connection.
        """
        self.link = server.link
        super().setServer(server)  # type: ignore[no-untyped-call]  # not annotated there


class _FromClient(portforward.ProxyServer):
    """
    The connection from the client.
    """

    clientProtocolFactory = _TowardsServer
    factory: _Forwarding

    def connectionMade(self) -> None:
        """
        Start a new record, and connect to the server.
        """
        self.link = Link()
        self.factory.links.append(self.link)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """
        Record and forward the bytes.
        """
        self.link.client.received(data)
        super().dataReceived(data)  # type: ignore[no-untyped-call]  # not annotated there

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the end, and close the server's connection.
        """
        self.link.client.lost()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # not annotated there


class _Forwarding(portforward.ProxyFactory):
    """
    Keeps a record of every connection.
    """

    protocol = _FromClient
    noisy = False

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.links: list[Link] = []


class Forwarder:
    """
    Forwards a loopback port of its own to another one.

    @ivar port: the port for clients to connect to.
    @ivar links: one record for each connection, in the order they were accepted.
    """

    def __init__(self, case: InteropTestCase, target: int) -> None:
        factory = _Forwarding(target)
        self.links = factory.links
        self._listening = reactor.listenTCP(0, cast(ServerFactory, factory), interface="127.0.0.1")
        self.port = cast(IPv4Address, self._listening.getHost()).port
        case.addCleanup(self._stop)

    async def _stop(self) -> None:
        """
        Stop listening, and wait until all connections have ended; the test closes them.
        """
        await maybeDeferred(self._listening.stopListening)
        await waitUntil(
            lambda: all(link.client.lostAt and link.server.lostAt for link in self.links),
            "the forwarded connections to end",
        )

    @property
    def uri(self) -> str:
        """
        The URI for virsh.
        """
        return f"test+tcp://127.0.0.1:{self.port}/default"
