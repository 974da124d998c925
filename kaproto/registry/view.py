"""
Reads all nodes from a registry in Redis, and sends them orders, for C{kaproto --registry}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kaproto.registry.link import RedisLink
from kaproto.registry.orders import BadOrder, Order, decodeAnswer
from kaproto.registry.schema import NODES, READ, answerChannel, keysOf, nodeNames, orderChannel

__all__ = ["ANSWER_TIMEOUT", "FleetView", "NodeView", "OrderFailed"]

ANSWER_TIMEOUT: Final = 5.0
"""
Seconds that a node has to answer an order.
"""

_Object = dict[str, Any]


class OrderFailed(Exception):
    """
    A node did not carry out an order; the message is for the user.
    """


@attrs.frozen
class NodeView:
    """
    The stored data of one node.

    @ivar name: its name.
    @ivar epoch: the epoch of its latest start.
    @ivar present: whether it has written lately.
    @ivar complete: whether all of its clients are listed.
    @ivar size: the number of clients listed.
    @ivar about: its description.
    @ivar refused: clients that it refused, or would refuse in mode 2, the latest first.
    @ivar clients: its clients, ordered by number; empty if they were not requested.
    """

    name: str
    epoch: int
    present: bool
    complete: bool
    size: int
    about: _Object
    refused: list[_Object]
    clients: list[_Object]

    @property
    def state(self) -> str:
        """
        Its state, in a word.  A node without its lease is not necessarily dead: it may be serving
        its clients and only have lost Redis.
        """
        if not self.present:
            return "gone"
        return str(self.about.get("state", "unknown")) if self.complete else "listing"


class FleetView:
    """
    Reads the registry, and sends orders.
    """

    def __init__(self, link: RedisLink, connect: Callable[[], Awaitable[RedisLink]]) -> None:
        """
        @param link: a connection to Redis.
        @param connect: makes another connection, which waits for answers.
        """
        self._link = link
        self._connect = connect

    async def nodes(self, *, clients: bool = False) -> list[NodeView]:
        """
        @param clients: whether to read their clients as well.
        @return: all nodes that wrote within a day, by name.
        """
        names = nodeNames(await self._link.command("ZRANGE", NODES, 0, -1))
        found = [await self.node(name, clients=clients) for name in names]
        return [each for each in found if each is not None]

    async def node(self, name: str, *, clients: bool = False) -> NodeView | None:
        """
        @param clients: whether to read its clients as well.
        @return: the node, if it is listed.
        """
        what = "clients" if clients else ""
        reply = await self._link.command("EVAL", READ, 4, *keysOf(name), what)
        epoch, about, complete, refused, present, size, lines = map(_text, reply)
        if not epoch.isdecimal():
            return None
        described = (_parse(line) for line in lines.split("\n") if line)
        return NodeView(
            name,
            int(epoch),
            present == "1",
            complete == "1",
            int(size),
            next(iter(_objects([_parse(about)])), {}),
            _objects(_parse(refused)),
            sorted(
                (each for each in _objects(list(described)) if isinstance(each.get("id"), int)),
                key=lambda each: int(each["id"]),
            ),
        )

    async def order(
        self, node: NodeView, number: int | None, reason: str | None, clock: IReactorTime
    ) -> None:
        """
        Order a node to disconnect a client, or to drain.

        @param number: the number of the client's connection; C{None} to drain the node.
        @raise OrderFailed: when the node refuses or does not answer.
        """
        order = Order(os.urandom(16).hex(), node.epoch, number, reason)
        answers = await self._connect()
        answered: Deferred[object] = Deferred()

        def message(text: object) -> None:
            if not answered.called:
                answered.callback(text)

        answers.message = message
        await answers.command("SUBSCRIBE", answerChannel(order.token))
        heard = await self._link.command("PUBLISH", orderChannel(node.name), order.encode())
        if not heard:
            answers.abort("nobody has subscribed")
            raise OrderFailed(f"node {node.name} is not connected to the registry")
        late = clock.callLater(ANSWER_TIMEOUT, message, None)
        text = await answered
        if late.active():
            late.cancel()
        answers.abort("it has answered")
        if text is None:
            raise OrderFailed(f"node {node.name} has not answered for {ANSWER_TIMEOUT:g} seconds")
        try:
            problem = decodeAnswer(text)
        except BadOrder as error:
            raise OrderFailed(f"node {node.name} has sent {error}") from error
        if problem is not None:
            raise OrderFailed(problem)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _objects(values: object) -> list[_Object]:
    """
    @return: the JSON objects among the values.  Anybody who can write to Redis may have written
        something else.
    """
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []
