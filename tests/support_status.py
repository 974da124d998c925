"""
Helpers for tests of the status page: requests to its HTTP server.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport

from kaproto.status.site import StatusFactory
from tests.support_admin import AdminTestCase

__all__ = ["SERVER", "Response", "SiteTestCase", "dechunked"]

SERVER = IPv4Address("TCP", "127.0.0.1", 9164)


class Response:
    """
    An HTTP response.
    """

    def __init__(self, data: bytes) -> None:
        head, _blank, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.code = int(first.split()[1]) if first else 0
        self.headers = dict(line.lower().split(": ", 1) for line in lines)
        if self.headers.get("transfer-encoding") == "chunked":
            self.body = dechunked(self.body)

    @property
    def text(self) -> str:
        """
        The body.
        """
        return self.body.decode()


def dechunked(data: bytes) -> bytes:
    """
    @return: the content of a chunked body.
    """
    found = b""
    while data:
        size, _line, rest = data.partition(b"\r\n")
        length = int(size, 16)
        found, data = found + rest[:length], rest[length + 2 :]
    return found


class SiteTestCase(AdminTestCase):
    """
    Base class for tests of HTTP requests.
    """

    def setUp(self) -> None:
        """
        Create a daemon with a status page.
        """
        super().setUp()
        self.status = StatusFactory(self.daemon)
        self.status.doStart()  # type: ignore[no-untyped-call]
        self.addCleanup(self.status.doStop)

    def connect(self, address: IAddress = SERVER) -> tuple[Protocol, StringTransport]:
        """
        Connect a browser.
        """
        transport = StringTransport(hostAddress=address)
        protocol = self.status.buildProtocol(address)
        assert protocol is not None
        protocol.makeConnection(transport)
        self.addCleanup(self.lose, protocol)
        return protocol, transport

    def lose(self, protocol: Protocol) -> None:
        """
        Lose a connection, unless it is lost already.
        """
        if protocol in self.status.protocols:
            protocol.connectionLost(connectionDone)

    def request(
        self,
        path: str,
        *headers: str,
        method: str = "GET",
        host: str | None = "127.0.0.1:9164",
        address: IAddress = SERVER,
        version: str = "1.1",
        body: bytes = b"",
    ) -> Response:
        """
        Send a request.
        """
        protocol, transport = self.connect(address)
        lines = [f"{method} {path} HTTP/{version}", *headers]
        if host is not None:
            lines.append(f"Host: {host}")
        protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        self.turns(20)
        return Response(transport.value())
