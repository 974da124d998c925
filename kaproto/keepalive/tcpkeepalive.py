"""
The endpoint string C{tcpkeepalive:}, which turns on the kernel's own keepalive.  Programs do not
see its probes.

It detects a dead host and a cut link, but not a stopped program, because the program's kernel keeps
answering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from kaproto.endpointstring import innerEndpoint, takeKeywords
from kaproto.keepalive.kernel import (
    COUNT_MAX,
    INTERVAL_MAX,
    setKernelKeepAlive,
    setSocketKeepAlive,
)
from kaproto.keepalive.liveness import KeepAlive

__all__ = [
    "NotTCP",
    "TCPKeepAliveClientEndpoint",
    "TCPKeepAliveServerEndpoint",
    "clientEndpoint",
    "serverEndpoint",
]


@attrs.frozen
class _Options:
    """
    @ivar keepAlive: the interval, in whole seconds, and the count.
    @ivar userTimeout: seconds for C{TCP_USER_TIMEOUT}, C{None} not to set it.
    """

    keepAlive: KeepAlive
    userTimeout: float | None = None


class NotTCP(Exception):
    """
    The endpoint is not a TCP endpoint, or the kernel refused the options.
    """

    def __init__(self, what: object) -> None:
        super().__init__(
            f"tcpkeepalive: cannot set the kernel's keepalive on {what}; it goes before TCP "
            "endpoints, on systems that have TCP_KEEPIDLE"
        )


@implementer(IStreamServerEndpoint)
class TCPKeepAliveServerEndpoint:
    """
    Listens on another endpoint; the connections that it accepts have the kernel's keepalive.
    """

    def __init__(self, wrapped: IStreamServerEndpoint, options: _Options) -> None:
        self._wrapped = wrapped
        self._options = options

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        @return: fails with L{NotTCP} if the options cannot be set.
        """
        return self._wrapped.listen(factory).addCallback(self._listening)

    def _listening(self, port: IListeningPort) -> IListeningPort | Deferred[IListeningPort]:
        # Connections inherit the options of the socket that accepts them.
        handle = getattr(port, "socket", None)
        options = self._options
        if handle is not None and setSocketKeepAlive(
            handle, options.keepAlive, options.userTimeout
        ):
            return port
        port.stopListening()
        raise NotTCP(port.getHost())


@implementer(IStreamClientEndpoint)
class TCPKeepAliveClientEndpoint:
    """
    Connects to another endpoint, with the kernel's keepalive.
    """

    def __init__(self, wrapped: IStreamClientEndpoint, options: _Options) -> None:
        self._wrapped = wrapped
        self._options = options

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @return: fails with L{NotTCP} if the options cannot be set.
        """
        return self._wrapped.connect(factory).addCallback(self._connected)

    def _connected(self, protocol: IProtocol) -> IProtocol:
        transport = protocol.transport  # type: ignore[attr-defined]
        if not setKernelKeepAlive(transport, self._options.keepAlive, self._options.userTimeout):
            transport.abortConnection()
            raise NotTCP(transport.getPeer())
        return protocol


_KEYWORDS: Final = ("interval", "count", "user-timeout")
_TIMEOUT_MAX: Final = (2**31 - 1) // 1000


def serverEndpoint(
    reactor: object, arguments: Sequence[str], keywords: dict[str, str]
) -> TCPKeepAliveServerEndpoint:
    """
    Make the endpoint that a string describes.

    @param arguments: the inner endpoint's name and its positional arguments.
    @param keywords: the inner endpoint's keywords, and C{interval}, whole seconds, C{count}, and
        C{user-timeout}, seconds.
    @raise ValueError: when a keyword or the inner endpoint is malformed.
    """
    return TCPKeepAliveServerEndpoint(*_parse(reactor, arguments, keywords, serverFromString))


def clientEndpoint(
    reactor: object, arguments: Sequence[str], keywords: dict[str, str]
) -> TCPKeepAliveClientEndpoint:
    """
    Like L{serverEndpoint}, for a client.
    """
    return TCPKeepAliveClientEndpoint(*_parse(reactor, arguments, keywords, clientFromString))


_Endpoint = TypeVar("_Endpoint")


def _parse(
    reactor: object,
    arguments: Sequence[str],
    keywords: dict[str, str],
    fromString: Callable[[Any, str], _Endpoint],
) -> tuple[_Endpoint, _Options]:
    own = takeKeywords(keywords, _KEYWORDS)
    name = arguments[0] if arguments else ""
    if name in ("", "keepalive", "tcpkeepalive"):
        raise ValueError(
            "tcpkeepalive: goes before a TCP endpoint, as in "
            f"tcpkeepalive:tcp:4040:interval=5:count=5, not before {name!r}"
        )
    keepAlive = KeepAlive(
        _number(own, "interval", KeepAlive().interval, INTERVAL_MAX),
        int(_number(own, "count", KeepAlive().count, COUNT_MAX)),
    )
    userTimeout = _number(own, "user-timeout", 0, _TIMEOUT_MAX) if "user-timeout" in own else None
    inner = innerEndpoint(fromString, reactor, "tcpkeepalive", _KEYWORDS, arguments, keywords)
    return inner, _Options(keepAlive, userTimeout)


def _number(keywords: dict[str, str], name: str, default: float, most: int) -> float:
    text = keywords.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= most):
        raise ValueError(f"{name}= is a whole number from 1 to {most}, not {text!r}")
    return int(text)
