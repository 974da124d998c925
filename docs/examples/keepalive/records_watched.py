"""
The records of records.py with keepalive, which takes one line at each end.

Usage: records_watched.py serve tcp:4040 [MODE] | records_watched.py send tcp:127.0.0.1:4040
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
from records import Records

KEEPALIVE = KeepAlive(interval=1, count=2)


async def main(reactor: Any, role: str, endpoint: str, mode: str = "2") -> None:
    """
    Serve, or send.
    """
    factory = Factory.forProtocol(Records)
    if role == "serve":
        policy = MODES[int(mode)].configured(None, KEEPALIVE)
        served = watched(factory, policy, "netstrings")
        port = await serverFromString(reactor, endpoint).listen(served)
        print("listening on", port.getHost(), flush=True)
    else:
        place = watchedEndpoint(clientFromString(reactor, endpoint), KEEPALIVE, "netstrings")
        await place.connect(factory)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
