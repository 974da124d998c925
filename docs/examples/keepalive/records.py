"""
Records as netstrings, without keepalive.

Usage: records.py serve tcp:4040 | records.py send tcp:127.0.0.1:4040
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import react
from twisted.protocols.basic import NetstringReceiver
from twisted.python.failure import Failure


class Records(NetstringReceiver):
    """
    Prints records.
    """

    def connectionMade(self) -> None:
        """
        Send a record to the peer.
        """
        print("connected", flush=True)
        self.sendString(b"a record")

    def stringReceived(self, string: bytes) -> None:
        """
        Print a record.
        """
        print("heard", string.decode(), flush=True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection has ended: print why.
        """
        print("lost:", reason.getErrorMessage(), flush=True)


async def main(reactor: Any, role: str, endpoint: str) -> None:
    """
    Serve, or send.
    """
    factory = Factory.forProtocol(Records)
    if role == "serve":
        port = await serverFromString(reactor, endpoint).listen(factory)
        print("listening on", port.getHost(), flush=True)
    else:
        await clientFromString(reactor, endpoint).connect(factory)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
