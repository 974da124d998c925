"""
Run with C{python reconnecting.py URI}: connect to a server again whenever the connection ends.
"""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from kaproto import KeepAlive
from kaproto.client import Connection, KeepAliveClientService


async def greet(connection: Connection) -> None:
    """
    Use each new connection.
    """
    print(f"connected to {await connection.hostname()}", flush=True)
    connection.whenClosed().addCallback(lambda reason: print(f"lost it: {reason}", flush=True))


async def main(reactor: IReactorTime, uri: str) -> None:
    """
    Run until interrupted.
    """
    service = KeepAliveClientService(
        reactor, uri, keepAlive=KeepAlive(interval=5, count=3), onOpen=greet
    )
    service.startService()
    await Deferred()


react(main, sys.argv[1:])
