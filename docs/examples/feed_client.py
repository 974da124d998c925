"""
Run with C{python feed_client.py [ENDPOINT]}: print the readings of a feed.
"""

from __future__ import annotations

import sys

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from feed import FEED, LATEST, SUBSCRIBE, Reading
from kaproto import KeepAlive, connect
from kaproto.program import pack, unpack


def show(procedure: int, payload: bytes) -> None:
    """
    Print a reading.
    """
    reading = unpack(Reading, payload)
    print(f"{reading.sensor}: {reading.value}", flush=True)


async def main(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4040") -> None:
    """
    Print the latest reading, then every new one.
    """
    connection = await connect(reactor, endpoint, keepAlive=KeepAlive(interval=2, count=3))
    show(LATEST, await connection.call(FEED, LATEST, pack("load")))
    connection.listen(FEED, show)
    await connection.call(FEED, SUBSCRIBE)
    print(f"the feed ended: {await connection.whenClosed()}")


react(main, sys.argv[1:])
