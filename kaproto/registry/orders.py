"""
Orders to a node and their answers, as they travel through Redis.

An order comes from whoever can write to Redis, so it can do no more than disconnect a client or
drain the node.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import attrs

from kaproto.records.who import TEXT_MAX

__all__ = ["ORDERS", "BadOrder", "Order", "decodeAnswer", "encodeAnswer"]

ORDERS: Final = ("all", "disconnect", "none")
"""
What a node may be told to do: all that there is, only to disconnect clients, or nothing.
"""

_SIZE_MAX: Final = 8192
_TOKEN: Final = re.compile(r"[0-9a-f]{32}")


class BadOrder(ValueError):
    """
    A message is no order, or not one that this node takes.
    """


@attrs.frozen
class Order:
    """
    What one node is told to do.

    @ivar token: names the channel that the answer goes to.
    @ivar epoch: the node's epoch, as the list has it: after a restart the same number is another
        client's.
    @ivar number: the number of the connection to disconnect; C{None} to drain the node.
    @ivar reason: why.
    """

    token: str
    epoch: int
    number: int | None
    reason: str | None = None

    def encode(self) -> str:
        """
        @return: the order as JSON.
        """
        return json.dumps(attrs.asdict(self))

    @classmethod
    def decode(cls, text: object) -> Order:
        """
        @raise BadOrder: when it is no order.
        """
        fields = _object(text)
        token, reason = fields.get("token"), fields.get("reason")
        if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            raise BadOrder("an order without a token of 32 hexadecimal digits")
        if not (reason is None or isinstance(reason, str)):
            raise BadOrder("an order whose reason is no text")
        number = fields.get("number", "missing")
        return cls(
            token,
            _whole(fields.get("epoch")),
            None if number is None else _whole(number),
            None if reason is None else reason[:TEXT_MAX],
        )


def encodeAnswer(problem: str | None) -> str:
    """
    @param problem: why the order was not obeyed; C{None} if it was.
    @return: the answer as JSON.
    """
    return json.dumps({"problem": problem})


def decodeAnswer(text: object) -> str | None:
    """
    @return: why the order was not obeyed; C{None} if it was.
    @raise BadOrder: when it is no answer.
    """
    fields = _object(text)
    problem = fields.get("problem", False)
    if problem is None or isinstance(problem, str):
        return problem
    raise BadOrder("an answer that says nothing")


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value
    raise BadOrder("an order without an epoch or a connection's number")


def _object(text: object) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > _SIZE_MAX:
        raise BadOrder(f"a message that is no text, or longer than {_SIZE_MAX} characters")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadOrder("a message that is not JSON") from error
    if not isinstance(fields, dict):
        raise BadOrder("a message that is no JSON object")
    return fields
