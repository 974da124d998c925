"""
Run with C{python asyncio_client.py URI}: use kaproto in an asyncio program.
"""

from __future__ import annotations

import asyncio
import sys

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred


async def main(uri: str) -> None:
    """
    Connect, ask for the host's name, and list the domains.
    """
    loop = asyncio.get_running_loop()
    asyncioreactor.install(loop)
    from twisted.internet import reactor

    from kaproto import connect

    reactor.startRunning(installSignalHandlers=False)
    try:
        connection = await connect(reactor, uri).asFuture(loop)
        print(await connection.hostname().asFuture(loop))

        async def states() -> list[str]:
            found = await connection.listAllDomains()
            return [(await domain.state()).state.name for domain in found]

        print(*await Deferred.fromCoroutine(states()).asFuture(loop))
        await connection.close().asFuture(loop)
    finally:
        reactor.fireSystemEvent("shutdown")


asyncio.run(main(sys.argv[1]))
