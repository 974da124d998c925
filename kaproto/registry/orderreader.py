"""
Receives one node's orders from Redis, and carries them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger

from kaproto.registry.interfaces import Node, NotDisconnected
from kaproto.registry.lines import Line
from kaproto.registry.link import RedisFactory, RedisLink, inWords
from kaproto.registry.orders import BadOrder, Order, encodeAnswer
from kaproto.registry.schema import answerChannel, orderChannel

__all__ = ["OrderReader"]

_LOG_EVERY: Final = 60.0
_ORDERS_MAX: Final = 50


class OrderReader:
    """
    Waits for orders on a connection to Redis.

    @ivar problem: why it cannot receive orders; C{None} if it can.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        subject: Node,
        endpoint: IStreamClientEndpoint,
        factory: RedisFactory,
        clock: IReactorTime,
        epoch: Callable[[], int | None],
        publish: Callable[[str, str], object],
        allowed: str,
    ) -> None:
        """
        @param name: the node's name.
        @param subject: the node.
        @param endpoint: connects to Redis.
        @param factory: makes the connections.
        @param epoch: returns the node's epoch.
        @param publish: sends a message to a channel, on another connection: a subscribed one
            cannot.
        @param allowed: the orders accepted, one of L{ORDERS<kaproto.registry.orders.ORDERS>}.
        """
        self.problem: str | None = None
        self._name = name
        self._subject = subject
        self._clock = clock
        self._epoch = epoch
        self._publish = publish
        self._allowed = allowed
        self._line = Line(endpoint, factory, self._subscribe, self._subscribed, self._lost, clock)
        self._ordersLeft = _ORDERS_MAX
        self._badOrderAt = -_LOG_EVERY

    def start(self) -> None:
        """
        Connect.
        """
        self._line.start()

    def stop(self) -> Deferred[None]:
        """
        Disconnect.

        @return: fires when the connection has ended.
        """
        return self._line.stop()

    def refill(self) -> None:
        """
        Reset the rate limit.  Called once a second.
        """
        self._ordersLeft = _ORDERS_MAX

    async def _subscribe(self, link: RedisLink) -> None:
        await link.prepare()
        link.message = self._received
        await link.command("SUBSCRIBE", orderChannel(self._name))

    def _subscribed(self) -> None:
        self.problem = None

    def _lost(self, why: str) -> None:
        self.problem = f"it cannot give orders: {inWords(why)}"

    def _received(self, message: object) -> None:
        if not self._ordersLeft:
            return
        self._ordersLeft -= 1
        try:
            order = Order.decode(message)
        except BadOrder as error:
            now = self._clock.seconds()
            if now >= self._badOrderAt + _LOG_EVERY:
                self._badOrderAt = now
                self._log.warn("the registry sent {error}; it is ignored", error=str(error))
            return
        Deferred.fromCoroutine(self._answer(order))

    async def _answer(self, order: Order) -> None:
        self._publish(answerChannel(order.token), encodeAnswer(await self._obey(order)))

    async def _obey(self, order: Order) -> str | None:
        """
        Carry out an order.

        @return: why it was not carried out; C{None} if it was.
        """
        if self._allowed == "none" or (order.number is None and self._allowed != "all"):
            return f"node {self._name} does not accept this order (--registry-orders)"
        if order.epoch != self._epoch():
            return f"node {self._name} was restarted since that list; list its clients again"
        if order.number is None:
            self._log.info("the registry orders to drain")
            self._subject.drain()
            return None
        try:
            found = await maybeDeferred(self._subject.disconnect, order.number, order.reason)
        except NotDisconnected as error:
            return f"node {self._name}: {error}"
        if not found:
            return f"node {self._name} has no client {order.number}"
        self._log.info(
            "the registry orders to disconnect client {number}: {reason!r}",
            number=order.number,
            reason=order.reason,
        )
        return None
