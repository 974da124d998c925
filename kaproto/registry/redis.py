"""
The registry in Redis: writes this node's list, and takes orders.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from kaproto.logbounds import shorten
from kaproto.registry.interfaces import IRegistry, Node, RegistryStatus
from kaproto.registry.lines import Line
from kaproto.registry.link import RedisError, RedisFactory, RedisLink
from kaproto.registry.listing import NOT_YET, Batch, Listing
from kaproto.registry.orders import BadOrder, Order, encodeAnswer
from kaproto.registry.schema import (
    REFUSED_MAX,
    WRITE,
    answerChannel,
    encode,
    keysOf,
    orderChannel,
)

__all__ = ["RedisRegistry"]

_STEP: Final = 1.0
_LEAVE_TIMEOUT: Final = 1.0
_LOG_EVERY: Final = 60.0
_ORDERS_PER_STEP: Final = 50
_REFUSED_EVERY: Final = 10.0


@implementer(IRegistry)
class RedisRegistry:
    """
    Lists the clients of one node in Redis.

    There are two connections: one writes, and one waits for orders, since a connection that is
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
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        @param node: the name of this node.
        @param where: what logs call the registry.
        @param endpoint: connects to Redis.
        @param factory: makes the connections.
        @param wall: the wall clock, in seconds since 1970.
        """
        self.node = node
        self._where = where
        self._clock = clock
        self._epochHint = int(wall())
        self._writer = Line(endpoint, factory, RedisLink.prepare, self._ready, self._lost, clock)
        self._subscriber = Line(
            endpoint, factory, self._subscribe, self._subscribed, self._deaf, clock
        )
        self._loop = LoopingCall(self._step)
        self._loop.clock = clock
        self._deafness: str | None = None
        self._shown: str | None = None
        self._shownAt = self._badOrderAt = -_LOG_EVERY
        self._ordersLeft = _ORDERS_PER_STEP
        self._refusedAt = -_REFUSED_EVERY
        self._refused = ""
        self._subject: Node
        self._listing = Listing(tuple, self._describe, clock.seconds())

    def start(self, node: Node) -> None:
        """
        List a server's clients from now on.
        """
        self._subject = node
        self._listing = Listing(node.numbers, self._describe, self._clock.seconds())
        node.follow(self._listing.changed)
        self._loop.start(_STEP, now=False)
        self._writer.start()
        self._subscriber.start()

    def _describe(self, number: int) -> str | None:
        client = self._subject.client(number)
        return None if client is None else encode(client)

    def status(self) -> RegistryStatus:
        """
        @return: how it is now.
        """
        return RegistryStatus(
            self._where, self._problem, self._listing.stale(self._clock.seconds())
        )

    @property
    def _problem(self) -> str | None:
        return self._listing.problem or self._deafness

    # Writing.

    def _ready(self) -> None:
        self._refusedAt = -_REFUSED_EVERY
        self._refused = ""
        self._listing.ready(self._clock.seconds())
        self._writeNext()

    def _lost(self, why: str) -> None:
        self._listing.lost(_inWords(why), self._clock.seconds())

    def _step(self) -> None:
        self._ordersLeft = _ORDERS_PER_STEP
        self._report()
        self._writeNext()

    def _writeNext(self) -> None:
        link = self._writer.link
        if link is None or link.isEnded:
            return
        batch = self._listing.next(self._clock.seconds())
        if batch is not None:
            Deferred.fromCoroutine(self._write(link, batch)).addErrback(
                lambda failure: self._log.failure("the registry's list was not written", failure)
            )

    async def _write(self, link: RedisLink, batch: Batch) -> None:
        refused = self._newlyRefused(batch)
        values = [each for pair in batch.changed.items() for each in pair]
        try:
            word, epoch, clients = await self._script(
                link,
                "begin" if batch.begin else "write",
                batch.begun,
                encode(self._subject.about()),
                refused,
                int(batch.complete),
                len(batch.changed),
                *values,
                *batch.ended,
            )
        except RedisError as error:
            if not link.isEnded:
                problem = _inWords(str(error))
                self._listing.failed(problem, self._clock.seconds())
                link.abort(problem)
        else:
            if refused:
                self._refused = refused
            self._listing.replied(word, epoch, clients, self._clock.seconds())
            self._report()
            self._writeNext()

    async def _script(
        self, link: RedisLink, action: str, begun: int, *rest: str | int
    ) -> tuple[str, int, int]:
        head = (self.node, action, self._listing.epoch or 0, self._epochHint, begun)
        reply = await link.command("EVAL", WRITE, 4, *keysOf(self.node), *head, *rest)
        try:
            word, epoch, clients = reply.split()
            return word, int(epoch), int(clients)
        except (AttributeError, ValueError) as error:
            raise RedisError(f"Redis has answered {shorten(repr(reply), 100)}") from error

    def _newlyRefused(self, batch: Batch) -> str:
        """
        @return: who was refused, as JSON, if that is to be written with this batch.
        """
        now = self._clock.seconds()
        if not batch.begin and now < self._refusedAt + _REFUSED_EVERY:
            return ""
        self._refusedAt = now
        refused = json.dumps(list(self._subject.refused()[:REFUSED_MAX]), ensure_ascii=False)
        return "" if refused == self._refused else refused

    def _report(self) -> None:
        """
        Say in the log when something has become wrong, or right again; once a minute at most as
        long as it is wrong.
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

    # Orders.

    async def _subscribe(self, link: RedisLink) -> None:
        await link.prepare()
        link.message = self._ordered
        await link.command("SUBSCRIBE", orderChannel(self.node))

    def _subscribed(self) -> None:
        self._deafness = None

    def _deaf(self, why: str) -> None:
        self._deafness = f"it can give no orders: {_inWords(why)}"

    def _ordered(self, message: object) -> None:
        if not self._ordersLeft:
            return
        self._ordersLeft -= 1
        try:
            order = Order.decode(message)
        except BadOrder as error:
            now = self._clock.seconds()
            if now >= self._badOrderAt + _LOG_EVERY:
                self._badOrderAt = now
                self._log.warn(
                    "registry {where}: ignored {error}", where=self._where, error=str(error)
                )
            return
        answer = encodeAnswer(self._obey(order))
        link = self._writer.link
        if link is not None and not link.isEnded:
            Deferred.fromCoroutine(
                link.command("PUBLISH", answerChannel(order.token), answer)
            ).addErrback(lambda failure: failure.trap(RedisError))

    def _obey(self, order: Order) -> str | None:
        """
        @return: why it was not obeyed.
        """
        if order.epoch != self._listing.epoch:
            return f"node {self.node} was started anew since that list; list its clients again"
        if order.number is None:
            self._log.info("registry {where}: ordered to drain", where=self._where)
            self._subject.drain()
            return None
        if not self._subject.disconnect(order.number, order.reason):
            return f"node {self.node} has no client {order.number}"
        self._log.info(
            "registry {where}: ordered to disconnect client {number}: {reason!r}",
            where=self._where,
            number=order.number,
            reason=order.reason,
        )
        return None

    def stop(self) -> Deferred[None]:
        """
        Take this node off the list, if Redis answers at once.

        @return: fires when both connections have ended.
        """
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        link = self._writer.link
        if link is not None and not link.isEnded and self._listing.epoch is not None:
            giveUp = self._clock.callLater(_LEAVE_TIMEOUT, link.abort, "kaserver stops")
            try:
                await self._script(link, "leave", sys.maxsize)
            except RedisError:
                self._log.info(
                    "registry {where}: did not answer; it lists node {node} as gone",
                    where=self._where,
                    node=self.node,
                )
            if giveUp.active():
                giveUp.cancel()
        await DeferredList([self._writer.stop(), self._subscriber.stop()])


def _inWords(problem: str) -> str:
    """
    @return: what Redis or a connection says is wrong, as a part of a sentence.
    """
    return shorten(problem.partition(" script: ")[0]).rstrip(".")
