"""
Sums over AMP, without keepalive.

Usage: sums.py serve tcp:4040 | sums.py ask tcp:127.0.0.1:4040
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import react
from twisted.protocols.amp import AMP, Command, Integer
from twisted.python.failure import Failure


class Sum(Command):
    """
    Asks for the sum of two numbers.
    """

    arguments = [(b"a", Integer()), (b"b", Integer())]  # noqa: RUF012
    response = [(b"total", Integer())]  # noqa: RUF012


class Calculator(AMP):
    """
    Answers with the sum, and prints when the connection opens and ends.
    """

    def connectionMade(self) -> None:
        """
        The connection is open.
        """
        super().connectionMade()
        print("connected", flush=True)

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        """
        Add two numbers.
        """
        return {"total": a + b}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection has ended: print why.
        """
        super().connectionLost(reason)
        print("lost:", reason.getErrorMessage(), flush=True)


async def main(reactor: Any, role: str, endpoint: str) -> None:
    """
    Serve, or ask.
    """
    factory = Factory.forProtocol(Calculator)
    if role == "serve":
        port = await serverFromString(reactor, endpoint).listen(factory)
        print("listening on", port.getHost(), flush=True)
    else:
        calculator: Any = await clientFromString(reactor, endpoint).connect(factory)
        answer = await calculator.callRemote(Sum, a=13, b=81)
        print("heard", answer["total"], flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
