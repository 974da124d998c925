"""
Orders to a node and their answers, as messages in Redis channels.

Anybody who can write to Redis can send an order, so an order can only disconnect a client or drain
the node.
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
The orders that a node may accept: all, only to disconnect clients, or none.
"""

_SIZE_MAX: Final = 8192
_TOKEN: Final = re.compile(r"[0-9a-f]{32}")


class BadOrder(ValueError):
    """
    A message is not a valid order or answer.
    """


@attrs.frozen
class Order:
    """
    An order to one node.

    @ivar token: names the channel for the answer.
    @ivar epoch: the node's epoch in the list: after a restart the same number belongs to another
        client.
    @ivar number: the number of the connection to disconnect; C{None} to drain the node.
    @ivar reason: the reason, for the log.
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
        @raise BadOrder: when it is not an order.
        """
        fields = _object(text)
        token, reason = fields.get("token"), fields.get("reason")
        if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            raise BadOrder("an order without a token of 32 hexadecimal digits")
        if not (reason is None or isinstance(reason, str)):
            raise BadOrder("an order whose reason is not a string")
        number = fields.get("number", "missing")
        return cls(
            token,
            _whole(fields.get("epoch")),
            None if number is None else _whole(number),
            None if reason is None else reason[:TEXT_MAX],
        )


def encodeAnswer(problem: str | None) -> str:
    """
    @param problem: why the order was not carried out; C{None} if it was.
    @return: the answer as JSON.
    """
    return json.dumps({"problem": problem})


def decodeAnswer(text: object) -> str | None:
    """
    @return: why the order was not carried out; C{None} if it was.
    @raise BadOrder: when it is not an answer.
    """
    fields = _object(text)
    problem = fields.get("problem", False)
    if problem is None or isinstance(problem, str):
        return problem
    raise BadOrder("an answer without a result")


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value
    raise BadOrder("an order without an epoch or a connection's number")


def _object(text: object) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > _SIZE_MAX:
        raise BadOrder(f"a message that is not a string, or longer than {_SIZE_MAX} characters")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadOrder("a message that is not JSON") from error
    if not isinstance(fields, dict):
        raise BadOrder("a message that is not a JSON object")
    return fields
