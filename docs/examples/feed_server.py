"""
Run with C{python feed_server.py [ENDPOINT]}: serve this machine's load as a feed.
"""

from __future__ import annotations

import os
import sys

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, react

from feed import FeedFactory, Reading


async def main(reactor: IReactorTime, endpoint: str = "tcp:4040:interface=127.0.0.1") -> None:
    """
    Listen, and measure every half second.
    """
    factory = FeedFactory(reactor)
    port = await serverFromString(reactor, endpoint).listen(factory)
    print(f"listening on {port.getHost()}", flush=True)

    def measure() -> None:
        factory.publish(Reading("load", round(os.getloadavg()[0] * 100)))

    await LoopingCall(measure).start(0.5)


react(main, sys.argv[1:])
