"""
A chat that parses pings itself and has its own heartbeat, which takes about ten lines.

Usage: chat_heartbeat.py serve tcp:4040 | chat_heartbeat.py join tcp:127.0.0.1:4040
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from kaproto import KeepAlive
from kaproto.keepalive import Heartbeat


class Chat(LineReceiver):
    """
    A participant.
    """

    def connectionMade(self) -> None:
        """
        Tell the peer that this end answers pings.
        """
        self.heartbeat = Heartbeat(self.transport, ping=lambda: self.sendLine(b"PING"))
        self.sendLine(b"KEEPALIVE")
        print("connected", flush=True)

    def dataReceived(self, data: bytes) -> None:
        """
        Any bytes prove that the peer is alive.
        """
        self.heartbeat.heard()
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """
        Answer a ping, record a pong, print any other line.
        """
        if line == b"PING":
            self.sendLine(b"PONG")
        elif line == b"KEEPALIVE":
            self.heartbeat.start(KeepAlive(interval=1, count=2))
        elif line != b"PONG":
            print("heard", line.decode(), flush=True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Stop the heartbeat.
        """
        self.heartbeat.stop()
        print("lost:", reason.getErrorMessage(), flush=True)


async def main(reactor: Any, role: str, endpoint: str) -> None:
    """
    Serve or join.
    """
    factory = Factory.forProtocol(Chat)
    if role == "serve":
        port = await serverFromString(reactor, endpoint).listen(factory)
        print("listening on", port.getHost(), flush=True)
    else:
        await clientFromString(reactor, endpoint).connect(factory)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
