"""
What is known of all clients of a server: how many there are, who they are, and what they wait for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Final, Protocol

import attrs
from twisted.internet.task import Cooperator

from kaproto.backends.gateway import Gateway
from kaproto.keepalive.histogram import Histogram
from kaproto.records.endings import Ending
from kaproto.records.refusals import Refusal
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory
from kaproto.status.clients import ClientStatus, clientStatus

__all__ = ["LocalRegister", "Register", "Upstream"]


@attrs.frozen
class Upstream:
    """
    What is behind a gateway.

    @ivar problem: what was wrong when it was last opened; C{None} if nothing was.
    @ivar calls: the clients' calls that it has not answered.
    @ivar busy: how many clients' connections it does not read, though it is alive.
    """

    problem: str | None
    calls: int
    busy: int


class Register(Protocol):
    """
    The clients of a server, in one process or in several.  What is plain figures is known at once,
    as of the latest L{refresh}; clients and records are asked for.
    """

    def __len__(self) -> int:
        """
        @return: how many clients there are.
        """

    @property
    def anonymous(self) -> int:
        """
        How many of them have not finished the TLS handshake or not logged in.
        """

    @property
    def turns(self) -> Histogram | None:
        """
        How long the reactors' turns were, of other processes that serve the clients; C{None} if
        this process does.
        """

    def phases(self) -> Counter[tuple[str, str]]:
        """
        @return: how many there are, by listener and L{kaproto.rpc.negotiation.Phase}.
        """

    def upstream(self) -> Upstream | None:
        """
        @return: what is behind the server, if it is a gateway.
        """

    def problem(self) -> str | None:
        """
        @return: what is wrong with what is behind the server, if anything.
        """

    async def refresh(self) -> None:
        """
        Bring the figures up to date.
        """

    async def newest(self, text: str, before: int, most: int) -> list[ClientStatus]:
        """
        @param text: is in the clients' names or addresses; in lower case.
        @param before: is larger than the clients' ids; 0 for all.
        @param most: how many clients are wanted.
        @return: the clients, the latest first.
        """

    async def endings(self, most: int) -> list[Ending]:
        """
        @return: the latest connections that ended, the latest first.
        """

    async def refusals(self, most: int) -> list[Refusal]:
        """
        @return: who was refused, or would be, the latest first.
        """


_LISTENER_AND_PHASE: Final = attrgetter("listener", "negotiation.phase._value_")
"""
Counts ten thousand in two milliseconds; a generator that reads C{.value} takes three times as long.
"""


class LocalRegister:
    """
    The clients of this process.
    """

    turns = None

    def __init__(self, factory: KeepAliveServerFactory, gateway: Gateway | None = None) -> None:
        """
        @param factory: the factory of their connections.
        @param gateway: what answers them, if that is a gateway.
        """
        self._factory = factory
        self._gateway = gateway
        self._cooperator = Cooperator(scheduler=partial(factory.clock.callLater, 0.0))

    def __len__(self) -> int:
        return len(self._factory.clients)

    @property
    def anonymous(self) -> int:
        """
        How many have not finished the TLS handshake or not logged in.
        """
        return self._factory.clients.anonymous

    def phases(self) -> Counter[tuple[str, str]]:
        """
        @return: how many there are, by listener and L{kaproto.rpc.negotiation.Phase}.
        """
        return Counter(map(_LISTENER_AND_PHASE, self._factory.clients))

    def problem(self) -> str | None:
        """
        @return: what is wrong with libvirtd, as far as is known now.
        """
        return None if self._gateway is None else self._gateway.health.look()

    def upstream(self) -> Upstream | None:
        """
        @return: what is behind the gateway.
        """
        if self._gateway is None:
            return None
        calls = sum(each.callsUnderWay for each in self._factory.clients)
        return Upstream(self.problem(), calls, len(self._gateway.upstream.busy))

    async def refresh(self) -> None:
        """
        The figures are up to date at all times, but for those of libvirtd.
        """
        if self._gateway is not None:
            await self._gateway.health.refresh()

    async def newest(self, text: str, before: int, most: int) -> list[ClientStatus]:
        """
        Find clients.  A search for a text takes several turns of the reactor.
        """
        clients: Iterator[ServerConnection] = reversed(self._factory.clients)
        if before:
            clients = (each for each in clients if each.peer.id < before)
        if text:
            found: list[ServerConnection] = []
            await self._cooperator.coiterate(_search(list(clients), text, found, most))
        else:
            found = list(islice(clients, most))
        return [clientStatus(self._factory, each) for each in found]

    async def endings(self, most: int) -> list[Ending]:
        """
        @return: the latest connections that ended, the latest first.
        """
        return list(islice(self._factory.journal.endings, most))

    async def refusals(self, most: int) -> list[Refusal]:
        """
        @return: who was refused, or would be, the latest first.
        """
        return list(islice(self._factory.journal.refusals, most))


def _search(
    clients: Iterable[ServerConnection], text: str, found: list[ServerConnection], most: int
) -> Iterator[None]:
    for each in clients:
        if len(found) == most:
            return
        if text in f"{each.peer} {each.peer.requested}".lower():
            found.append(each)
        yield
