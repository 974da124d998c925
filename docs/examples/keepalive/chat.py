"""
A chat without keepalive: each line is sent to all participants.

Usage: chat.py serve tcp:4040 | chat.py join tcp:127.0.0.1:4040
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


class Chat(LineReceiver):
    """
    A participant.
    """

    factory: ChatFactory

    def connectionMade(self) -> None:
        """
        Add this participant.
        """
        self.factory.participants.append(self)
        print("connected", flush=True)

    def lineReceived(self, line: bytes) -> None:
        """
        Send a line to all participants.
        """
        print("heard", line.decode(), flush=True)
        for each in self.factory.participants:
            if each is not self:
                each.sendLine(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Remove this participant.
        """
        self.factory.participants.remove(self)
        print("lost:", reason.getErrorMessage(), flush=True)


class ChatFactory(Factory):
    """
    All participants.
    """

    protocol = Chat  # type: ignore[assignment]

    def __init__(self) -> None:
        self.participants: list[Chat] = []


async def main(reactor: Any, role: str, endpoint: str) -> None:
    """
    Serve or join.
    """
    if role == "serve":
        port = await serverFromString(reactor, endpoint).listen(ChatFactory())
        print("listening on", port.getHost(), flush=True)
    else:
        await clientFromString(reactor, endpoint).connect(ChatFactory())
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
