"""
Adds keepalive to an unchanged factory: L{watched} for servers, L{watchedClient} and
L{watchedEndpoint} for clients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.protocols.policies import WrappingFactory
from zope.interface import implementer

from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies.modes import Policy
from kaproto.watch.choices import codecFor, policyFor
from kaproto.watch.ends import BEARS, WAIT, ClientFactory, ServerFactory
from kaproto.watch.interfaces import IHeartbeatCodec
from kaproto.watch.wires import CodecWire

__all__ = ["BEARS", "WAIT", "WatchedEndpoint", "watched", "watchedClient", "watchedEndpoint"]


def watched(
    factory: IProtocolFactory | Factory[Any],
    policy: IKeepAlivePolicy | Policy | int,
    codec: IHeartbeatCodec | str,
    *,
    wait: float = WAIT,
    bears: float = BEARS,
    clock: IReactorTime | None = None,
) -> WrappingFactory[Any]:
    """
    Have a server watch the clients of a factory.

    @param factory: the application's factory.
    @param policy: decides about keepalive for each client, such as
        L{kaproto.policies.Mandatory}; or a mode: 0, 1 or 2.
    @param codec: the codec for the application's protocol, or its name, such as C{"lines"}.
    @param wait: seconds that a client has to ask for keepalive, if the policy refuses clients that
        do not.
    @param bears: the shortest interval, in seconds, at which this side agrees to be pinged.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory to listen with.
    @raise ValueError: when there is no such mode or codec.
    """
    found = codecFor(codec)
    return ServerFactory(
        factory,
        found,
        partial(CodecWire, found),
        policy=policyFor(policy),
        wait=wait,
        bears=bears,
        clock=clock,
    )


def watchedClient(
    factory: IProtocolFactory | Factory[Any],
    keepAlive: KeepAlive,
    codec: IHeartbeatCodec | str,
    *,
    bears: float = BEARS,
    clock: IReactorTime | None = None,
) -> WrappingFactory[Any]:
    """
    Have a client ask for keepalive, and watch a server that answers pings.

    @param factory: the application's factory.
    @param keepAlive: interval and count for watching the server; if either is zero, the client only
        answers the server's pings.
    @param codec: the codec for the application's protocol, or its name, such as C{"lines"}.
    @param bears: the shortest interval, in seconds, at which this side agrees to be pinged.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory to connect with.  To connect through an endpoint, use L{watchedEndpoint}.
    @raise ValueError: when there is no such codec.
    """
    found = codecFor(codec)
    return ClientFactory(
        factory, found, partial(CodecWire, found), keepAlive=keepAlive, bears=bears, clock=clock
    )


@implementer(IStreamClientEndpoint)
class WatchedEndpoint:
    """
    An endpoint whose connections are watched.
    """

    def __init__(
        self,
        wrapped: IStreamClientEndpoint,
        wrap: Callable[[IProtocolFactory | Factory[Any]], IProtocolFactory],
    ) -> None:
        self._wrapped = wrapped
        self._wrap = wrap

    def connect(self, factory: IProtocolFactory | Factory[Any]) -> Deferred[IProtocol]:
        """
        @return: fires with the application's protocol.
        """
        connecting: Deferred[Any] = self._wrapped.connect(self._wrap(factory))
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


def watchedEndpoint(
    endpoint: IStreamClientEndpoint,
    keepAlive: KeepAlive,
    codec: IHeartbeatCodec | str,
    *,
    bears: float = BEARS,
    clock: IReactorTime | None = None,
) -> WatchedEndpoint:
    """
    L{watchedClient} for endpoints.

    @param endpoint: where to connect to.
    @return: an endpoint whose C{connect} gives the application's protocol.
    """
    return WatchedEndpoint(
        endpoint, partial(watchedClient, keepAlive=keepAlive, codec=codec, bears=bears, clock=clock)
    )
