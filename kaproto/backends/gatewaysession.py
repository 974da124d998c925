"""
A client's session at a gateway, relayed over a separate connection to libvirtd.
"""

from __future__ import annotations

from typing import Final

import attrs
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from zope.interface import implementer

from kaproto.backends.connections import UpstreamConnection
from kaproto.backends.health import Health
from kaproto.backends.relay import Relay
from kaproto.backends.relayreader import RelayReader
from kaproto.backends.upstream import Upstream
from kaproto.errors import ConnectionClosed, RemoteError, UpstreamLost
from kaproto.interfaces import IRelaySession
from kaproto.logbounds import BOUNDS
from kaproto.rpc.protocol import connectionOf
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.message import rpcError
from kaproto.wire.programs import CloseReason, ErrorCode

__all__ = ["GatewaySession", "Libvirtd"]

_REQUESTS: Final = 5
"""
libvirtd's default of C{max_client_requests}.
"""


@attrs.frozen
class Libvirtd:
    """
    The libvirtd behind a gateway, shared by all sessions.

    @ivar name: its name in messages to clients.
    @ivar asked: whether it is asked for keepalive.
    @ivar upstream: decides whether it is alive.
    @ivar health: tracks whether new clients can be served.
    @ivar reader: reads relayed messages without the reactor; C{None} if that is not possible.
    """

    name: str
    asked: bool
    upstream: Upstream
    health: Health
    reader: RelayReader | None

    def __str__(self) -> str:
        return self.name


@implementer(IRelaySession)
class GatewaySession:
    """
    One client's connection to libvirtd.
    """

    __slots__ = ("_client", "_connection", "_libvirtd", "_relay")
    _log = Logger(observer=BOUNDS)

    def __init__(self, connection: UpstreamConnection, libvirtd: Libvirtd) -> None:
        """
        @param connection: the open connection to libvirtd.
        """
        self._connection = connection
        self._libvirtd = libvirtd
        self._client: ServerConnection | None = None
        self._relay: Relay | None = None

    @property
    def upstreamState(self) -> str:
        """
        Whether libvirtd reads the client's messages, for operators: C{"answering"}, or for example
        C{"busy for 12 s"}.
        """
        seconds = self._libvirtd.upstream.busyFor(self._connection)
        return "answering" if seconds is None else f"busy for {seconds:.0f} s"

    @property
    def idle(self) -> bool:
        """
        Whether libvirtd has answered all calls and no stream is open.
        """
        return self._relay is None or self._relay.idle

    @property
    def callsUnderWay(self) -> int:
        """
        The number of the client's outstanding calls, up to C{limits.relayedCalls}.
        """
        return 0 if self._relay is None else self._relay.callsUnderWay

    def opened(self, connection: KeepAliveServerProtocol) -> None:
        """
        Start relaying.
        """
        self._client = client = connectionOf(connection, ServerConnection)
        self._relay = Relay(client, self._connection)
        self._connection.session = self
        self._relay.start(self._libvirtd.reader)
        self._connection.closing.whenClosed().addCallback(self._upstreamClosed)

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        @raise RemoteError: always, since calls are relayed before they get here.
        """
        raise rpcError(f"unknown procedure: {procedure}")

    def failCalls(self, error: RemoteError) -> None:
        """
        Answer all outstanding calls with an error.
        """
        if self._relay is not None:
            self._relay.failOutstanding(error)

    def closed(self, reason: Exception) -> None:
        """
        The client has disconnected.  Close its connection to libvirtd; if the client closed
        cleanly, send its last messages first.
        """
        self._client = None
        self._connection.session = None
        if self._relay is not None:
            self._relay.end()
            self._relay = None
        if isinstance(reason, ConnectionClosed):
            self._connection.disconnect(reason)
        else:
            self._connection.abort(reason)

    def upstreamBusy(self) -> None:
        """
        libvirtd does not read this connection, but it is alive.
        """
        assert self._client is not None
        assert self._relay is not None
        self._log.info(
            "{peer} is busy: libvirtd reads its connection again when it has finished one of "
            "max_client_requests messages; {count} calls and streams are under way; the "
            "connection stays open, because libvirtd answers on others",
            peer=self._client.peer,
            count=self._relay.underWay,
        )

    def _upstreamClosed(self, reason: Exception) -> None:
        client, relay = self._client, self._relay
        if client is None or relay is None:
            return
        if relay.closing:
            client.disconnect(ConnectionClosed("the client closed the connection"))
            return
        self._libvirtd.health.doubt()
        lost = UpstreamLost(f"{self._libvirtd}: {reason}{self._hint(reason, relay)}")
        self._log.warn("closing {peer}: {reason}", peer=client.peer, reason=lost)
        relay.failOutstanding(rpcError(f"internal error: {lost}", ErrorCode.INTERNAL_ERROR))
        client.events.closing(CloseReason.EOF)
        client.disconnect(lost)

    def _hint(self, reason: Exception, relay: Relay) -> str:
        closed = isinstance(reason, ConnectionClosed | ConnectionLost)
        if not (self._libvirtd.asked and closed and relay.underWay >= _REQUESTS):
            return ""
        return (
            f"; {relay.underWay} calls and streams were under way; libvirtd does not read a "
            f"connection with max_client_requests ({_REQUESTS} by default) of them, so it misses "
            "the answers to its own pings, and drops it: raise max_client_requests in "
            "libvirtd.conf, or pass --upstream-ask=no"
        )
