"""
Run with C{python watch_hosts.py URI...}: print which hosts are up, how fast they answer, and the
events of their domains.
"""

from __future__ import annotations

import sys
from functools import partial

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, react

from kaproto import KeepAlive
from kaproto.client import Connection, KeepAliveClientService, Snapshot


def say(*words: object) -> None:
    """
    Print a line at once.
    """
    print(*words, flush=True)


def opened(uri: str, connection: Connection) -> None:
    """
    Print that a host is up, and later that it is down.
    """
    say(uri, "up")
    connection.whenClosed().addCallback(lambda reason: say(uri, "down:", reason))


async def watch(service: KeepAliveClientService) -> None:
    """
    Print the events of a host's domains.
    """
    async for each in service.lifecycleEvents():
        if isinstance(each, Snapshot):
            if each.lost is not None:
                say(service.uri, f"may have missed what happened in {each.seconds:.1f} s")
            for domain, status in each.states.items():
                say(service.uri, domain.name, "is", status.state.name.lower())
        else:
            say(service.uri, each.domain.name, each.event.name.lower())


def report(services: list[KeepAliveClientService]) -> None:
    """
    Print each host's latest round-trip time, and which hosts are down.
    """
    for service in services:
        connection = service.connection
        if connection is not None and connection.latency is not None:
            say(service.uri, f"answers in {connection.latency * 1000:.1f} ms")
        elif connection is None:
            say(service.uri, "is down")


async def main(reactor: IReactorTime, *uris: str) -> None:
    """
    Run until interrupted.
    """
    services = [
        KeepAliveClientService(
            reactor, uri, keepAlive=KeepAlive(interval=1, count=5), onOpen=partial(opened, uri)
        )
        for uri in uris
    ]
    for service in services:
        service.startService()
    LoopingCall(report, services).start(2, now=False)
    await gatherResults([Deferred.fromCoroutine(watch(service)) for service in services])


react(main, sys.argv[1:])
