"""
The chat of chat.py with keepalive, which takes one line at each end.

Usage: chat_watched.py serve tcp:4040 [MODE] | chat_watched.py join tcp:127.0.0.1:4040
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.task import react

from chat import ChatFactory
from kaproto import KeepAlive
from kaproto.policies import MODES
from kaproto.watch import watched, watchedEndpoint

KEEPALIVE = KeepAlive(interval=1, count=2)


async def main(reactor: Any, role: str, endpoint: str, mode: str = "2") -> None:
    """
    Serve or join.
    """
    if role == "serve":
        policy = MODES[int(mode)].configured(None, KEEPALIVE)
        factory = watched(ChatFactory(), policy, "lines")
        port = await serverFromString(reactor, endpoint).listen(factory)
        print("listening on", port.getHost(), flush=True)
    else:
        place = watchedEndpoint(clientFromString(reactor, endpoint), KEEPALIVE, "lines")
        await place.connect(ChatFactory())
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
