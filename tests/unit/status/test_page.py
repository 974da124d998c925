"""
Tests for L{kaproto.status.page}.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from kaproto.status.page import CLIENTS_SHOWN, Page, View
from kaproto.status.sampler import Sampler
from tests.support_admin import AdminTestCase

_T = TypeVar("_T")


class ViewTests(AdminTestCase):
    """
    Tests for selecting the clients on a page.
    """

    def test_arguments(self) -> None:
        """
        Invalid arguments are ignored, and long ones truncated.
        """
        for arguments, view in [
            ({}, View()),
            ({b"q": [b" alice "], b"before": [b"12"]}, View("alice", 12)),
            ({b"q": [b"\xff"], b"before": [b"x"]}, View("\ufffd", 0)),
            ({b"q": [b"x" * 500], b"before": [b"9" * 500]}, View("x" * 100, 0)),
            ({b"before": [b"-5"]}, View()),
        ]:
            self.assertEqual(View.fromArguments(arguments), view)

    def test_query(self) -> None:
        """
        Arguments in links are quoted.
        """
        self.assertEqual(View('"&<b>').query(5), "?q=%22%26%3Cb%3E&before=5")


class PageTests(AdminTestCase):
    """
    Tests for the status page.
    """

    def setUp(self) -> None:
        """
        Create a page.
        """
        super().setUp()
        self.page = Page(self.daemon, Sampler(self.daemon))

    def rendered(self, rendering: Coroutine[Deferred[Any], Any, _T]) -> _T:
        """
        @return: the result of rendering.
        """
        result = Deferred.fromCoroutine(rendering)
        self.turns(50)
        return self.successResultOf(result)

    def ids(self, view: View) -> list[int]:
        """
        @return: the ids of the clients on a page.
        """
        html = self.rendered(self.page.sections(view))["clients"]
        return [int(each) for each in re.findall(r'data-label="ID">(\d+)<', html)]

    def test_document(self) -> None:
        """
        The page works without scripts, and its title has the number of clients.
        """
        self.client()
        html = self.rendered(self.page.document(View("a&b", 7))).decode()
        self.assertTrue(html.startswith("<!DOCTYPE html>\n<html"))
        self.assertIn("<title>kaserver: 1 client</title>", html)
        self.assertIn('<noscript><meta http-equiv="refresh" content="5" /></noscript>', html)
        self.assertIn('data-events="/events?q=a%26b&amp;before=7"', html)
        self.assertIn('value="a&amp;b"', html)
        for name in ("overview", "plots", "clients", "ended", "refused"):
            self.assertEqual(html.count(f'<section id="{name}">'), 1)
        self.assertNotIn("style=", html)
        self.client()
        html = self.rendered(self.page.document(View())).decode()
        self.assertIn("<title>kaserver: 2 clients</title>", html)
        self.assertNotIn(">all</a>", html)

    def test_pages(self) -> None:
        """
        The newest clients are shown first, with a link to older ones.
        """
        wires = [self.client() for _ in range(CLIENTS_SHOWN + 2)]
        self.assertEqual(self.ids(View()), list(range(CLIENTS_SHOWN + 2, 2, -1)))
        html = self.rendered(self.page.sections(View()))["clients"]
        self.assertIn('href="?q=&amp;before=3"', html)
        self.assertEqual(self.ids(View("", 3)), [2, 1])
        wires[0].lose()
        self.assertEqual(self.ids(View("", 3)), [2])

    def test_search(self) -> None:
        """
        The search is case-insensitive, and finds names and addresses.
        """
        wires = [self.client() for _ in range(60)]
        wires[3].protocol.peer.user = "Alice"
        wires[40].protocol.peer.requested = "qemu:///alice"
        self.assertEqual(self.ids(View("ALICE")), [41, 4])
        self.assertEqual(self.ids(View("alice", 41)), [4])
        self.assertEqual(self.ids(View("nobody")), [])
        self.assertEqual(len(self.ids(View("192.0.2"))), CLIENTS_SHOWN)
