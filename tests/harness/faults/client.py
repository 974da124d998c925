"""
A program with connections of kaproto's own client, controlled through its input.

Each line of the input is a JSON list: C{["open", NAME, URI, INTERVAL, COUNT]} or C{["call", NAME,
PROGRAM, PROCEDURE]}.  Each line of the output is a JSON object: the C{name}
of a connection, an C{event}, and its time on the monotonic clock (C{at}).
"""

from __future__ import annotations

import json
import time
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver

from kaproto.client import Connection, connect
from kaproto.keepalive.liveness import KeepAlive

__all__ = ["main"]


def _tell(name: str, event: str, **more: Any) -> None:
    print(json.dumps({"name": name, "event": event, "at": time.monotonic(), **more}), flush=True)


class _Orders(LineOnlyReceiver):
    """
    Reads orders from the standard input.
    """

    delimiter = b"\n"

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}

    def lineReceived(self, line: bytes) -> None:
        """
        Carry out an order.
        """
        what, name, *arguments = json.loads(line)
        method = getattr(self, f"_{what}")
        Deferred.fromCoroutine(method(name, *arguments)).addErrback(
            lambda failure: _tell(name, "failed", reason=str(failure.value))
        )

    async def _open(self, name: str, uri: str, interval: float, count: int) -> None:
        clock = cast(IReactorTime, reactor)
        connection = await connect(clock, uri, keepAlive=KeepAlive(interval, count))
        self._connections[name] = connection
        connection.whenClosed().addCallback(
            lambda reason: _tell(name, "closed", kind=type(reason).__name__, reason=str(reason))
        )
        port = connection.protocol.transport.getHost().port  # type: ignore[union-attr]
        _tell(name, "open", port=port)

    async def _call(self, name: str, program: int, procedure: int) -> None:
        await self._connections[name].call(program, procedure)
        _tell(name, "answer")


def main() -> None:
    """
    Run until the input ends.
    """
    react(lambda _reactor: _run(), [])


def _run() -> Deferred[None]:
    StandardIO(_Orders())
    return Deferred()


if __name__ == "__main__":
    main()
