"""
An open connection to any server.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from kaproto.client.calls import Call
from kaproto.client.connection import ClientConnection
from kaproto.client.protocol import KeepAliveClientProtocol
from kaproto.errors import RemoteProtocolError
from kaproto.keepalive.liveness import KeepAlive
from kaproto.rpc.protocol import connectionOf
from kaproto.wire.programs import PROGRAM_VERSION, REMOTE_PROGRAM
from kaproto.wire.structs import pack, unpack
from kaproto.wire.xdr import XDRError

__all__ = ["OpenConnection"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class OpenConnection:
    """
    An open connection: calls, events, keepalive, and its end.

    @ivar protocol: the connection's protocol.
    @ivar closedHere: whether this client has closed the connection.
    @ivar closeReason: why the connection was closed; C{None} while it is open.
    """

    def __init__(self, protocol: KeepAliveClientProtocol) -> None:
        """
        @param protocol: an open connection's protocol.
        """
        self.protocol = protocol
        self.closedHere = False
        self.closeReason: Exception | None = None
        protocol.whenClosed().addCallback(self._closed)

    def _closed(self, reason: Exception) -> None:
        self.closeReason = reason

    def perform(self, call: Call[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_R]:
        """
        Call a procedure of the remote program that is declared as a L{Call}.

        @param call: the procedure; all other arguments are passed to it.
        @return: fires with the result.
        """
        return Deferred.fromCoroutine(self._perform(call, call.arguments(*args, **kwargs)))

    async def _perform(self, call: Call[_P, _R], arguments: object) -> _R:
        payload = await self.protocol.call(REMOTE_PROGRAM, call.procedure, pack(arguments))
        if call.result is NoneType:
            return None  # type: ignore[return-value]
        try:
            return unpack(call.result, payload)
        except XDRError as error:
            reason = RemoteProtocolError(
                f"the result of procedure {call.procedure} cannot be decoded: {error}"
            )
            connectionOf(self.protocol, ClientConnection).abort(reason)
            raise reason from error

    def call(
        self, program: int, procedure: int, payload: bytes = b"", version: int = PROGRAM_VERSION
    ) -> Deferred[bytes]:
        """
        Call a procedure of any program, as L{KeepAliveClientProtocol.call} does.
        """
        return self.protocol.call(program, procedure, payload, version)

    def listen(self, program: int, listener: Callable[[int, bytes], None]) -> None:
        """
        Call a function with each event of a program, as L{KeepAliveClientProtocol.listen} does.
        """
        self.protocol.listen(program, listener)

    def setKeepAlive(self, interval: float, count: int) -> None:
        """
        Start pinging the server, as L{KeepAliveClientProtocol.setKeepAlive} does.
        """
        self.protocol.setKeepAlive(interval, count)

    @property
    def keepAlive(self) -> KeepAlive:
        """
        The interval and count for pinging the server; zeros if it is not pinged.
        """
        return self.protocol.keepAlive

    @property
    def keepAliveSupported(self) -> bool:
        """
        Whether the server may be pinged.
        """
        return self.protocol.keepAliveSupported

    @property
    def latency(self) -> float | None:
        """
        The round-trip time of the latest ping, in seconds; C{None} before the first.
        """
        return self.protocol.latency

    def ping(self) -> Deferred[float]:
        """
        Send one ping now, as L{KeepAliveClientProtocol.ping} does.
        """
        return self.protocol.ping()

    def isAlive(self) -> bool:
        """
        Tell whether the connection is open and has not been found dead (C{virConnectIsAlive}).
        """
        return self.protocol.isAlive()

    def whenClosed(self) -> Deferred[Exception]:
        """
        Wait for the end of the connection.

        @return: fires with the reason, and never fails.
        """
        return self.protocol.whenClosed()

    def close(self) -> Deferred[Exception]:
        """
        Send C{CONNECT_CLOSE} and close, as L{KeepAliveClientProtocol.close} does.

        @return: fires as L{whenClosed} does.
        """
        self.closedHere = True
        return self.protocol.close()
