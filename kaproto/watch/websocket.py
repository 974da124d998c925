"""
Keepalive for web sockets (L{twisted.web.websocket}), by the pings that every web socket answers
(RFC 6455, section 5.5.2).

Since every peer answers pings, it counts as having asked once the opening handshake is complete, so
modes 1 and 2 are the same here.

This needs the extra C{websocket}.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.websocket import (
    WebSocketClientFactory,
    WebSocketProtocol,
    WebSocketServerFactory,
    WebSocketTransport,
)
from wsproto.utilities import LocalProtocolError

from kaproto.errors import KeepAliveTimeout
from kaproto.interfaces import IKeepAlivePolicy, Refused
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.liveness import KeepAlive
from kaproto.logbounds import BOUNDS
from kaproto.policies.modes import Policy
from kaproto.transport import identify
from kaproto.watch.choices import policyFor

__all__ = ["WatchedWebSocket", "watchedWebSocket", "watchedWebSocketClient"]

_PAYLOAD: Final = b"kaproto"
_POLICY_VIOLATION: Final = 1008
_Protocol = TypeVar("_Protocol", bound=WebSocketProtocol)


class WatchedWebSocket(Generic[_Protocol]):
    """
    A web socket protocol that wraps an application's.

    @ivar application: the application's protocol.
    @ivar heartbeat: watches the peer; set once negotiation has started.
    """

    heartbeat: Heartbeat
    _log = Logger(observer=BOUNDS)
    _reason: KeepAliveTimeout | None = None

    def __init__(
        self,
        application: _Protocol,
        clock: IReactorTime | None,
        *,
        policy: IKeepAlivePolicy | None = None,
        keepAlive: KeepAlive | None = None,
    ) -> None:
        """
        @param policy: decides about keepalive for a client; C{None} on the client's end.
        @param keepAlive: on the client's end, interval and count for watching the server.
        """
        self.application = application
        self._policy = policy
        self._keepAlive = keepAlive
        self._clock = clock

    def negotiationStarted(self, transport: WebSocketTransport) -> None:
        """
        The underlying transport is connected.
        """
        self._transport = transport
        # The wire protocol's transport, which has the socket.
        bottom = cast(Any, transport).transport
        self._peer = identify(bottom)
        self.heartbeat = Heartbeat(bottom, self._sendPing, died=self._died, clock=self._clock)
        self.application.negotiationStarted(transport)

    def negotiationFinished(self) -> None:
        """
        The opening handshake is complete: start pinging the peer, or refuse it.
        """
        keepAlive, policy, peer = self._keepAlive, self._policy, self._peer
        if policy is not None:
            peer.asked = policy.advertises(peer) is True
            admission = policy.admit(peer)
            if isinstance(admission, Refused):
                self._log.warn(
                    "refused {peer} by policy {policy}: {why}",
                    peer=peer,
                    policy=policy.name,
                    why=admission.message,
                )
                self._transport.loseConnection(_POLICY_VIOLATION)
                return
            keepAlive = policy.keepAlive(peer) if peer.asked else None
        if keepAlive is not None:
            self.heartbeat.start(keepAlive)
        self.application.negotiationFinished()

    def _sendPing(self) -> None:
        # No ping may be sent after the closing handshake has begun.  A peer that does not complete
        # it is still found dead, by its silence.
        with suppress(LocalProtocolError):
            self._transport.ping(_PAYLOAD)

    def _died(self, reason: KeepAliveTimeout) -> None:
        self._reason = reason
        self._log.warn("{peer} is dead: {reason}", peer=self._peer, reason=reason)
        self.heartbeat.transport.abortConnection()

    def pongReceived(self, payload: bytes) -> None:
        """
        Record that the peer is alive.  Pongs for the application's own pings are passed on.
        """
        self.heartbeat.heard()
        if payload != _PAYLOAD:
            self.application.pongReceived(payload)

    def textMessageReceived(self, message: str) -> None:
        """
        Pass on a text message.
        """
        self.heartbeat.heard()
        self.application.textMessageReceived(message)

    def bytesMessageReceived(self, data: bytes | bytearray) -> None:
        """
        Pass on a message of bytes.
        """
        self.heartbeat.heard()
        self.application.bytesMessageReceived(data)

    def connectionLost(self, reason: Failure) -> None:
        """
        Tell the application why the connection has ended, for example because the peer was dead.
        """
        self.heartbeat.end()
        self.application.connectionLost(reason if self._reason is None else Failure(self._reason))


class _Factory(Generic[_Protocol]):
    """
    Wraps each protocol that a factory builds in a L{WatchedWebSocket}.
    """

    def __init__(
        self,
        build: Callable[[Any], _Protocol],
        watch: Callable[[_Protocol], WatchedWebSocket[_Protocol]],
    ) -> None:
        self._build = build
        self._watch = watch

    def buildProtocol(self, source: object) -> WatchedWebSocket[_Protocol]:
        """
        @param source: a server's request or a client's URL.
        """
        return self._watch(self._build(source))


def watchedWebSocket(
    factory: WebSocketServerFactory[_Protocol],
    policy: IKeepAlivePolicy | Policy | int,
    *,
    clock: IReactorTime | None = None,
) -> WebSocketServerFactory[WatchedWebSocket[_Protocol]]:
    """
    Have a server watch its web sockets.

    @param factory: the application's factory.
    @param policy: decides about keepalive for each client; or a mode: 0, 1 or 2.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory for L{twisted.web.websocket.WebSocketResource}.
    """
    watch = partial(WatchedWebSocket[_Protocol], clock=clock, policy=policyFor(policy))
    return _Factory(factory.buildProtocol, watch)


def watchedWebSocketClient(
    factory: WebSocketClientFactory[_Protocol],
    keepAlive: KeepAlive,
    *,
    clock: IReactorTime | None = None,
) -> WebSocketClientFactory[WatchedWebSocket[_Protocol]]:
    """
    Have a client watch the server of its web socket.

    @param factory: the application's factory.
    @param keepAlive: interval and count.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory for L{twisted.web.websocket.WebSocketClientEndpoint.connect}.  The
        C{application} attribute of its protocol is the application's.
    """
    watch = partial(WatchedWebSocket[_Protocol], clock=clock, keepAlive=keepAlive)
    return _Factory(factory.buildProtocol, watch)
