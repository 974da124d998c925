"""
The RPC program by which a parent fetches its workers' statistics, records and changes of clients.
Workers also answer the calls of administrators, which the parent forwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, ClassVar, Final

import attrs

from kaproto.admin.controltypes import Document
from kaproto.app.registered import RegisteredNode
from kaproto.keepalive.histogram import Histogram
from kaproto.program import Program, procedure
from kaproto.records.endings import Ending
from kaproto.records.refusals import Refusal
from kaproto.records.who import Caller, Who
from kaproto.server import KeepAliveServerProtocol
from kaproto.status.clients import ClientStatus
from kaproto.status.daemon import Daemon
from kaproto.wire.structs import UHyper, UInt
from kaproto.workers.changes import ChangeList, Changes
from kaproto.workers.figures import Figures

__all__ = [
    "WORKER_PROGRAM",
    "Latest",
    "Newest",
    "WorkerProcedure",
    "WorkerProgram",
    "clientsFrom",
    "endingsFrom",
    "refusalsFrom",
]

WORKER_PROGRAM: Final = 0x6B617077
"""
The number of the program: C{kapw} in ASCII.  Both ends always have the same version of kaproto.
"""


class WorkerProcedure(IntEnum):
    """
    The procedures of L{WORKER_PROGRAM}.  C{LAST} is an event: the last figures of a worker, sent
    when it stops.
    """

    FIGURES = 1
    NEWEST = 2
    ENDINGS = 3
    REFUSALS = 4
    LAST = 5
    CHANGES = 6


@attrs.frozen
class Newest:
    """
    A search for clients, see L{kaproto.status.register.Register.newest}.
    """

    text: str
    before: UHyper
    most: UInt


@attrs.frozen
class Latest:
    """
    The most records to return, the latest first.
    """

    most: UInt


class WorkerProgram(Program):
    """
    Answers the parent.
    """

    number: ClassVar[int] = WORKER_PROGRAM

    def __init__(self, daemon: Daemon, turns: Histogram) -> None:
        """
        @param daemon: the server of this process.
        @param turns: the durations of its reactor's turns.
        """
        self._daemon = daemon
        self._turns = turns
        self._changes: Changes | None = None

    @procedure(WorkerProcedure.FIGURES, arguments=None, result=Document)
    async def figures(self, connection: KeepAliveServerProtocol) -> Document:
        """
        @return: this process's L{Figures}.
        """
        await self._daemon.register.refresh()
        return Document(Figures.of(self._daemon, self._turns).toJSON())

    @procedure(WorkerProcedure.CHANGES, arguments=None, result=ChangeList)
    def changes(self, connection: KeepAliveServerProtocol) -> ChangeList:
        """
        @return: the next changes of clients.  They are recorded from the first call on.
        """
        if self._changes is None:
            self._changes = Changes(RegisteredNode(self._daemon))
        return ChangeList(self._changes.take())

    @procedure(WorkerProcedure.NEWEST, arguments=Newest, result=Document)
    async def newest(self, connection: KeepAliveServerProtocol, arguments: Newest) -> Document:
        """
        @return: clients, the newest first.
        """
        register = self._daemon.register
        return _document(await register.newest(arguments.text, arguments.before, arguments.most))

    @procedure(WorkerProcedure.ENDINGS, arguments=Latest, result=Document)
    async def endings(self, connection: KeepAliveServerProtocol, arguments: Latest) -> Document:
        """
        @return: connections that ended, the latest first.
        """
        return _document(await self._daemon.register.endings(arguments.most))

    @procedure(WorkerProcedure.REFUSALS, arguments=Latest, result=Document)
    async def refusals(self, connection: KeepAliveServerProtocol, arguments: Latest) -> Document:
        """
        @return: clients that were refused, or would be in mode 2, the latest first.
        """
        return _document(await self._daemon.register.refusals(arguments.most))


def _document(records: Iterable[attrs.AttrsInstance]) -> Document:
    return Document(json.dumps([attrs.asdict(each) for each in records]))


def _who(found: dict[str, Any]) -> Who:
    return Who(**{**found, "caller": Caller(**found["caller"])})


def clientsFrom(document: Document) -> list[ClientStatus]:
    """
    @return: the clients in a reply of L{WorkerProgram.newest}.
    """
    return [
        ClientStatus(**{**each, "who": _who(each["who"])}) for each in json.loads(document.json)
    ]


def endingsFrom(document: Document) -> list[Ending]:
    """
    @return: the records in a reply of L{WorkerProgram.endings}.
    """
    return [Ending(**{**each, "who": _who(each["who"])}) for each in json.loads(document.json)]


def refusalsFrom(document: Document) -> list[Refusal]:
    """
    @return: the records in a reply of L{WorkerProgram.refusals}.
    """
    return [
        Refusal(**{**each, "caller": Caller(**each["caller"])})
        for each in json.loads(document.json)
    ]
