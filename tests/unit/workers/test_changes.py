"""
Tests for L{kaproto.workers.changes}.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kaproto.workers.changes import BATCH, Changes
from tests.support_registry import FakeNode


class ChangesTests(SynchronousTestCase):
    """
    Tests for L{Changes}.
    """

    def setUp(self) -> None:
        """
        Create a node with one client.
        """
        self.node = FakeNode()
        self.node.clients[1] = {"id": 1}
        self.changes = Changes(self.node)

    def end(self, number: int) -> None:
        """
        Disconnect a client.
        """
        del self.node.clients[number]
        self.node.changed(number)

    def take(self) -> dict[int, object]:
        """
        @return: the next changes.
        """
        return {
            each.number: None if each.client is None else json.loads(each.client)
            for each in self.changes.take()
        }

    def test_changes(self) -> None:
        """
        At first all clients are reported, and later those that connect, change or leave: once each,
        with the latest data.
        """
        self.assertEqual(self.take(), {1: {"id": 1}})
        self.assertEqual(self.take(), {})
        self.node.set(2, phase="tls")
        self.node.set(2, phase="open")
        self.end(1)
        self.assertEqual(self.take(), {2: {"id": 2, "phase": "open"}, 1: None})
        self.assertEqual(self.take(), {})

    def test_unknown(self) -> None:
        """
        Clients that connect and leave between two reports are not reported, so the number of
        recorded changes is bounded.
        """
        self.take()
        for number in range(2, 1000):
            self.node.set(number)
            self.end(number)
        self.assertEqual(self.take(), {})
        self.end(1)
        self.assertEqual(self.take(), {1: None})
        self.node.changed(1)
        self.assertEqual(self.take(), {})

    def test_many(self) -> None:
        """
        Many changes are reported in batches.
        """
        for number in range(2, 2 * BATCH):
            self.node.set(number)
        batches = [self.take() for _ in range(3)]
        self.assertEqual([len(each) for each in batches], [BATCH, BATCH - 1, 0])
        self.assertEqual(batches[0].keys() | batches[1].keys(), set(range(1, 2 * BATCH)))
