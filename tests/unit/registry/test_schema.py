"""
Tests for L{kaproto.registry.schema}.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kaproto.records.who import TEXT_MAX
from kaproto.registry.schema import (
    NODE_NAME,
    NODES,
    answerChannel,
    encode,
    keysOf,
    nodeNames,
    orderChannel,
)


class SchemaTests(SynchronousTestCase):
    """
    Tests for keys and values.
    """

    def test_keys(self) -> None:
        """
        All keys and channels have the same prefix, so that an access rule can name them.
        """
        for name in (*keysOf("host1"), orderChannel("host1"), answerChannel("0f")):
            self.assertTrue(name.startswith("kaproto:"), name)
        self.assertEqual(keysOf("host1")[-1], NODES)

    def test_names(self) -> None:
        """
        Names that could be mistaken for something else are refused.
        """
        for name in ("host1", "HOST_1.example-2", "_", "x" * 64):
            self.assertTrue(NODE_NAME.fullmatch(name), name)
        for name in ("", "-x", ".x", "a/b", "a b", "a:b", "a\n", "é", "x" * 65):
            self.assertFalse(NODE_NAME.fullmatch(name), name)
        self.assertEqual(nodeNames(["b", "a", b"\xff", "x/y", None]), ["a", "b"])

    def test_bounds(self) -> None:
        """
        An encoded value is one line, and its strings and lists are bounded.
        """
        text = encode({"a": "x" * 999, "b": ["é\n" * 999, 1, None], "c": list(range(999)), "d": 1})
        self.assertNotIn("\n", text)
        self.assertEqual(
            json.loads(text),
            {
                "a": "x" * TEXT_MAX,
                "b": ["é\n" * (TEXT_MAX // 2), 1, None],
                "c": list(range(100)),
                "d": 1,
            },
        )
