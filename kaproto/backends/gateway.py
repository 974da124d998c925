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
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from kaproto.backends.identity import packIdentity
from kaproto.backends.relay import Relay
from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.client.connection import ClientConnection
from kaproto.errors import ConnectionClosed, RemoteError, UpstreamLost
from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.deadline import Deadline
from kaproto.keepalive.liveness import KeepAlive
from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer
from kaproto.rpc.protocol import connectionOf
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.security.saslclient import Login
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.message import rpcError
from kaproto.wire.programs import REMOTE_PROGRAM, CloseReason, ErrorCode, Procedure

__all__ = ["Gateway"]


_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)

_NO_FILES_LEFT: Final = (
    "this gateway has as many files open as it may; raise that limit (LimitNOFILE=, ulimit -n) or "
    "lower --max-clients"
)


@implementer(IBackend)
class Gateway:
    """
    Opens by connecting to libvirtd.

    @ivar openTimeout: seconds libvirtd has to accept and open.
    @ivar libvirtd: what messages to clients call it.
    """

    _log = Logger(observer=BOUNDS)
    openTimeout: float = 10.0
    features: frozenset[int] = frozenset()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        description: str,
        keepAlive: KeepAlive,
        clock: IReactorTime,
        *,
        forwardIdentity: bool = False,
        login: Login | None = None,
    ) -> None:
        """
        @param endpoint: where libvirtd listens.
        @param description: what to call it in messages and log lines.
        @param keepAlive: how closely to watch libvirtd itself.
        @param forwardIdentity: whether to tell libvirtd who each client is, in place of this
            process, once it has authenticated.
        @param login: this process's own name and password at libvirtd, if it wants them.
        """
        self._login = login
        self.description = description
        self.libvirtd = f"libvirtd behind this gateway ({description})"
        self._endpoint = endpoint
        self._keepAlive = keepAlive
        self._clock = monotonicClock(clock)
        self._forwardIdentity = forwardIdentity

    def __str__(self) -> str:
        """
        The backend as log lines name it.
        """
        return f"gateway to {self.description}"

    def knows(self, procedure: int) -> bool:
        """
        @return: C{True}, as only libvirtd can tell.
        """
        return True

    def open(self, peer: Peer, request: OpenRequest) -> Deferred[ISession]:
        """
        See L{IBackend.open}.

        @raise RemoteError: libvirtd's own, or one that says what is wrong with it.
        """
        return Deferred.fromCoroutine(self._open(peer, request))

    async def _open(self, peer: Peer, request: OpenRequest) -> ISession:
        opening = Deferred.fromCoroutine(self._connect(peer, request))
        expiry = Deadline(self._clock, self.openTimeout, opening.cancel)
        try:
            return _GatewaySession(self, await opening)
        except RemoteError:
            raise
        except (CancelledError, ConnectingCancelledError) as problem:
            if expiry.active():
                # It is the client that did not wait.
                raise
            message = (
                f"{self.libvirtd} did not open within {self.openTimeout:g} s; it may hang, be "
                "starting, or have as many clients as it lets in (max_clients, "
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
        return rpcError(message, code)

    async def _connect(self, peer: Peer, request: OpenRequest) -> ClientConnection:
        factory = KeepAliveClientFactory(
            request.name or "",
            request.flags,
            self._keepAlive,
            clock=self._clock,
            login=self._login,
        )
        factory.registersCloseCallback = False
        upstream = await self._endpoint.connect(factory)
        assert isinstance(upstream, KeepAliveClientProtocol)
        try:
            await upstream.whenOpen()
            identity = packIdentity(peer) if self._forwardIdentity else None
            if identity is not None:
                await upstream.call(REMOTE_PROGRAM, Procedure.CONNECT_SET_IDENTITY, identity)
        except BaseException:
            connectionOf(upstream, ClientConnection).abort(ConnectionClosed("the client has gone"))
            raise
        return connectionOf(upstream, ClientConnection)


@implementer(ISession)
class _GatewaySession:
    """
    One client's connection to libvirtd.
    """

    __slots__ = ("_client", "_gateway", "_relay", "_upstream")
    _log = Logger(observer=BOUNDS)

    def __init__(self, gateway: Gateway, upstream: ClientConnection) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._client: ServerConnection | None = None
        self._relay: Relay | None = None

    @property
    def idle(self) -> bool:
        """
        Whether libvirtd owes the client nothing.
        """
        return self._relay is None or self._relay.idle

    def opened(self, connection: KeepAliveServerProtocol) -> None:
        """
        Start relaying.
        """
        self._client = client = connectionOf(connection, ServerConnection)
        self._relay = Relay(client, self._upstream)
        self._relay.start()
        self._upstream.closing.whenClosed().addCallback(self._upstreamClosed)

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        @raise RemoteError: always; calls are relayed, so none comes here.
        """
        raise rpcError(f"unknown procedure: {procedure}")

    def closed(self, reason: Exception) -> None:
        """
        The client is gone: let go of its connection to libvirtd, which is first given what a
        client that closed in good order had sent.
        """
        self._client = None
        if self._relay is not None:
            self._relay.end()
            self._relay = None
        if isinstance(reason, ConnectionClosed):
            self._upstream.disconnect(reason)
        else:
            self._upstream.abort(reason)

    def _upstreamClosed(self, reason: Exception) -> None:
        client, relay = self._client, self._relay
        if client is None or relay is None:
            return
        if relay.closing:
            client.disconnect(ConnectionClosed("the client closed the connection"))
            return
        lost = UpstreamLost(f"{self._gateway.libvirtd}: {reason}")
        self._log.warn("closing {peer}: {reason}", peer=client.peer, reason=lost)
        relay.failOutstanding(rpcError(f"internal error: {lost}", ErrorCode.INTERNAL_ERROR))
        client.sendCloseEvent(CloseReason.EOF)
        client.disconnect(lost)
