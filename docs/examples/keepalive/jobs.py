"""
A master and workers over Perspective Broker.  The program does not change for keepalive: put
C{keepalive:} in front of both endpoint strings.

Usage: jobs.py master tcp:4040 | jobs.py worker tcp:127.0.0.1:4040
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.task import react
from twisted.spread import pb


class Master(pb.Root):
    """
    The object that workers attach to.
    """

    def remote_attach(self, worker: Any) -> str:
        """
        A worker has connected.
        """
        print("connected", flush=True)
        worker.notifyOnDisconnect(lambda _: print("lost: a worker", flush=True))
        return "welcome"


class Worker(pb.Referenceable):
    """
    A worker, as the master sees it.
    """


async def main(reactor: Any, role: str, endpoint: str) -> None:
    """
    Run the master, or a worker.
    """
    if role == "master":
        port = await serverFromString(reactor, endpoint).listen(pb.PBServerFactory(Master()))
        print("listening on", port.getHost(), flush=True)
    else:
        factory = pb.PBClientFactory()
        await clientFromString(reactor, endpoint).connect(factory)
        master = await factory.getRootObject()
        master.notifyOnDisconnect(lambda _: print("lost: the master", flush=True))
        print("heard", await master.callRemote("attach", Worker()), flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
