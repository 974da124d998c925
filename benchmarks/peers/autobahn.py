"""
Autobahn's WebSocket server on Twisted, with C{autoPing}.
"""

from __future__ import annotations

import sys

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor

if __name__ == "__main__":
    port, interval, count = sys.argv[1:]
    factory = WebSocketServerFactory()
    factory.protocol = WebSocketServerProtocol
    factory.setProtocolOptions(
        autoPingInterval=float(interval),
        autoPingTimeout=float(interval) * int(count),
        openHandshakeTimeout=60,
    )
    reactor.listenTCP(int(port), factory, backlog=4096, interface="127.0.0.1")
    reactor.run()
