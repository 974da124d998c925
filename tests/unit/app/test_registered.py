"""
Tests for L{kaproto.app.registered}.
"""

from __future__ import annotations

import socket

from kaproto.app.registered import RegisteredNode, defaultNode
from kaproto.registry.schema import NODE_NAME, encode
from tests.support import FEATURE_KEEPALIVE, OPEN
from tests.support_admin import AdminTestCase


class DefaultNodeTests(AdminTestCase):
    """
    Tests for the default name of a node.
    """

    def test_names(self) -> None:
        """
        The name is made from the host's name, whatever characters that has.
        """
        for host, node in (
            ("host1.example", "host1.example"),
            ("höst 1", "h-st-1"),
            ("-.x", "x"),
            ("", "localhost"),
            ("x" * 80, "x" * 64),
        ):
            self.patch(socket, "gethostname", lambda host=host: host)
            self.assertEqual(defaultNode(), node)
            self.assertTrue(NODE_NAME.fullmatch(node))


class RegisteredNodeTests(AdminTestCase):
    """
    Tests for the server's data in the registry.
    """

    def setUp(self) -> None:
        """
        Create a server with one client, and record its changes.
        """
        super().setUp()
        self.first = self.client()
        self.node = RegisteredNode(self.daemon)
        self.changes: list[int] = []
        self.node.follow(self.changes.append)

    def test_changes(self) -> None:
        """
        A change is reported when a client connects, asks for keepalive, opens or ends, but not for
        pings.
        """
        self.assertEqual(list(self.node.numbers()), [1])
        second = self.client()
        self.assertEqual(set(self.changes), {2})
        self.changes.clear()
        second.feed(FEATURE_KEEPALIVE)
        self.assertEqual(set(self.changes), {2})
        self.changes.clear()
        second.feed(OPEN)
        self.assertEqual(set(self.changes), {2})
        self.changes.clear()
        self.advance(1)
        self.assertEqual(self.changes, [])
        self.first.lose()
        self.assertEqual((set(self.changes), list(self.node.numbers())), ({1}, [2]))
        self.assertIsNone(self.node.client(1))

    def test_client(self) -> None:
        """
        A client's entry has what operators see of it, without the values that change all the time.
        """
        client = self.node.client(1)
        assert client is not None
        self.assertEqual((client["id"], client["phase"], client["opened"]), (1, "ready", None))
        for name in ("latency_us", "bytes_sent", "last_heard_ms", "calls"):
            self.assertNotIn(name, client)
        encode(client)

    def test_server(self) -> None:
        """
        The entries of the server and of refused clients can be encoded.
        """
        self.first.feed(OPEN)
        encode(self.node.about())
        self.assertEqual(self.node.about()["clients"], 1)
        self.assertEqual(self.node.refused()[0]["would_refuse"], 1)

    def test_orders(self) -> None:
        """
        Orders disconnect a client and drain the server.
        """
        self.assertFalse(self.node.disconnect(2, None))
        self.assertTrue(self.node.disconnect(1, "updates"))
        self.first.lose()
        (ending,) = self.server.journal.endings
        self.assertIn("updates", ending.reason)
        self.node.drain()
        self.assertEqual(self.daemon.calls, [("drain", None)])
