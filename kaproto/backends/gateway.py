"""
A gateway to a real libvirtd: every client's connection is relayed, message by message as it is,
over a connection of its own.

Authentication, the feature check, keepalive and the end of a connection belong to each hop and
are not relayed; everything else is, streams and programs unknown here included.
"""

from __future__ import annotations

import errno
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionLost
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from kaproto.backends.connections import (
    Probe,
    UpstreamConnection,
    UpstreamFactory,
    UpstreamProtocol,
)
from kaproto.backends.health import Health
from kaproto.backends.identity import packIdentity
from kaproto.backends.relay import Relay
from kaproto.backends.relayreader import RelayReader
from kaproto.backends.upstream import Upstream
from kaproto.errors import ConnectionClosed, RemoteError, UpstreamLost
from kaproto.interfaces import IBackend, IRelaySession, ISession, OpenRequest
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.deadline import Deadline
from kaproto.keepalive.kernelwatch import TCPKeepAlive
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.monitor import Monitor
from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer
from kaproto.rpc.protocol import connectionOf
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.security.clientauth import Authentication
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.message import rpcError
from kaproto.wire.programs import REMOTE_PROGRAM, CloseReason, ErrorCode, Procedure

__all__ = ["Gateway"]


_PROMPTLY: Final = KeepAlive(1, 5)
"""
How often to ask a libvirtd that is away whether it is back.
"""

_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)

_NO_FILES_LEFT: Final = (
    "this gateway has as many files open as it may; raise that limit (LimitNOFILE=, ulimit -n) or "
    "lower --max-clients"
)


@implementer(IBackend)
class Gateway:
    """
    Opens by connecting to libvirtd.

    @ivar asks: whether libvirtd is asked for keepalive.
    @ivar limits: those of the connections to libvirtd; its C{openTimeout} is for connecting and
        opening together.
    @ivar description: what log lines call libvirtd.
    @ivar libvirtd: what messages to clients call it.
    @ivar upstream: whether libvirtd is alive.
    @ivar health: whether new clients can be served.
    @ivar tcpKeepAlive: whether the kernel watches libvirtd.
    @ivar reader: reads what is relayed, where that can be read past the reactor.
    """

    _log = Logger(observer=BOUNDS)
    limits = Limits()
    tcpKeepAlive = TCPKeepAlive()
    features: frozenset[int] = frozenset()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        description: str,
        keepAlive: KeepAlive,
        clock: IReactorTime,
        *,
        ask: bool = True,
        forwardIdentity: bool = False,
        authentication: Authentication | None = None,
    ) -> None:
        """
        @param endpoint: where libvirtd listens.
        @param description: what to call it in messages and log lines.
        @param keepAlive: how closely to watch libvirtd itself.
        @param ask: whether to ask libvirtd for keepalive.  It then pings this gateway, finds out
            when its host is gone, and drops connections with C{max_client_requests} calls under
            way.  A kaserver in mode 2 has to be asked.
        @param forwardIdentity: whether to tell libvirtd who each client is, once it has
            authenticated, in place of this process.
        @param authentication: how this process itself authenticates at libvirtd.
        """
        self._authentication = authentication or Authentication()
        self.description = description
        self.libvirtd = f"libvirtd behind this gateway ({description})"
        self.asks = ask
        self._endpoint = endpoint
        self._keepAlive = keepAlive
        self._clock = monotonicClock(clock)
        self._monitor = Monitor.of(clock)
        self.reader = RelayReader.orNone(clock, self._monitor.pacemaker)
        self._forwardIdentity = forwardIdentity
        self.upstream = Upstream(keepAlive, self._clock, lambda: self.now, self._probe)
        self.health = Health(self._clock, lambda: self._connectProbe(_PROMPTLY, saysGoodbye=True))

    @property
    def now(self) -> float:
        """
        The time, on the scale of the connections' heartbeats.
        """
        return self._monitor.pacemaker.now

    def _probe(self) -> Probe:
        self._log.info(
            "connecting to {libvirtd} to ask whether it is alive, since pings go unanswered on "
            "connections that have calls under way",
            libvirtd=self.libvirtd,
        )
        return self._connectProbe(self._keepAlive if self._keepAlive.enabled else KeepAlive())

    def _connectProbe(self, keepAlive: KeepAlive, *, saysGoodbye: bool = False) -> Probe:
        return Probe(
            self._endpoint,
            keepAlive,
            self._clock,
            self._authentication,
            saysGoodbye=saysGoodbye,
        )

    def __str__(self) -> str:
        """
        @return: this backend's name in log lines.
        """
        return f"gateway to {self.description}"

    def knows(self, procedure: int) -> bool:
        """
        @return: C{True}, since only libvirtd can tell.
        """
        return True

    def open(self, peer: Peer, request: OpenRequest) -> Deferred[ISession]:
        """
        Connect to libvirtd and open there.

        @raise RemoteError: libvirtd's own, or one that says what is wrong with libvirtd.
        """
        return Deferred.fromCoroutine(self._open(peer, request))

    async def _open(self, peer: Peer, request: OpenRequest) -> ISession:
        opening = Deferred.fromCoroutine(self._connect(peer, request))
        expiry = Deadline(self._clock, self.limits.openTimeout, opening.cancel)
        try:
            return _GatewaySession(self, await opening)
        except RemoteError as error:
            self.health.works()
            if not self.asks and "keepalive" in error.message:
                self._log.warn(
                    "{libvirtd} did not open because it was not asked for keepalive; a kaserver in "
                    "mode 2 has to be: pass --upstream-ask=yes",
                    libvirtd=self.libvirtd,
                )
            raise
        except (CancelledError, ConnectingCancelledError) as problem:
            if expiry.active():
                # It is the client that did not wait.
                raise
            message = (
                f"{self.libvirtd} did not open within {self.limits.openTimeout:g} s; it may hang, "
                "be starting, or have as many clients as it lets in (max_clients, "
                "max_anonymous_clients)"
            )
            raise self._failed(peer, message, ErrorCode.OPERATION_TIMEOUT) from problem
        except ConnectError as problem:
            reason = str(problem)
            if problem.osError in _OUT_OF_FILES:
                reason = _NO_FILES_LEFT
            elif type(problem) is ConnectError and problem.osError is None:
                # This is how Twisted fares with a UNIX socket whose queue is full.
                reason = "it accepts no connections at present; it may hang, or have too many"
            message = f"unable to connect to {self.libvirtd}: {reason}"
            raise self._failed(peer, message, ErrorCode.SYSTEM_ERROR) from problem
        except Exception as problem:
            if getattr(problem, "errno", None) in _OUT_OF_FILES:
                message = f"unable to connect to {self.libvirtd}: {_NO_FILES_LEFT}"
                raise self._failed(peer, message, ErrorCode.SYSTEM_ERROR) from problem
            reason = str(problem) or type(problem).__name__
            message = f"internal error: {self.libvirtd} could not be opened: {reason}"
            raise self._failed(peer, message, ErrorCode.INTERNAL_ERROR) from problem
        finally:
            expiry.cancel()

    def _failed(self, peer: Peer, message: str, code: ErrorCode) -> RemoteError:
        self._log.warn("{peer} could not open: {reason}", peer=peer, reason=message)
        self.health.failed(message)
        return rpcError(message, code)

    async def _connect(self, peer: Peer, request: OpenRequest) -> UpstreamConnection:
        factory = UpstreamFactory(
            self.upstream,
            request.name or "",
            request.flags,
            self._keepAlive,
            self._clock,
            self._authentication,
            self.limits,
            ask=self.asks,
        )
        factory.tcpKeepAlive = self.tcpKeepAlive
        upstream = await self._endpoint.connect(factory)
        assert isinstance(upstream, UpstreamProtocol)
        try:
            await upstream.whenOpen()
            self.health.works()
            identity = packIdentity(peer) if self._forwardIdentity else None
            if identity is not None:
                await upstream.call(REMOTE_PROGRAM, Procedure.CONNECT_SET_IDENTITY, identity)
        except BaseException:
            connectionOf(upstream, UpstreamConnection).abort(
                ConnectionClosed("the client has gone")
            )
            raise
        connection = connectionOf(upstream, UpstreamConnection)
        connection.watch()
        return connection


@implementer(IRelaySession)
class _GatewaySession:
    """
    One client's connection to libvirtd.
    """

    __slots__ = ("_busySince", "_client", "_connection", "_gateway", "_relay")
    _log = Logger(observer=BOUNDS)

    def __init__(self, gateway: Gateway, connection: UpstreamConnection) -> None:
        self._gateway = gateway
        self._connection = connection
        self._client: ServerConnection | None = None
        self._relay: Relay | None = None
        self._busySince = 0.0

    @property
    def upstreamState(self) -> str:
        """
        How libvirtd deals with the client, for operators to read.
        """
        gateway = self._gateway
        if self._connection not in gateway.upstream.busy:
            return "answering"
        return f"busy for {gateway.now - self._busySince:.0f} s"

    @property
    def idle(self) -> bool:
        """
        Whether libvirtd owes the client nothing.
        """
        return self._relay is None or self._relay.idle

    @property
    def callsUnderWay(self) -> int:
        """
        The client's calls that libvirtd has not answered, as far as is known.
        """
        return 0 if self._relay is None else self._relay.callsUnderWay

    def opened(self, connection: KeepAliveServerProtocol) -> None:
        """
        Start relaying.
        """
        self._client = client = connectionOf(connection, ServerConnection)
        self._relay = Relay(client, self._connection)
        self._connection.session = self
        self._relay.start(self._gateway.reader)
        self._connection.closing.whenClosed().addCallback(self._upstreamClosed)

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        @raise RemoteError: always; calls are relayed, and none comes here.
        """
        raise rpcError(f"unknown procedure: {procedure}")

    def failCalls(self, error: RemoteError) -> None:
        """
        Answer in libvirtd's place.
        """
        if self._relay is not None:
            self._relay.failOutstanding(error)

    def closed(self, reason: Exception) -> None:
        """
        The client is gone: close its connection to libvirtd, after sending what a client that
        closed cleanly had sent.
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
        self._busySince = self._gateway.now
        self._log.info(
            "{peer} is busy: libvirtd does not read its connection while it has "
            "max_client_requests messages of it in hand; {count} calls and streams are under way, "
            "and the connection stays open, because libvirtd answers on others",
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
        self._gateway.health.doubt()
        lost = UpstreamLost(f"{self._gateway.libvirtd}: {reason}{self._hint(reason, relay)}")
        self._log.warn("closing {peer}: {reason}", peer=client.peer, reason=lost)
        relay.failOutstanding(rpcError(f"internal error: {lost}", ErrorCode.INTERNAL_ERROR))
        client.sendCloseEvent(CloseReason.EOF)
        client.disconnect(lost)

    def _hint(self, reason: Exception, relay: Relay) -> str:
        closed = isinstance(reason, ConnectionClosed | ConnectionLost)
        if not (self._gateway.asks and closed and relay.underWay >= _REQUESTS):
            return ""
        return (
            f"; {relay.underWay} calls and streams were under way, and libvirtd, which does not "
            f"read more than max_client_requests ({_REQUESTS} by default), drops a connection "
            "whose answers to its pings it does not read: raise max_client_requests in "
            "libvirtd.conf, or pass --upstream-ask=no"
        )


_REQUESTS: Final = 5
"""
libvirtd's default of C{max_client_requests}.
"""
