"""
Tests for L{kaproto.registry.orders}.
"""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.registry.orders import BadOrder, Order, decodeAnswer, encodeAnswer

TOKEN = "0123456789abcdef" * 2
GOOD = {"token": TOKEN, "epoch": 1, "number": 2, "reason": None}


class OrderTests(SynchronousTestCase):
    """
    Tests for orders and their answers.
    """

    @given(
        st.integers(0, 2**64 - 1),
        st.none() | st.integers(0, 2**64 - 1),
        st.none() | st.text(max_size=256),
    )
    def test_roundTrip(self, epoch: int, number: int | None, reason: str | None) -> None:
        """
        Orders survive encoding and decoding.
        """
        order = Order(TOKEN, epoch, number, reason)
        self.assertEqual(Order.decode(order.encode()), order)

    def test_long(self) -> None:
        """
        A long reason is truncated.
        """
        order = Order.decode(Order(TOKEN, 1, 2, "x" * 1000).encode())
        self.assertEqual(order.reason, "x" * 256)

    def test_bad(self) -> None:
        """
        Invalid orders are refused.
        """
        for text in (
            None,
            b"\xff",
            "",
            "[]",
            "[" * 8000,
            " " * 8193,
            "null",
            *(
                json.dumps({**GOOD, **change})
                for change in (
                    {"token": "../" + TOKEN},
                    {"token": 1},
                    {"epoch": "1"},
                    {"epoch": True},
                    {"epoch": -1},
                    {"number": 1.5},
                    {"number": 1 << 64},
                    {"reason": 1},
                )
            ),
            json.dumps({name: value for name, value in GOOD.items() if name != "number"}),
        ):
            self.assertRaises(BadOrder, Order.decode, text)

    def test_answers(self) -> None:
        """
        An answer has a problem or none, and invalid answers are refused.
        """
        for problem in (None, "no such client"):
            self.assertEqual(decodeAnswer(encodeAnswer(problem)), problem)
        for text in ("{}", '{"problem": 1}', "nonsense", None):
            self.assertRaises(BadOrder, decodeAnswer, text)
