"""
A server with a procedure that blocks the reactor, like code that waits for a disk or a lock.

Usage: C{python sleeper.py INTERVAL COUNT SECONDS}.  Procedure 1 of program L{SLEEPER} blocks for
C{SECONDS}.
"""

from __future__ import annotations

import sys
import time
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from kaproto.backends.host import EmbeddedHost
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies import Mandatory
from kaproto.program import Program, procedure
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol

__all__ = ["NAP", "SLEEPER", "main"]

SLEEPER: Final = 0x736C7070
NAP: Final = 1


class _Sleeper(Program):
    """
    The program with the procedure that blocks.
    """

    number = SLEEPER

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    @procedure(NAP)
    def nap(self, connection: KeepAliveServerProtocol, payload: bytes) -> bytes:
        """
        Block the reactor.  Print the times on the monotonic clock, which all processes share: a
        test may read them late.
        """
        print("asleep at", time.monotonic(), flush=True)
        time.sleep(self._seconds)
        print("awake at", time.monotonic(), flush=True)
        return b""


async def _serve(reactor: IReactorTime, interval: str, count: str, seconds: str) -> None:
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    policy = Mandatory(KeepAlive(float(interval), int(count)))
    factory = KeepAliveServerFactory(
        policy,
        EmbeddedHost(),
        [_Sleeper(float(seconds))],
        clock=reactor,
        limits=Limits(openTimeout=2.0),
    )
    port = await serverFromString(reactor, "tcp:0:interface=0.0.0.0").listen(factory)
    print(f"listening on 0.0.0.0:{port.getHost().port}", flush=True)
    await Deferred()


def main() -> None:
    """
    Serve until killed.
    """
    react(_serve, sys.argv[1:])


if __name__ == "__main__":
    main()
