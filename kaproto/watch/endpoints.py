"""
The endpoint string C{keepalive:}, which adds a tunnel to another endpoint, for servers and clients:
C{keepalive:tcp:4040:policy=2:interval=5:count=5}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from kaproto.endpointstring import innerEndpoint, takeKeywords
from kaproto.errors import KeepAliveUnsupported
from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.liveness import INTERVAL_MAX, KeepAlive
from kaproto.policies.plugins import findPolicy
from kaproto.watch.ends import WAIT
from kaproto.watch.intervals import readInterval
from kaproto.watch.tunnelclient import tunnelClient
from kaproto.watch.tunnelserver import PLAIN_WAIT, tunnelServer

__all__ = ["TunnelClientEndpoint", "TunnelServerEndpoint", "clientEndpoint", "serverEndpoint"]

_SHARED: Final = ("interval", "count", "wait")


@implementer(IStreamServerEndpoint)
class TunnelServerEndpoint:
    """
    Listens on another endpoint, and serves through a tunnel.
    """

    def __init__(
        self,
        wrapped: IStreamServerEndpoint,
        policy: IKeepAlivePolicy,
        wait: float = PLAIN_WAIT,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param wrapped: where to listen.
        @param policy: as for L{tunnelServer}, as are the other parameters.
        """
        self.policy = policy
        self.wait = wait
        self._wrapped = wrapped
        self._clock = clock

    def beneath(
        self, wrap: Callable[[IStreamServerEndpoint], IStreamServerEndpoint]
    ) -> TunnelServerEndpoint:
        """
        Insert an endpoint between this one and the wrapped one.

        @param wrap: wraps an endpoint in the one to insert, which handles each connection first.
        @return: a tunnel endpoint with the inserted one below it.
        """
        return TunnelServerEndpoint(wrap(self._wrapped), self.policy, self.wait, self._clock)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        @param factory: the application's.
        """
        return self._wrapped.listen(
            tunnelServer(factory, self.policy, wait=self.wait, clock=self._clock)
        )


@implementer(IStreamClientEndpoint)
class TunnelClientEndpoint:
    """
    Connects to another endpoint, through a tunnel.
    """

    def __init__(
        self,
        wrapped: IStreamClientEndpoint,
        keepAlive: KeepAlive,
        wait: float = WAIT,
        clock: IReactorTime | None = None,
        *,
        plain: bool = False,
    ) -> None:
        """
        @param wrapped: where to connect to.
        @param keepAlive: as for L{tunnelClient}, as are the other parameters.
        @param plain: whether to connect again without a tunnel, if the server does not support it.
        """
        self.keepAlive = keepAlive
        self.wait = wait
        self.plain = plain
        self._wrapped = wrapped
        self._clock = clock

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @param factory: the application's.
        @return: fires with the application's protocol; fails with L{KeepAliveUnsupported} when the
            server does not support tunnels, and with the errors of the other endpoint.
        """
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        client = tunnelClient(factory, self.keepAlive, wait=self.wait, clock=self._clock)
        try:
            protocol: Any = await self._wrapped.connect(client)
            application: IProtocol = await protocol.ready
        except KeepAliveUnsupported:
            if not self.plain:
                raise
            return await self._wrapped.connect(factory)
        return application


def serverEndpoint(
    reactor: object, arguments: Sequence[str], keywords: dict[str, str]
) -> TunnelServerEndpoint:
    """
    Make the endpoint that a string describes.

    @param arguments: the inner endpoint's name and its positional arguments.
    @param keywords: the inner endpoint's keywords, and C{policy}, a mode's number or the name of a
        policy, by default 1; C{interval} and C{wait}, in seconds; C{count}.
    @raise ValueError: when a keyword or the inner endpoint is malformed.
    """
    own = takeKeywords(keywords, ("policy", *_SHARED))
    keepAlive = _keepAlive(own)
    wait = _number(own, "wait", PLAIN_WAIT)
    inner: IStreamServerEndpoint = _inner(
        serverFromString, reactor, arguments, keywords, ("policy", *_SHARED)
    )
    policy = _policy(own.get("policy", "1"), keepAlive)
    return TunnelServerEndpoint(inner, policy, wait, IReactorTime(reactor))


def clientEndpoint(
    reactor: object, arguments: Sequence[str], keywords: dict[str, str]
) -> TunnelClientEndpoint:
    """
    Make the endpoint that a string describes.

    @param arguments: the inner endpoint's name and its positional arguments.
    @param keywords: the inner endpoint's keywords, and C{interval} and C{wait}, in seconds,
        C{count}, and C{plain}, C{yes} or C{no}.
    @raise ValueError: when a keyword or the inner endpoint is malformed.
    """
    own = takeKeywords(keywords, ("plain", *_SHARED))
    plain = own.get("plain", "no")
    if plain not in ("yes", "no"):
        raise ValueError(f"plain= is yes or no, not {plain!r}")
    keepAlive = _keepAlive(own)
    wait = _number(own, "wait", WAIT)
    inner: IStreamClientEndpoint = _inner(
        clientFromString, reactor, arguments, keywords, ("plain", *_SHARED)
    )
    return TunnelClientEndpoint(inner, keepAlive, wait, IReactorTime(reactor), plain=plain == "yes")


_T = TypeVar("_T")


def _inner(
    fromString: Callable[[Any, str], _T],
    reactor: object,
    arguments: Sequence[str],
    keywords: dict[str, str],
    own: Sequence[str],
) -> _T:
    name = arguments[0] if arguments else ""
    if name in ("", "keepalive"):
        raise ValueError(
            "keepalive: goes before another endpoint, as in keepalive:tcp:4040, "
            f"not before {name!r}"
        )
    return innerEndpoint(fromString, reactor, "keepalive", own, arguments, keywords)


def _policy(selector: str, keepAlive: KeepAlive) -> IKeepAlivePolicy:
    try:
        return findPolicy(selector, keepAlive)
    except ValueError as error:
        isArgumentMissing = ":" not in selector and str(error).startswith(f"policy {selector}: ")
        hint = "; here write \\: for the colon" if isArgumentMissing else ""
        raise ValueError(f"{error}{hint}") from error


def _keepAlive(keywords: dict[str, str]) -> KeepAlive:
    default = KeepAlive()
    count = keywords.get("count", str(default.count))
    if not (count.isascii() and count.isdecimal()):
        raise ValueError(f"count= is a whole number of pings, not {count!r}")
    return KeepAlive(_number(keywords, "interval", default.interval), int(count))


def _number(keywords: dict[str, str], name: str, default: float) -> float:
    text = keywords.get(name)
    if text is None:
        return default
    value = readInterval(text.encode())
    if value is None:
        raise ValueError(f"{name}= is a number of seconds, at most {INTERVAL_MAX}, not {text!r}")
    return value
