"""
The registry in Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from kaproto.registry.interfaces import IRegistry, Node, RegistryStatus
from kaproto.registry.link import RedisFactory
from kaproto.registry.listing import NOT_YET
from kaproto.registry.orderreader import OrderReader
from kaproto.registry.orders import ORDERS
from kaproto.registry.writer import Writer

__all__ = ["RedisRegistry"]

_STEP: Final = 1.0
_LOG_EVERY: Final = 60.0


@implementer(IRegistry)
class RedisRegistry:
    """
    Lists the clients of one node in Redis, and receives orders from there.

    There are two connections: one writes, the other waits for orders.  A connection that has
    subscribed to a channel can do nothing else.
    """

    _log = Logger()

    def __init__(
        self,
        node: str,
        where: str,
        endpoint: IStreamClientEndpoint,
        factory: RedisFactory,
        clock: IReactorTime,
        orders: str = ORDERS[0],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        @param node: the name of this node.
        @param where: the name of the registry in logs.
        @param endpoint: connects to Redis.
        @param factory: makes the connections.
        @param orders: the orders accepted, one of L{ORDERS<kaproto.registry.orders.ORDERS>}.
        @param wall: the wall clock, in seconds since 1970.
        """
        self.node = node
        self._where = where
        self._endpoint = endpoint
        self._factory = factory
        self._clock = clock
        self._allowed = orders
        self._started = int(wall())
        self._loop = LoopingCall(self._step)
        self._loop.clock = clock
        self._shown: str | None = None
        self._shownAt = -_LOG_EVERY
        self._writer: Writer | None = None
        self._orders: OrderReader | None = None

    def start(self, node: Node) -> None:
        """
        Start listing a server's clients.
        """
        connecting = (self.node, node, self._endpoint, self._factory, self._clock)
        self._writer = writer = Writer(*connecting, self._started, self._report)
        self._orders = OrderReader(
            *connecting, lambda: writer.listing.epoch, writer.publish, self._allowed
        )
        writer.start()
        self._orders.start()
        self._loop.start(_STEP, now=False)

    def _step(self) -> None:
        assert self._writer is not None
        assert self._orders is not None
        self._orders.refill()
        self._report()
        self._writer.write()

    def status(self) -> RegistryStatus:
        """
        @return: the current state.
        """
        if self._writer is None:
            return RegistryStatus(self._where, NOT_YET)
        stale = self._writer.listing.stale(self._clock.seconds())
        return RegistryStatus(self._where, self._problem, stale)

    @property
    def _problem(self) -> str | None:
        assert self._writer is not None
        assert self._orders is not None
        return self._writer.listing.problem or self._orders.problem

    def _report(self) -> None:
        """
        Log when a problem appears and when it ends.  While there is one, log changes of it at most
        once a minute.
        """
        problem, now = self._problem, self._clock.seconds()
        if problem == NOT_YET or (problem is None and self._shown is None):
            return
        if problem is None:
            self._log.info(
                "registry {where}: the list of node {node} is up to date",
                where=self._where,
                node=self.node,
            )
        elif self._shown is None or (problem != self._shown and now >= self._shownAt + _LOG_EVERY):
            self._log.warn(
                "registry {where}: {problem}. No client is affected; the list of node {node} is "
                "not up to date",
                where=self._where,
                problem=problem,
                node=self.node,
            )
            self._shownAt = now
        else:
            return
        self._shown = problem

    def stop(self) -> Deferred[None]:
        """
        Remove this node from the list, if Redis replies at once.

        @return: fires when both connections have ended.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._writer is None or self._orders is None or not self._loop.running:
            return
        self._loop.stop()
        await self._writer.stop()
        await self._orders.stop()
