"""
A web socket without keepalive.

Usage: ticker.py serve tcp:8080 | ticker.py read ws://127.0.0.1:8080/ticker
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.websocket import (
    WebSocketClientEndpoint,
    WebSocketResource,
    WebSocketServerFactory,
    WebSocketTransport,
)


class Ticker:
    """
    A protocol for web sockets that sends and prints messages.
    """

    def negotiationStarted(self, transport: WebSocketTransport) -> None:
        """
        The handshake begins.
        """
        self.transport = transport

    def negotiationFinished(self) -> None:
        """
        The web socket is open: send a message.
        """
        print("connected", flush=True)
        self.transport.sendTextMessage("tick")

    def textMessageReceived(self, message: str) -> None:
        """
        Print a message.
        """
        print("heard", message, flush=True)

    def bytesMessageReceived(self, data: bytes | bytearray) -> None:
        """
        Ignore a binary message.
        """

    def pongReceived(self, payload: bytes) -> None:
        """
        Ignore a pong.
        """

    def connectionLost(self, reason: Failure) -> None:
        """
        The connection has ended: print why.
        """
        print("lost:", reason.getErrorMessage(), flush=True)


class Tickers:
    """
    Builds L{Ticker}s, for servers and clients.
    """

    def buildProtocol(self, _: object) -> Ticker:
        """
        Build a protocol.
        """
        return Ticker()


def site(tickers: WebSocketServerFactory[Any]) -> Site:
    """
    @return: a web site with a web socket at C{/ticker}.
    """
    root = Resource()
    root.putChild(b"ticker", WebSocketResource(tickers))
    return Site(root)


async def main(reactor: Any, role: str, place: str) -> None:
    """
    Serve, or read.
    """
    if role == "serve":
        port = await serverFromString(reactor, place).listen(site(Tickers()))
        print("listening on", port.getHost(), flush=True)
    else:
        await WebSocketClientEndpoint.new(reactor, place).connect(Tickers())
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
