"""
Writes one node's list to Redis.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.logbounds import shorten
from kaproto.registry.interfaces import Node
from kaproto.registry.lines import Line
from kaproto.registry.link import RedisError, RedisFactory, RedisLink, inWords
from kaproto.registry.listing import Batch, Listing
from kaproto.registry.schema import REFUSED_MAX, WRITE, encode, keysOf

__all__ = ["Writer"]

_LEAVE_TIMEOUT: Final = 1.0
_REFUSED_EVERY: Final = 10.0


class Writer:
    """
    Writes the batches of a L{Listing} on a connection to Redis.

    @ivar listing: decides what to write.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        subject: Node,
        endpoint: IStreamClientEndpoint,
        factory: RedisFactory,
        clock: IReactorTime,
        started: int,
        replied: Callable[[], object],
    ) -> None:
        """
        @param name: the node's name.
        @param subject: the node.
        @param endpoint: connects to Redis.
        @param factory: makes the connections.
        @param started: when the node was started, in seconds since 1970.
        @param replied: called after each reply of Redis, which may change C{listing.problem}.
        """
        self.listing = Listing(subject.numbers, self._describe, clock.seconds())
        self._name = name
        self._subject = subject
        self._clock = clock
        # An early batch may reach Redis late, after a second connection has got an epoch.  This
        # id tells Redis that both come from one process, which then gets no second epoch.
        self._process = f"{started}.{secrets.randbelow(10**9):09}"
        self._replied = replied
        self._line = Line(endpoint, factory, RedisLink.prepare, self._ready, self._lost, clock)
        self._refusedAt = -_REFUSED_EVERY
        self._refused = ""

    def _describe(self, number: int) -> str | None:
        client = self._subject.client(number)
        return None if client is None else encode(client)

    def start(self) -> None:
        """
        Connect.
        """
        self._subject.follow(self.listing.changed)
        self._line.start()

    def publish(self, channel: str, message: str) -> None:
        """
        Send a message, if there is a connection.
        """
        link = self._line.link
        if link is not None and not link.isEnded:
            Deferred.fromCoroutine(link.command("PUBLISH", channel, message)).addErrback(
                lambda failure: failure.trap(RedisError)
            )

    def _ready(self) -> None:
        self._refusedAt = -_REFUSED_EVERY
        self._refused = ""
        self.listing.ready(self._clock.seconds())
        self.write()

    def _lost(self, why: str) -> None:
        self.listing.lost(inWords(why), self._clock.seconds())

    def write(self) -> None:
        """
        Write the next batch, if one is due.
        """
        link = self._line.link
        if link is None or link.isEnded:
            return
        Deferred.fromCoroutine(self._write(link)).addErrback(self._failed, link)

    def _failed(self, failure: Failure, link: RedisLink) -> None:
        """
        Redis replied with an error, or describing the clients failed.  If the connection has ended,
        L{_lost} handles that.
        """
        problem = inWords(failure.getErrorMessage())
        if failure.check(RedisError) is None:
            problem = "the clients could not be described; the log has the traceback"
            self._log.failure("could not write the list of node {node}", failure, node=self._name)
        if not link.isEnded:
            self.listing.failed(problem, self._clock.seconds())
            link.abort(problem)

    async def _write(self, link: RedisLink) -> None:
        batch = self.listing.next(self._clock.seconds())
        if batch is None:
            return
        refused = self._newlyRefused(batch)
        word, epoch, clients = await self._script(
            link,
            "begin" if batch.begin else "write",
            batch.begun,
            encode(self._subject.about()),
            refused,
            int(batch.complete),
            len(batch.changed),
            *(each for pair in batch.changed.items() for each in pair),
            *batch.ended,
        )
        if refused:
            self._refused = refused
        self.listing.replied(word, epoch, clients, self._clock.seconds())
        self._replied()
        self.write()

    async def _script(
        self, link: RedisLink, action: str, begun: int, *rest: str | int
    ) -> tuple[str, int, int]:
        head = (self._name, action, self.listing.epoch or 0, self._process, begun)
        reply = await link.command("EVAL", WRITE, 4, *keysOf(self._name), *head, *rest)
        try:
            word, epoch, clients = reply.split()
            return word, int(epoch), int(clients)
        except (AttributeError, ValueError) as error:
            raise RedisError(f"Redis has answered {shorten(repr(reply), 100)}") from error

    def _newlyRefused(self, batch: Batch) -> str:
        """
        @return: the refused clients as JSON; empty if they are not due or have not changed.
        """
        now = self._clock.seconds()
        if not batch.begin and now < self._refusedAt + _REFUSED_EVERY:
            return ""
        self._refusedAt = now
        refused = json.dumps(list(self._subject.refused()[:REFUSED_MAX]))
        return "" if refused == self._refused else refused

    async def stop(self) -> None:
        """
        Remove the node from the list, if Redis replies at once, and end the connection.
        """
        link = self._line.link
        if link is not None and not link.isEnded and self.listing.epoch is not None:
            giveUp = self._clock.callLater(_LEAVE_TIMEOUT, link.abort, "kaserver stops")
            try:
                await self._script(link, "leave", sys.maxsize)
            except RedisError:
                self._log.info(
                    "the registry does not answer; it lists node {node} as gone", node=self._name
                )
            if giveUp.active():
                giveUp.cancel()
        await self._line.stop()
