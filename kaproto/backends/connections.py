"""
A gateway's connections to its server: one for each client, and a probe to check whether the server
is alive.
"""

from __future__ import annotations

from math import inf
from typing import ClassVar, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kaproto.backends.upstream import Upstream, UpstreamHung
from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.client.connection import ClientConnection
from kaproto.client.shared import SharedByClient
from kaproto.errors import ConnectionClosed
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.rpc.protocol import connectionOf
from kaproto.rpc.shared import Hooks
from kaproto.security.clientauth import Authentication
from kaproto.transport import StreamTransport

__all__ = ["ClientSide", "Probe", "UpstreamConnection", "UpstreamFactory", "UpstreamProtocol"]


class ClientSide(Protocol):
    """
    The client's side of a connection to the server.
    """

    @property
    def idle(self) -> bool:
        """
        Whether the server has answered all calls and no stream is open.
        """

    def upstreamBusy(self) -> None:
        """
        The server does not read this connection, but it is alive.
        """


class UpstreamConnection(ClientConnection):
    """
    One client's connection to the server.

    @ivar session: the client's side, once it is relayed.
    """

    __slots__ = ("_factory", "_isWatched", "session")

    def __init__(self, transport: StreamTransport, hooks: Hooks, shared: SharedByClient) -> None:
        super().__init__(transport, hooks, shared)
        assert isinstance(shared, UpstreamFactory)
        self._factory = shared
        self._isWatched = False
        self.session: ClientSide | None = None

    def watch(self) -> None:
        """
        The connection is open: start watching the server, together with its other connections.

        A server that was not asked for keepalive is watched only after its first answer to a ping.
        """
        factory = self._factory
        self._isWatched = True
        factory.upstream.joined(self)
        self.heartbeat.judge = self
        if not factory.asksForKeepAlive and factory.keepAlive.enabled:
            self.heartbeat.ask(self._firstAnswer)

    def _firstAnswer(self, _latency: float) -> None:
        self.heartbeat.onAnswer = None
        self.startKeepAlive(self._factory.keepAlive)

    @property
    def lastHeard(self) -> float:
        """
        When the server was last heard.
        """
        return self.heartbeat.liveness.heard

    @property
    def isUnderWay(self) -> bool:
        """
        Whether a call has not been answered to the last byte, or a stream is open.
        """
        return self.session is not None and not self.session.idle

    def suspected(self) -> None:
        """
        A ping was left unanswered for an interval.
        """
        self._factory.upstream.suspected(self)

    def excuses(self) -> bool:
        """
        @return: whether the server is alive although it answers no pings on this connection.
        """
        return self._factory.upstream.excuses(self)

    def becameBusy(self) -> None:
        """
        The server does not read this connection, but it is alive.
        """
        assert self.session is not None
        self.session.upstreamBusy()

    def hung(self, reason: UpstreamHung) -> None:
        """
        The server hangs.
        """
        self.abort(reason)

    def ended(self, reason: Exception) -> None:
        """
        The connection has ended.
        """
        super().ended(reason)
        if self._isWatched:
            self._factory.upstream.left(self)


class UpstreamProtocol(KeepAliveClientProtocol, isBase=True):
    """
    One client's connection to the server.
    """

    _kaprotoConnection = UpstreamConnection


class UpstreamFactory(KeepAliveClientFactory):
    """
    Builds one client's connection to the server.

    @ivar upstream: the server.
    """

    protocol = UpstreamProtocol
    registersCloseCallback = False

    def __init__(
        self,
        upstream: Upstream,
        name: str,
        flags: int,
        keepAlive: KeepAlive,
        clock: IReactorTime,
        authentication: Authentication,
        limits: Limits,
        *,
        ask: bool,
    ) -> None:
        """
        @param name: the name to open.
        @param ask: whether to ask the server for keepalive.
        """
        super().__init__(
            name, flags, keepAlive, clock=clock, authentication=authentication, limits=limits
        )
        self.upstream = upstream
        self.asksForKeepAlive = ask


class _ProbeConnection(ClientConnection):
    """
    A connection that opens nothing and is pinged.
    """

    __slots__ = ()

    @property
    def lastHeard(self) -> float:
        """
        When the server was last heard; C{-inf} before its first bytes.  Until then, it may not even
        have accepted the connection.
        """
        return self.heartbeat.liveness.heard if self.incoming.bytesReceived else -inf


class _ProbeProtocol(KeepAliveClientProtocol, isBase=True):
    """
    A connection that opens nothing.
    """

    _kaprotoConnection = _ProbeConnection


class Probe:
    """
    A connection that checks whether the server is alive.  It logs in, opens nothing and is pinged.
    If connecting fails or the connection is lost, it connects again after an interval.

    @ivar problem: why its latest attempt to connect failed, or its latest connection was lost;
        C{None} before that.
    """

    _log: ClassVar[Logger] = Logger(observer=BOUNDS)

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        keepAlive: KeepAlive,
        clock: IReactorTime,
        authentication: Authentication,
        *,
        saysGoodbye: bool = False,
    ) -> None:
        """
        Start connecting.

        @param saysGoodbye: whether to send C{CONNECT_CLOSE} before disconnecting.  libvirtd logs an
            error for each client that does not, but a libvirtd that hangs would not answer.
        """
        self._saysGoodbye = saysGoodbye
        self._endpoint = endpoint
        self._keepAlive = keepAlive
        self._clock = clock
        self._heard = -inf
        self.problem: str | None = None
        self._connection: _ProbeConnection | None = None
        self._closed = False
        self._factory = factory = KeepAliveClientFactory(
            None, clock=clock, authentication=authentication
        )
        factory.protocol = _ProbeProtocol
        factory.asksForKeepAlive = factory.registersCloseCallback = False
        self._running = Deferred.fromCoroutine(self._run())

    @property
    def lastHeard(self) -> float:
        """
        When the server was last heard on any of the probe's connections; C{-inf} if it was not.
        """
        if self._connection is None:
            return self._heard
        return max(self._heard, self._connection.lastHeard)

    def close(self) -> None:
        """
        Disconnect.
        """
        self._closed = True
        self._running.cancel()

    async def _run(self) -> None:
        while not self._closed:
            try:
                await self._connect()
                await deferLater(self._clock, self._keepAlive.interval)
            except (CancelledError, ConnectingCancelledError):
                pass

    async def _connect(self) -> None:
        connection: _ProbeConnection | None = None
        try:
            protocol = await self._endpoint.connect(self._factory)
            assert isinstance(protocol, _ProbeProtocol)
            self._connection = connection = connectionOf(protocol, _ProbeConnection)
            await connection.whenOpen()
            connection.startKeepAlive(self._keepAlive)
            reason: object = await connection.closing.whenClosed()
        except (CancelledError, ConnectingCancelledError):
            raise
        except Exception as error:  # noqa: BLE001
            reason = error
        finally:
            self._heard = self.lastHeard
            self._connection = None
            if connection is not None and self._saysGoodbye:
                connection.close()
            elif connection is not None:
                connection.abort(ConnectionClosed("it is no longer needed"))
        self.problem = str(reason)
        self._log.debug("the probe's connection was lost: {reason}", reason=reason)
