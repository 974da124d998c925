"""
Run with C{python reconnecting.py URI}: stay connected to a server, whatever happens to it.
"""

from __future__ import annotations

import sys

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.task import react

from kaproto import KeepAlive, KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.client import endpointFor


async def greet(connection: KeepAliveClientProtocol) -> None:
    """
    Do what has to be done on every new connection.
    """
    print(f"connected to {await connection.hostname()}", flush=True)
    connection.whenClosed().addCallback(lambda reason: print(f"lost it: {reason}", flush=True))


async def prepare(connection: IProtocol) -> None:
    """
    Count a server that refuses as one that could not be reached.
    """
    assert isinstance(connection, KeepAliveClientProtocol)
    await connection.whenOpen()


def makeService(reactor: IReactorTime, uri: str) -> ClientService:
    """
    Make a service that connects, and connects again after every loss.
    """
    endpoint, name = endpointFor(reactor, uri)
    factory = KeepAliveClientFactory(
        name, keepAlive=KeepAlive(interval=5, count=3), onOpen=greet, clock=reactor
    )
    return ClientService(
        endpoint,
        factory,
        retryPolicy=backoffPolicy(initialDelay=0.5, maxDelay=30),
        clock=reactor,
        prepareConnection=prepare,
    )


async def main(reactor: IReactorTime, uri: str) -> None:
    """
    Run until interrupted.
    """
    makeService(reactor, uri).startService()
    await Deferred()


react(main, sys.argv[1:])
