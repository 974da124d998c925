"""
The client of kaproto's own administration program.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IReactorTime

from kaproto.admin.controltypes import (
    CONTROL_PROGRAM,
    ControlProcedure,
    Disconnecting,
    Document,
    Draining,
    Page,
    Tracing,
    Which,
)
from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.wire.structs import pack, unpack

__all__ = ["ControlClient"]

_TIMEOUT: Final = 10.0

_REPLACE_TIMEOUT: Final = 600.0
"""
The timeout for replacing all workers, in seconds: each has to start.
"""

_Objects = list[dict[str, Any]]


class ControlClient:
    """
    Administers a running C{kaserver}.

    Each call fails with L{kaproto.errors.RemoteError} if the server answers with an error, with
    L{twisted.internet.defer.TimeoutError} if it does not answer within ten seconds, and with the
    reason if the connection closes first.
    """

    def __init__(self, connection: KeepAliveClientProtocol, reactor: IReactorTime) -> None:
        """
        @param connection: a connection that is open without C{CONNECT_OPEN}.
        """
        self._connection = connection
        self._reactor = reactor

    @classmethod
    async def connect(cls, reactor: IReactorTime, path: str) -> ControlClient:
        """
        Connect to a server.

        @param path: the path of the C{--admin} socket.
        """
        factory = KeepAliveClientFactory(clock=reactor)
        factory.startsOpen = True
        connection = await UNIXClientEndpoint(reactor, path, _TIMEOUT).connect(factory)
        assert isinstance(connection, KeepAliveClientProtocol)
        return cls(connection, reactor)

    async def close(self) -> None:
        """
        Disconnect.
        """
        await self._connection.close()

    async def _call(
        self, procedure: ControlProcedure, arguments: object = None, within: float | None = None
    ) -> bytes:
        payload = b"" if arguments is None else pack(arguments)
        call = self._connection.call(CONTROL_PROGRAM, procedure, payload)
        return await call.addTimeout(_TIMEOUT if within is None else within, self._reactor)

    async def _ask(self, procedure: ControlProcedure, arguments: object = None) -> _Objects:
        found: _Objects = json.loads(unpack(Document, await self._call(procedure, arguments)).json)
        return found

    async def clients(self) -> _Objects:
        """
        @return: the clients, the longest connected first.
        """
        found: _Objects = []
        while page := await self._ask(ControlProcedure.LIST, Page(found[-1]["id"] if found else 0)):
            found += page
        return found

    async def client(self, number: int) -> _Objects:
        """
        @param number: its id.
        @return: the client, in an array.
        """
        return await self._ask(ControlProcedure.SHOW, Which(number))

    async def disconnect(self, number: int, reason: str | None = None) -> None:
        """
        Disconnect a client.

        @param number: its id.
        @param reason: the reason, for the log and the list of endings.
        """
        await self._call(ControlProcedure.DISCONNECT, Disconnecting(number, reason))

    async def ended(self) -> _Objects:
        """
        @return: the latest connections that ended, the latest first.
        """
        return await self._ask(ControlProcedure.ENDED)

    async def refused(self) -> _Objects:
        """
        @return: clients that were refused, or would be in mode 2, the latest first.
        """
        return await self._ask(ControlProcedure.REFUSED)

    async def status(self) -> _Objects:
        """
        @return: the state of the daemon, in an array.
        """
        return await self._ask(ControlProcedure.STATUS)

    async def reload(self) -> list[str]:
        """
        Reload files.

        @return: an error message for each file that could not be read.
        """
        return [str(each) for each in await self._ask(ControlProcedure.RELOAD)]

    async def replace(self) -> int:
        """
        Replace the workers one after another.

        @return: the number of workers.
        """
        answer = await self._call(ControlProcedure.REPLACE, within=_REPLACE_TIMEOUT)
        (number,) = json.loads(unpack(Document, answer).json)
        return int(number)

    async def trace(
        self, number: int, seconds: int, traced: Callable[[dict[str, Any]], object]
    ) -> str:
        """
        Trace the messages of a client.

        @param number: its id.
        @param seconds: the duration of the trace.
        @param traced: called with the description of each message.
        @return: why the trace ended.
        """
        ended: Deferred[str] = Deferred()

        def received(_procedure: int, payload: bytes) -> None:
            event = json.loads(unpack(Document, payload).json)
            if "end" not in event:
                traced(event)
            elif event["missed"]:
                ended.callback(f"{event['end']}; {event['missed']} messages were left out")
            else:
                ended.callback(event["end"])

        def lost(reason: Exception) -> None:
            if not ended.called:
                ended.errback(reason)

        connection = self._connection
        connection.listen(CONTROL_PROGRAM, received)
        await self._call(ControlProcedure.TRACE, Tracing(number, seconds))
        connection.whenClosed().addCallback(lost)
        return await ended

    async def drain(self, within: float | None = None) -> None:
        """
        Drain the server: it accepts no new clients, and stops when the present ones have left.

        @param within: seconds that clients have to leave; by default the server's configured time.
        """
        await self._call(ControlProcedure.DRAIN, Draining(within))
