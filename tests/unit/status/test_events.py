"""
Tests for L{kaproto.status.events}.
"""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport

from kaproto.status.events import EVERY, VIEWERS_MAX
from tests.support_status import SiteTestCase, dechunked


class EventsTests(SiteTestCase):
    """
    Tests for updating open pages.
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
        @return: the sections that were sent since the last call.
        """
        value = transport.value()
        transport.clear()
        if value.startswith(b"HTTP"):
            value = value.partition(b"\r\n\r\n")[2]
        found = {}
        for event in dechunked(value).decode().split("\n\n"):
            if event:
                name, data = event.split("\n")
                found[name.removeprefix("event: ")] = json.loads(data.removeprefix("data: "))
        return found

    def test_changes(self) -> None:
        """
        All sections are sent first, then only those that change.
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
        Each page gets the clients it shows; pages with the same view are rendered once.
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
        A browser that does not read gets no updates until it reads again, and then the latest.
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
        Nothing is rendered after the last page is closed.
        """
        protocol, _transport = self.watch()
        self.assertEqual(len(self.status._broadcaster), 1)
        self.lose(protocol)
        self.assertEqual(len(self.status._broadcaster), 0)
        self.assertFalse(self.status._broadcaster._loop.running)

    def test_tooMany(self) -> None:
        """
        The number of open pages is limited.
        """
        for _ in range(VIEWERS_MAX):
            self.watch()
        self.assertEqual(self.request("/events").code, 503)

    def test_stop(self) -> None:
        """
        The event streams end when the server stops.
        """
        _protocol, transport = self.watch()
        self.events(transport)
        self.status.doStop()  # type: ignore[no-untyped-call]
        self.assertEqual(transport.value(), b"0\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.status.doStart()  # type: ignore[no-untyped-call]
