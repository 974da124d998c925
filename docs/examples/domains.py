"""
Run with C{python domains.py URI}: list the domains, and suspend and resume those that run.
"""

from __future__ import annotations

import sys

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from kaproto.client import ListFlag, connect


async def main(reactor: IReactorTime, uri: str) -> None:
    """
    List the domains, suspend and resume the running ones, and print their events.
    """
    connection = await connect(reactor, uri)
    for domain in await connection.listAllDomains():
        status = await domain.state()
        print(domain.name, domain.uuid, status.state.name)

    events = await connection.lifecycleEvents()
    for domain in await connection.listAllDomains(ListFlag.RUNNING):
        await domain.suspend()
        await domain.resume()
    async for event in events:
        print(event.domain.name, event.event.name)
        if event.event.name == "RESUMED":
            break
    await connection.close()


react(main, sys.argv[1:])
