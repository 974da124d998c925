"""
Administration of a server with workers: a call about one client goes to its worker; a call about
all clients goes to all workers, and their answers are combined.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from heapq import merge
from itertools import islice
from typing import Any, Final

from twisted.internet.defer import Deferred

from kaproto.admin.clientlist import joinCounts, joinLists
from kaproto.admin.control import ControlProgram, document
from kaproto.admin.controltypes import (
    CONTROL_PROGRAM,
    PAGE_MAX,
    ControlProcedure,
    Disconnecting,
    Document,
    Page,
    Tracing,
    Which,
)
from kaproto.admin.errors import noClient, unsupported
from kaproto.admin.types import ClientCall, ClientLookup, ServerListOptions, ServerParameters
from kaproto.admin.virtadmin import AdminProgram
from kaproto.program import procedure
from kaproto.server import KeepAliveServerProtocol
from kaproto.status.daemon import SERVER_NAME, Daemon
from kaproto.status.objects import statusObject
from kaproto.wire.programs import AdminProcedure
from kaproto.wire.structs import pack, unpack
from kaproto.workers.crew import NotReplaced
from kaproto.workers.team import Member, Team
from kaproto.workers.traces import TeamTraces

__all__ = ["TeamAdmin", "TeamControl"]


def _client(call: ClientCall) -> tuple[str, int]:
    return call.client.server.name, call.client.id


_ADMIN: Final[Mapping[int, Callable[[bytes], tuple[str, int]]]] = {
    AdminProcedure.SERVER_LOOKUP_CLIENT: lambda payload: (
        (found := unpack(ClientLookup, payload)).server.name,
        found.id,
    ),
    AdminProcedure.CLIENT_GET_INFO: lambda payload: _client(unpack(ClientCall, payload)),
    AdminProcedure.CLIENT_CLOSE: lambda payload: _client(unpack(ClientCall, payload)),
}
"""
The procedures about one client, with functions that read the server and the id from the arguments.
"""

_CONTROL: Final[Mapping[int, Callable[[bytes], int]]] = {
    ControlProcedure.SHOW: lambda payload: unpack(Which, payload).id,
    ControlProcedure.DISCONNECT: lambda payload: unpack(Disconnecting, payload).id,
    ControlProcedure.TRACE: lambda payload: unpack(Tracing, payload).id,
}


def _id(client: dict[str, Any]) -> int:
    return int(client["id"])


def _memberOf(team: Team, number: int) -> Member:
    """
    @raise kaproto.errors.RemoteError: when there is no such client.
    """
    member = team.memberOf(number)
    if member is None:
        raise noClient(number)
    return member


class TeamControl(ControlProgram):
    """
    Administration by C{kaproto}.
    """

    def __init__(self, daemon: Daemon, team: Team, replace: Callable[[], Awaitable[int]]) -> None:
        """
        @param daemon: the daemon to administer.
        @param team: its workers.
        @param replace: replaces the workers one after another.
        """
        super().__init__(daemon)
        self._team = team
        self._replace = replace
        self._teamTraces = TeamTraces(team)
        self.traced = self._teamTraces.received

    def callReceived(
        self, connection: KeepAliveServerProtocol, procedure: int, payload: bytes
    ) -> bytes | Awaitable[bytes]:
        """
        Forward a call about one client to that client's worker.
        """
        if procedure not in _CONTROL:
            return super().callReceived(connection, procedure, payload)
        number = _CONTROL[procedure](payload)
        member = _memberOf(self._team, number)
        if procedure == ControlProcedure.TRACE:
            return self._teamTraces.start(number, member, connection, payload)
        return member.call(self.number, procedure, payload)

    @procedure(ControlProcedure.LIST, arguments=Page, result=Document)
    async def listClients(self, connection: KeepAliveServerProtocol, arguments: Page) -> Document:
        """
        @return: an array of the next L{PAGE_MAX} clients, empty after the last.
        """
        answers = await self._team.askAll(CONTROL_PROGRAM, ControlProcedure.LIST, pack(arguments))
        pages: list[list[dict[str, Any]]] = [
            json.loads(unpack(Document, answer).json) for _member, answer in answers
        ]
        merged: Iterator[dict[str, Any]] = merge(*pages, key=_id)
        return document(islice(merged, PAGE_MAX))

    @procedure(ControlProcedure.STATUS, arguments=None, result=Document)
    async def status(self, connection: KeepAliveServerProtocol) -> Document:
        """
        @return: an array of the daemon, with its workers.
        """
        await self._daemon.register.refresh()
        counts = self._team.counts
        workers = [
            {"pid": each.pid, "clients": counts.of(each.row), "leaving": each.leaving}
            for each in self._team.members
        ]
        return document([{**statusObject(self._daemon), "workers": workers}])

    @procedure(ControlProcedure.REPLACE, arguments=None, result=Document)
    async def replace(self, connection: KeepAliveServerProtocol) -> Document:
        """
        Replace the workers one after another, without refusing a connection.

        @return: an array of the number of workers replaced.
        """
        try:
            return document([await self._replace()])
        except NotReplaced as error:
            raise unsupported(str(error)) from error


class TeamAdmin(AdminProgram):
    """
    Administration by C{virt-admin}.
    """

    def __init__(self, daemon: Daemon, team: Team) -> None:
        """
        @param daemon: the daemon to administer.
        @param team: its workers.
        """
        super().__init__(daemon)
        self._team = team

    def callReceived(
        self, connection: KeepAliveServerProtocol, procedure: int, payload: bytes
    ) -> bytes | Awaitable[bytes]:
        """
        Forward a call about one client to that client's worker.
        """
        if procedure in _ADMIN:
            server, number = _ADMIN[procedure](payload)
            if server == SERVER_NAME:
                return _memberOf(self._team, number).call(self.number, procedure, payload)
        return super().callReceived(connection, procedure, payload)

    @procedure(AdminProcedure.SERVER_LIST_CLIENTS)
    def listClients(
        self, connection: KeepAliveServerProtocol, payload: bytes
    ) -> bytes | Deferred[bytes]:
        """
        List the clients.
        """
        arguments = unpack(ServerListOptions, payload)
        if arguments.server.name != SERVER_NAME:
            return super().listClients(connection, payload)
        return Deferred.fromCoroutine(self._list(payload, named=bool(arguments.need)))

    async def _list(self, payload: bytes, *, named: bool) -> bytes:
        which = AdminProcedure.SERVER_LIST_CLIENTS
        answers = await self._team.askAll(self.number, which, payload)
        lists = [answer for _member, answer in answers]
        return joinLists(lists) if named else joinCounts(lists)

    @procedure(AdminProcedure.SERVER_SET_CLIENT_LIMITS, arguments=ServerParameters)
    async def setClientLimits(
        self, connection: KeepAliveServerProtocol, arguments: ServerParameters
    ) -> None:
        """
        Set the limits on the clients of all workers together.
        """
        super().setClientLimits(connection, arguments)
        if arguments.server.name == SERVER_NAME:
            which = AdminProcedure.SERVER_SET_CLIENT_LIMITS
            await self._team.askAll(self.number, which, pack(arguments))
