"""
Asks the workers for their clients, records and figures, on behalf of the parent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from kaproto.admin.controltypes import Document
from kaproto.keepalive.histogram import Histogram
from kaproto.records.endings import Ending
from kaproto.records.refusals import Refusal
from kaproto.records.who import Caller
from kaproto.status.clients import ClientStatus
from kaproto.status.register import Upstream
from kaproto.wire.structs import pack, unpack
from kaproto.workers.channel import (
    WORKER_PROGRAM,
    Latest,
    Newest,
    WorkerProcedure,
    clientsFrom,
    endingsFrom,
    refusalsFrom,
)
from kaproto.workers.figures import Figures, Totals
from kaproto.workers.places import SharedCounts

__all__ = ["Member", "Team", "TeamRegister"]

_PATIENCE: Final = 5.0
"""
Seconds that a worker has to answer.
"""

_FRESH: Final = 1.0
"""
Seconds for which fetched figures count as current.
"""

_T = TypeVar("_T")


class Member(Protocol):
    """
    A worker that serves.

    @ivar row: its row in the shared counts, which can be computed from its clients' ids.
    @ivar pid: its process id.
    @ivar leaving: whether it accepts no new clients, because it has been replaced.
    @ivar figures: its latest figures.
    """

    row: int
    pid: int | None
    leaving: bool
    figures: Figures | None

    def call(self, program: int, procedure: int, payload: bytes = b"", /) -> Deferred[bytes]:
        """
        Call one of its procedures.
        """


class Team:
    """
    The workers that serve.

    @ivar members: the workers.
    @ivar counts: the number of clients of each.
    @ivar onEnd: if set, called with each worker that has ended, and a description of its end.
    """

    def __init__(self, counts: SharedCounts, clock: IReactorTime) -> None:
        self.members: list[Member] = []
        self.counts = counts
        self.onEnd: Callable[[Member, str], object] | None = None
        self._clock = clock

    def ended(self, member: Member, how: str) -> None:
        """
        A worker has ended.

        @param how: a description of its end, for people.
        """
        if member in self.members:
            self.members.remove(member)
        if self.onEnd is not None:
            self.onEnd(member, how)

    def memberOf(self, number: int) -> Member | None:
        """
        @param number: the id of a client.
        @return: the client's worker; C{None} if the worker has ended.
        """
        row = self.counts.rowOf(number)
        return next((each for each in self.members if each.row == row), None)

    async def askAll(
        self, program: int, procedure: int, payload: bytes = b""
    ) -> Sequence[tuple[Member, bytes]]:
        """
        Call a procedure of all workers.

        @return: the answers that arrived in time, with their workers.  A worker that does not
            answer is soon replaced.
        """
        members = list(self.members)
        answers = await DeferredList(
            [
                each.call(program, procedure, payload).addTimeout(_PATIENCE, self._clock)
                for each in members
            ],
            consumeErrors=True,
        )
        return [
            (member, answer)
            for member, (succeeded, answer) in zip(members, answers, strict=True)
            if succeeded
        ]


class TeamRegister:
    """
    The clients of all workers.
    """

    def __init__(self, team: Team, totals: Totals, clock: IReactorTime) -> None:
        self._team = team
        self._totals = totals
        self._clock = clock
        self._freshUntil = 0.0

    def __len__(self) -> int:
        return len(self._team.counts)

    @property
    def anonymous(self) -> int:
        """
        The number of clients that have not finished the TLS handshake or have not logged in.
        """
        return self._totals.anonymous

    @property
    def turns(self) -> Histogram:
        """
        The durations of the turns of the workers' reactors.
        """
        return self._totals.turns

    def phases(self) -> Counter[tuple[str, str]]:
        """
        @return: the number of clients, by listener and phase.
        """
        return self._totals.phases

    def upstream(self) -> Upstream | None:
        """
        @return: the state of the upstreams, if the workers are gateways.
        """
        return self._totals.upstream

    def problem(self) -> str | None:
        """
        @return: the problem of a worker's upstream; C{None} if there is none.
        """
        upstream = self.upstream()
        return None if upstream is None else upstream.problem

    async def refresh(self) -> None:
        """
        Ask the workers for their figures, at most once a second.
        """
        if self._clock.seconds() < self._freshUntil:
            return
        for member, answer in await self._team.askAll(WORKER_PROGRAM, WorkerProcedure.FIGURES):
            member.figures = Figures.fromJSON(unpack(Document, answer).json)
        self._freshUntil = self._clock.seconds() + _FRESH
        self.add()

    def add(self) -> None:
        """
        Add up the latest figures.
        """
        members = self._team.members
        self._totals.update([each.figures for each in members if each.figures is not None])

    async def _gather(
        self, which: WorkerProcedure, question: object, read: Callable[[Document], list[_T]]
    ) -> list[list[_T]]:
        answers = await self._team.askAll(WORKER_PROGRAM, which, pack(question))
        return [read(unpack(Document, answer)) for _member, answer in answers]

    async def newest(self, text: str, before: int, most: int) -> list[ClientStatus]:
        """
        @return: clients, those with the largest ids first.
        """
        question = Newest(text, before, most)
        found = await self._gather(WorkerProcedure.NEWEST, question, clientsFrom)
        return _first(most, found, lambda each: each.who.id)

    async def endings(self, most: int) -> list[Ending]:
        """
        @return: the latest connections that ended, the latest first.
        """
        found = await self._gather(WorkerProcedure.ENDINGS, Latest(most), endingsFrom)
        return _first(most, found, lambda each: each.endedAt)

    async def refusals(self, most: int) -> list[Refusal]:
        """
        @return: clients that were refused, or would be in mode 2, the latest first.
        """
        found = await self._gather(WorkerProcedure.REFUSALS, Latest(most), refusalsFrom)
        callers: dict[Caller, Refusal] = {}
        for each in (refusal for some in found for refusal in some):
            known = callers.setdefault(each.caller, Refusal(each.caller))
            callers[each.caller] = attrs.evolve(
                known,
                refused=known.refused + each.refused,
                wouldRefuse=known.wouldRefuse + each.wouldRefuse,
                last=max(known.last, each.last),
            )
        return sorted(callers.values(), key=lambda each: each.last, reverse=True)[:most]


def _first(most: int, found: list[list[_T]], key: Callable[[_T], float]) -> list[_T]:
    merged: Iterator[_T] = merge(*found, key=key, reverse=True)
    return list(islice(merged, most))
