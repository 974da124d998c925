"""
Tests for L{kaproto.status.site} and L{kaproto.status.events}.
"""

from __future__ import annotations

import json
import sys
from typing import Any, cast
from unittest.mock import patch

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport

from kaproto.status.events import EVERY, VIEWERS_MAX
from kaproto.status.page import Page
from kaproto.status.site import CONNECTIONS_MAX, StatusFactory, isLiteral
from tests.support_admin import AdminTestCase

SERVER = IPv4Address("TCP", "127.0.0.1", 9164)


class Response:
    """
    What a server answered.
    """

    def __init__(self, data: bytes) -> None:
        head, _blank, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.code = int(first.split()[1]) if first else 0
        self.headers = dict(line.lower().split(": ", 1) for line in lines)
        if self.headers.get("transfer-encoding") == "chunked":
            self.body = _dechunked(self.body)

    @property
    def text(self) -> str:
        """
        The body.
        """
        return self.body.decode()


def _dechunked(data: bytes) -> bytes:
    found = b""
    while data:
        size, _line, rest = data.partition(b"\r\n")
        length = int(size, 16)
        found, data = found + rest[:length], rest[length + 2 :]
    return found


class SiteTestCase(AdminTestCase):
    """
    A test of requests.
    """

    def setUp(self) -> None:
        """
        Serve.
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
        End a connection, if it has not ended yet.
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
        Send a request, and let the server answer it.
        """
        protocol, transport = self.connect(address)
        lines = [f"{method} {path} HTTP/{version}", *headers]
        if host is not None:
            lines.append(f"Host: {host}")
        protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        self.turns(20)
        return Response(transport.value())


class RequestTests(SiteTestCase):
    """
    What is answered, and what is refused.
    """

    def test_page(self) -> None:
        """
        The page, its style and its script.
        """
        page = self.request("/?q=x")
        self.assertEqual(page.code, 200)
        self.assertEqual(page.headers["content-type"], "text/html; charset=utf-8")
        self.assertIn("<title>kaserver", page.text)
        for path, kind in [("/kaproto.css", "text/css"), ("/kaproto.js", "text/javascript")]:
            found = self.request(path)
            self.assertEqual(
                (found.code, found.headers["content-type"]), (200, f"{kind}; charset=utf-8")
            )
        self.assertEqual(self.request("/nothing").code, 404)

    def test_headers(self) -> None:
        """
        Nothing is kept, nothing is taken from elsewhere or run but our own file, and no other page
        can read or show it.
        """
        for path in ("/", "/livez", "/metrics", "/nothing"):
            headers = self.request(path, "Origin: http://evil.example").headers
            self.assertEqual(headers["cache-control"], "no-store")
            self.assertIn("default-src 'none'", headers["content-security-policy"])
            self.assertNotIn("unsafe", headers["content-security-policy"])
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual([each for each in headers if "access-control" in each], [])

    def test_methods(self) -> None:
        """
        It can only be read; a body is not kept.
        """
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            found = self.request("/", "Content-Length: 4", method=method, body=b"abcd")
            self.assertEqual((found.code, found.headers["allow"]), (405, "get, head"))
            self.assertEqual(found.headers["cache-control"], "no-store")
        found = self.request("/livez", method="HEAD")
        self.assertEqual((found.code, found.body), (200, b""))
        found = self.request("/livez", method="HEAD", host="evil.example")
        self.assertEqual((found.code, found.body), (403, b""))

    def test_hosts(self) -> None:
        """
        Over TCP it is asked for by address, or as localhost; a name may be an attacker's, who has
        it resolve to our address.
        """
        for host, code in [
            ("127.0.0.1", 200),
            ("127.0.0.1:9164", 200),
            ("[::1]:9164", 200),
            ("localhost:9164", 200),
            ("evil.example:9164", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("", 403),
        ]:
            self.assertEqual(self.request("/livez", host=host).code, code, host)
        self.assertEqual(self.request("/livez", host=None, version="1.0").code, 200)
        socket = UNIXAddress("/run/status")
        self.assertEqual(self.request("/livez", host="gateway.example", address=socket).code, 200)

    def test_isLiteral(self) -> None:
        """
        What is no address is none.
        """
        for host in ("::1", "[::1", "127.0.0.1:x", "1.2.3", "localhost:", "[localhost]:80x"):
            self.assertFalse(isLiteral(host), host)

    def test_probes(self) -> None:
        """
        A server that drains lives, and is not ready; so is one whose libvirtd is away.
        """
        self.assertEqual(self.request("/readyz").text, "ok\n")
        self.daemon.draining = True
        found = self.request("/readyz")
        self.assertEqual((found.code, found.text), (503, "draining\n"))
        self.assertEqual(self.request("/livez").code, 200)
        self.daemon.draining = False
        gateway = self.daemon.becomeGateway()
        gateway.health.failed("libvirtd is away")
        self.assertEqual(self.request("/readyz").text, "libvirtd is away\n")
        self.clock.advance(2)
        self.assertEqual(self.request("/readyz").code, 200)

    def test_metrics(self) -> None:
        """
        Metrics, in the format that is asked for.
        """
        found = self.request("/metrics")
        self.assertIn("kaproto_build_info", found.text)
        self.assertIn("text/plain", found.headers["content-type"])
        found = self.request("/metrics", "Accept: application/openmetrics-text; version=1.0.0")
        self.assertIn("openmetrics", found.headers["content-type"])

    def test_noMetrics(self) -> None:
        """
        Without the package that it takes, how to install that.
        """
        with patch.dict(sys.modules, {"kaproto.status.metrics": None}):
            self.status = StatusFactory(self.daemon)
        found = self.request("/metrics")
        self.assertEqual(found.code, 503)
        self.assertIn("pip install 'kaproto[metrics]'", found.text)

    def test_failure(self) -> None:
        """
        A page that cannot be rendered is an error, and logged.
        """
        self.patch(Page, "document", self.fails)
        self.assertEqual(self.request("/").code, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def fails(self, view: object) -> bytes:
        """
        Fail.
        """
        raise ZeroDivisionError(view)

    def test_gone(self) -> None:
        """
        A browser that does not wait for the page is no error.
        """
        protocol, _transport = self.connect()
        protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.lose(protocol)
        self.turns(20)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_tooMany(self) -> None:
        """
        There is a limit to connections.
        """
        for _ in range(CONNECTIONS_MAX):
            self.connect()
        self.assertIsNone(self.status.buildProtocol(SERVER))


class EventsTests(SiteTestCase):
    """
    Open pages are kept up to date.
    """

    def watch(self, query: str = "") -> tuple[Protocol, StringTransport]:
        """
        Open a page.
        """
        protocol, transport = self.connect()
        protocol.dataReceived(f"GET /events{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.turns(20)
        return protocol, transport

    def events(self, transport: StringTransport) -> dict[str, str]:
        """
        @return: the parts of the page that were sent since the last time.
        """
        value = transport.value()
        transport.clear()
        if value.startswith(b"HTTP"):
            value = value.partition(b"\r\n\r\n")[2]
        found = {}
        for event in _dechunked(value).decode().split("\n\n"):
            if event:
                name, data = event.split("\n")
                found[name.removeprefix("event: ")] = json.loads(data.removeprefix("data: "))
        return found

    def test_changes(self) -> None:
        """
        First everything is sent, then what changes.
        """
        _protocol, transport = self.watch()
        self.assertEqual(
            list(self.events(transport)), ["overview", "plots", "clients", "ended", "refused"]
        )
        self.client().lose()
        self.clock.advance(EVERY)
        self.turns(20)
        found = self.events(transport)
        self.assertEqual(sorted(found), ["ended", "overview"])
        self.assertIn("the peer closed the connection", found["ended"])

    def test_views(self) -> None:
        """
        Each page gets its own clients; equal pages are rendered once.
        """
        self.client()
        rendered: list[object] = []
        sections = self.status._broadcaster._render

        def counting(view: Any) -> Any:
            rendered.append(view)
            return sections(view)

        self.status._broadcaster._render = counting
        watched = [self.watch()[1], self.watch()[1], self.watch("?q=nobody")[1]]
        rendered.clear()
        self.clock.advance(EVERY)
        self.turns(20)
        self.assertEqual(len(rendered), 2)
        clients = [self.events(each)["clients"] for each in watched]
        self.assertEqual(clients[0], clients[1])
        self.assertIn("no client matches", clients[2])

    def test_slow(self) -> None:
        """
        A browser that does not read gets nothing until it does, and then the latest.
        """
        _protocol, transport = self.watch()
        self.events(transport)
        producer = cast(Any, transport.producer)
        producer.pauseProducing()
        self.client()
        self.clock.advance(EVERY)
        self.turns(20)
        self.assertEqual(transport.value(), b"")
        producer.resumeProducing()
        self.clock.advance(EVERY)
        self.turns(20)
        self.assertIn("192.0.2.1", self.events(transport)["clients"])

    def test_gone(self) -> None:
        """
        Nothing is rendered when nobody looks any more.
        """
        protocol, _transport = self.watch()
        self.assertEqual(len(self.status._broadcaster), 1)
        self.lose(protocol)
        self.assertEqual(len(self.status._broadcaster), 0)
        self.assertFalse(self.status._broadcaster._loop.running)

    def test_tooMany(self) -> None:
        """
        There is a limit to open pages.
        """
        for _ in range(VIEWERS_MAX):
            self.watch()
        self.assertEqual(self.request("/events").code, 503)

    def test_stop(self) -> None:
        """
        Pages are told when the server stops.
        """
        _protocol, transport = self.watch()
        self.events(transport)
        self.status.doStop()  # type: ignore[no-untyped-call]
        self.assertEqual(transport.value(), b"0\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.status.doStart()  # type: ignore[no-untyped-call]
