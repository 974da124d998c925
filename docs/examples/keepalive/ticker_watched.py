"""
The web socket of ticker.py with keepalive, which takes one line at each end.

Usage: ticker_watched.py serve tcp:8080 | ticker_watched.py read ws://127.0.0.1:8080/ticker
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.websocket import WebSocketClientEndpoint

from kaproto import KeepAlive, Mandatory
from kaproto.watch.websocket import watchedWebSocket, watchedWebSocketClient
from ticker import Tickers, site

KEEPALIVE = KeepAlive(interval=1, count=2)


async def main(reactor: Any, role: str, place: str) -> None:
    """
    Serve, or read.
    """
    if role == "serve":
        server = watchedWebSocket(Tickers(), Mandatory(KEEPALIVE))
        port = await serverFromString(reactor, place).listen(site(server))
        print("listening on", port.getHost(), flush=True)
    else:
        client = watchedWebSocketClient(Tickers(), KEEPALIVE)
        await WebSocketClientEndpoint.new(reactor, place).connect(client)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
