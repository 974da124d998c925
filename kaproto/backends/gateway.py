"""
A gateway to a real libvirtd: relays each client's messages unchanged, over a separate connection.

Each hop has its own authentication, keepalive negotiation, pings, and closing.  Everything else is
relayed, including streams and unknown programs.
"""

from __future__ import annotations

import errno
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from kaproto.backends.connections import (
    Probe,
    UpstreamConnection,
    UpstreamFactory,
    UpstreamProtocol,
)
from kaproto.backends.gatewaysession import GatewaySession, Libvirtd
from kaproto.backends.health import Health
from kaproto.backends.identity import packIdentity
from kaproto.backends.relayreader import RelayReader
from kaproto.backends.upstream import Upstream
from kaproto.errors import ConnectionClosed, RemoteError
from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.deadline import Deadline
from kaproto.keepalive.kernelwatch import TCPKeepAlive
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.monitor import Monitor
from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer
from kaproto.rpc.protocol import connectionOf
from kaproto.security.clientauth import Authentication
from kaproto.wire.message import rpcError
from kaproto.wire.programs import REMOTE_PROGRAM, ErrorCode, Procedure

__all__ = ["Gateway"]


_PROMPTLY: Final = KeepAlive(1, 5)
"""
The interval and count for probing an unreachable libvirtd.
"""

_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)

_NO_FILES_LEFT: Final = (
    "this gateway has reached its open-file limit; raise that limit (LimitNOFILE=, ulimit -n) or "
    "lower --max-clients"
)


@implementer(IBackend)
class Gateway:
    """
    A backend that opens each client's session by connecting to libvirtd.

    @ivar limits: the limits of the connections to libvirtd; C{openTimeout} includes connecting.
    @ivar description: libvirtd's endpoint, for log lines.
    @ivar upstream: decides whether libvirtd is alive.
    @ivar health: tracks whether new clients can be served.
    @ivar tcpKeepAlive: the TCP keepalive of the connections to libvirtd.
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
        @param endpoint: the endpoint that connects to libvirtd.
        @param description: its name in messages and log lines.
        @param keepAlive: the interval and count for pinging libvirtd.
        @param ask: whether to ask libvirtd for keepalive.  If asked, it pings this gateway and
            notices a dead host, but also drops connections with C{max_client_requests} outstanding
            calls.  A kaserver in mode 2 has to be asked.
        @param forwardIdentity: whether to send each authenticated client's identity to libvirtd.
        @param authentication: how this process authenticates to libvirtd.
        """
        self._authentication = authentication or Authentication()
        self.description = description
        self._endpoint = endpoint
        self._keepAlive = keepAlive
        self._clock = monotonicClock(clock)
        # Monitors are only weakly referenced: keep this one alive, for all connections to share.
        self._monitor = Monitor.of(clock)
        pacemaker = self._monitor.pacemaker
        self._forwardIdentity = forwardIdentity
        self.upstream = Upstream(keepAlive, self._clock, lambda: pacemaker.now, self._probe)
        self.health = Health(self._clock, lambda: self._connectProbe(_PROMPTLY, saysGoodbye=True))
        self._libvirtd = Libvirtd(
            f"libvirtd behind this gateway ({description})",
            ask,
            self.upstream,
            self.health,
            RelayReader.orNone(clock, pacemaker),
        )

    def _probe(self) -> Probe:
        self._log.info(
            "probing {libvirtd} over a new connection, because connections with calls under way do "
            "not answer pings",
            libvirtd=self._libvirtd,
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
        @return: C{True}, since only libvirtd knows its procedures.
        """
        return True

    def open(self, peer: Peer, request: OpenRequest) -> Deferred[ISession]:
        """
        Connect to libvirtd, and open the name there.

        @return: fires with the session; fails with L{RemoteError}: libvirtd's own error, or one
            that says why libvirtd could not be opened.
        """
        return Deferred.fromCoroutine(self._open(peer, request))

    async def _open(self, peer: Peer, request: OpenRequest) -> ISession:
        opening = Deferred.fromCoroutine(self._connect(peer, request))
        expiry = Deadline(self._clock, self.limits.openTimeout, opening.cancel)
        try:
            return GatewaySession(await opening, self._libvirtd)
        except RemoteError as error:
            self.health.works()
            if not self._libvirtd.asked and "keepalive" in error.message:
                self._log.warn(
                    "{libvirtd} refused to open because kaserver did not ask it for keepalive, "
                    "which a kaserver in mode 2 requires: pass --upstream-ask=yes",
                    libvirtd=self._libvirtd,
                )
            raise
        except (CancelledError, ConnectingCancelledError) as problem:
            if expiry.active():
                # The client has gone.
                raise
            message = (
                f"{self._libvirtd} did not open within {self.limits.openTimeout:g} s; it may hang, "
                "be starting, or have as many clients as it allows (max_clients, "
                "max_anonymous_clients)"
            )
            raise self._failed(peer, message, ErrorCode.OPERATION_TIMEOUT) from problem
        except ConnectError as problem:
            reason = str(problem)
            if problem.osError in _OUT_OF_FILES:
                reason = _NO_FILES_LEFT
            elif type(problem) is ConnectError and problem.osError is None:
                # Twisted raises this when the queue of a UNIX socket is full.
                reason = (
                    "it accepts no connections at present; it may hang, or have too many clients"
                )
            message = f"unable to connect to {self._libvirtd}: {reason}"
            raise self._failed(peer, message, ErrorCode.SYSTEM_ERROR) from problem
        except Exception as problem:
            if getattr(problem, "errno", None) in _OUT_OF_FILES:
                message = f"unable to connect to {self._libvirtd}: {_NO_FILES_LEFT}"
                raise self._failed(peer, message, ErrorCode.SYSTEM_ERROR) from problem
            reason = str(problem) or type(problem).__name__
            message = f"internal error: {self._libvirtd} could not be opened: {reason}"
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
            ask=self._libvirtd.asked,
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
