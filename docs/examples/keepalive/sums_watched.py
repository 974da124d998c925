"""
The sums of sums.py with keepalive, which takes one line at each end.

Usage: sums_watched.py serve tcp:4040 [MODE] | sums_watched.py ask tcp:127.0.0.1:4040
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react

from kaproto import KeepAlive
from kaproto.policies import MODES
from kaproto.watch import watched, watchedEndpoint
from sums import Calculator, Sum

KEEPALIVE = KeepAlive(interval=1, count=2)


async def main(reactor: Any, role: str, endpoint: str, mode: str = "2") -> None:
    """
    Serve, or ask.
    """
    factory = Factory.forProtocol(Calculator)
    if role == "serve":
        policy = MODES[int(mode)].configured(None, KEEPALIVE)
        served = watched(factory, policy, "amp")
        port = await serverFromString(reactor, endpoint).listen(served)
        print("listening on", port.getHost(), flush=True)
    else:
        place = watchedEndpoint(clientFromString(reactor, endpoint), KEEPALIVE, "amp")
        calculator: Any = await place.connect(factory)
        answer = await calculator.callRemote(Sum, a=13, b=81)
        print("heard", answer["total"], flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
