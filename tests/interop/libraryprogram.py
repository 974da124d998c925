"""
A program that uses only the library, without a Twisted service.

Usage: C{python libraryprogram.py serve INTERVAL COUNT} or C{python libraryprogram.py connect URI
INTERVAL COUNT}
"""

import sys
import time

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import react

from kaproto.client import connect
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol


class Server(KeepAliveServerProtocol):
    """
    A server connection that prints why it was closed.
    """

    def connectionClosed(self, reason: Exception) -> None:
        """
        Print the reason.
        """
        say(reason)


def say(reason: object) -> None:
    """
    Print a value with the time on the monotonic clock, which all processes share.
    """
    print(f"at {time.monotonic()}: {reason!r}", flush=True)


async def serve(reactor: IReactorTCP, interval: str, count: str) -> None:
    """
    Print the port, and serve for ever.
    """
    factory = KeepAliveServerFactory(Mandatory(KeepAlive(float(interval), int(count))))
    factory.protocol = Server
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port = await endpoint.listen(factory)
    address = port.getHost()
    assert isinstance(address, IPv4Address)
    print(f"listening on port {address.port}", flush=True)
    await Deferred()


async def talk(reactor: IReactorTime, uri: str, interval: str, count: str) -> None:
    """
    Connect, and print when and why the connection was closed.
    """
    connection = await connect(reactor, uri)
    connection.setKeepAlive(float(interval), int(count))
    say("connected")
    say(await connection.whenClosed())


if __name__ == "__main__":
    react(serve if sys.argv[1] == "serve" else talk, sys.argv[2:])
