"""
The server of kaproto's own administration program.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from heapq import nsmallest
from typing import ClassVar

from kaproto.admin.controltypes import (
    CONTROL_PROGRAM,
    PAGE_MAX,
    ControlProcedure,
    Disconnecting,
    Document,
    Draining,
    Page,
    Tracing,
    Which,
)
from kaproto.admin.disconnecting import disconnectClient
from kaproto.admin.errors import noClient, unsupported
from kaproto.admin.tracing import Traces
from kaproto.program import Program, procedure
from kaproto.records.endings import KEPT
from kaproto.records.refusals import CALLERS_MAX
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerProtocol
from kaproto.status.clients import clientStatus, findClient
from kaproto.status.daemon import Daemon
from kaproto.status.objects import clientObject, endingObject, refusalObject, statusObject

__all__ = ["ControlProgram", "document"]


class ControlProgram(Program):
    """
    Lists and shows clients, endings and refusals; disconnects, reloads, drains.
    """

    number: ClassVar[int] = CONTROL_PROGRAM

    def __init__(self, daemon: Daemon) -> None:
        """
        @param daemon: the daemon to administer.
        """
        self._daemon = daemon
        self._traces = Traces(daemon.factory.clock)

    def _client(self, number: int) -> ServerConnection:
        """
        @raise kaproto.errors.RemoteError: when there is no such client.
        """
        client = findClient(self._daemon.factory, number)
        if client is None:
            raise noClient(number)
        return client

    @procedure(ControlProcedure.LIST, arguments=Page, result=Document)
    def listClients(self, connection: KeepAliveServerProtocol, arguments: Page) -> Document:
        """
        @return: an array of the next L{PAGE_MAX} clients; empty after the last one.
        """
        after, factory = arguments.after, self._daemon.factory
        rest = (each for each in factory.clients if each.peer.id > after)
        page = nsmallest(PAGE_MAX, rest, key=lambda each: each.peer.id)
        return document(clientObject(clientStatus(factory, each)) for each in page)

    @procedure(ControlProcedure.SHOW, arguments=Which, result=Document)
    def showClient(self, connection: KeepAliveServerProtocol, arguments: Which) -> Document:
        """
        @return: the client, in an array.
        """
        client = self._client(arguments.id)
        return document([clientObject(clientStatus(self._daemon.factory, client))])

    @procedure(ControlProcedure.DISCONNECT, arguments=Disconnecting)
    def disconnectClient(
        self, connection: KeepAliveServerProtocol, arguments: Disconnecting
    ) -> None:
        """
        Disconnect a client.
        """
        disconnectClient(self._client(arguments.id), arguments.reason)

    @procedure(ControlProcedure.ENDED, arguments=None, result=Document)
    async def ended(self, connection: KeepAliveServerProtocol) -> Document:
        """
        @return: an array of the latest connections that ended, the latest first.
        """
        wallClock = self._daemon.factory.journal.wallClock
        endings = await self._daemon.register.endings(KEPT)
        return document(endingObject(each, wallClock) for each in endings)

    @procedure(ControlProcedure.REFUSED, arguments=None, result=Document)
    async def refused(self, connection: KeepAliveServerProtocol) -> Document:
        """
        @return: an array of clients that were refused, or would be in mode 2, the latest first.
        """
        wallClock = self._daemon.factory.journal.wallClock
        refusals = await self._daemon.register.refusals(CALLERS_MAX)
        return document(refusalObject(each, wallClock) for each in refusals)

    @procedure(ControlProcedure.STATUS, arguments=None, result=Document)
    async def status(self, connection: KeepAliveServerProtocol) -> Document:
        """
        @return: the state of the daemon, in an array.
        """
        await self._daemon.register.refresh()
        return document([statusObject(self._daemon)])

    @procedure(ControlProcedure.RELOAD, arguments=None, result=Document)
    async def reload(self, connection: KeepAliveServerProtocol) -> Document:
        """
        Reload files.

        @return: an array of error messages, one for each file that could not be read.
        """
        return document(await self._daemon.reload())

    @procedure(ControlProcedure.REPLACE, arguments=None, result=Document)
    async def replace(self, connection: KeepAliveServerProtocol) -> Document:
        """
        @raise kaproto.errors.RemoteError: always.
        """
        raise unsupported("this kaserver has no workers; start it with --workers=N")

    @procedure(ControlProcedure.TRACE, arguments=Tracing)
    def trace(self, connection: KeepAliveServerProtocol, arguments: Tracing) -> None:
        """
        Send the headers of a client's messages as events, for a limited time.
        """
        self._traces.start(connection, self._client(arguments.id), arguments.seconds)

    @procedure(ControlProcedure.DRAIN, arguments=Draining)
    def drain(self, connection: KeepAliveServerProtocol, arguments: Draining) -> None:
        """
        Accept no new clients, and stop when the present ones have left.
        """
        connection.factory.clock.callLater(0, self._daemon.drain, arguments.within)


def document(objects: Iterable[object]) -> Document:
    """
    @return: a JSON array of objects.
    """
    return Document(json.dumps(list(objects)))
