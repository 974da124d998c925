"""
Twisted's own port forwarder, between two endpoint strings.  It copies bytes without parsing them.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.protocols.portforward import ProxyClientFactory, ProxyFactory, ProxyServer


class Connector:
    """
    Stands in for the reactor, so that the forwarder connects to an endpoint.
    """

    def __init__(self, place: str) -> None:
        """
        @param place: an endpoint string.
        """
        self._endpoint = clientFromString(reactor, place)

    def connectTCP(self, _host: str, _port: int, factory: ProxyClientFactory) -> None:
        """
        Connect to the endpoint, not to the host and port.
        """
        self._endpoint.connect(factory).addErrback(factory.clientConnectionFailed, None)


class Forwarder(ProxyServer):
    """
    A connection to this forwarder.
    """


if __name__ == "__main__":
    listen, connect = sys.argv[1:]
    Forwarder.reactor = Connector(connect)  # type: ignore[assignment]
    factory = ProxyFactory("", 0)
    factory.protocol = Forwarder
    serverFromString(reactor, listen).listen(factory)
    reactor.run()
