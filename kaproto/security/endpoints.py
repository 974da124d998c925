"""
TLS endpoints, and the endpoint string C{libvirttls:}, which uses libvirtd's certificate files.

Twisted imports this module whenever a program parses an endpoint string, so slow imports are made
inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

if TYPE_CHECKING:
    from kaproto.security.tls import ClientContextFactory, ServerContextFactory
    from kaproto.security.tlslayer import TLSLayer

__all__ = [
    "TLSClientEndpoint",
    "TLSServerEndpoint",
    "serverEndpoint",
    "tlsEndpoint",
    "transportOf",
    "whyNotServed",
]

_PORT: Final = "16514"
_BACKLOG: Final = "1024"
_PORT_MAX: Final = 65535
_BACKLOG_MAX: Final = 2**31 - 1
_ANSWERS: Final = {"yes": True, "no": False}
_LAYERS: Final = frozenset({"haproxy", "keepalive", "proxy", "tcpkeepalive"})


@implementer(IStreamServerEndpoint)
class TLSServerEndpoint:
    """
    Listens with TLS.

    @ivar contextFactory: has the server's certificate; its C{reload} reads the files again.
    """

    def __init__(
        self,
        wrapped: IStreamServerEndpoint,
        contextFactory: ServerContextFactory,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param wrapped: where to listen.
        @param clock: small writes are sent together in its next turn; by default the reactor's.
        """
        self.contextFactory = contextFactory
        self.wrapped = wrapped
        self._clock = clock

    def beneath(
        self, wrap: Callable[[IStreamServerEndpoint], IStreamServerEndpoint]
    ) -> TLSServerEndpoint:
        """
        Insert a layer beneath TLS.

        @param wrap: makes the new layer from the endpoint beneath TLS.  The new layer handles each
            connection before TLS begins.
        @return: a copy of this endpoint, on top of the new layer.
        """
        return TLSServerEndpoint(wrap(self.wrapped), self.contextFactory, self._clock)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        @return: fires with the port.
        """
        from kaproto.security.tlslayer import TLSFactory

        return self.wrapped.listen(
            TLSFactory(self.contextFactory, False, factory, clock=self._clock)
        )


@implementer(IStreamClientEndpoint)
class TLSClientEndpoint:
    """
    Connects with TLS.
    """

    def __init__(
        self,
        wrapped: IStreamClientEndpoint,
        contextFactory: ClientContextFactory,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param wrapped: where to connect.
        @param contextFactory: has the client's certificate, and checks the server's.
        @param clock: small writes are sent together in its next turn; by default the reactor's.
        """
        self._wrapped = wrapped
        self._contextFactory = contextFactory
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @return: fires with the protocol when the transport is connected, before the handshake.
        """
        from kaproto.security.tlslayer import TLSFactory

        def wrappedProtocol(layer: object) -> IProtocol:
            protocol = cast("TLSLayer", layer).wrappedProtocol
            assert protocol is not None, "the layer keeps it until the connection is lost"
            return protocol

        factory = TLSFactory(self._contextFactory, True, protocolFactory, clock=self._clock)
        return self._wrapped.connect(factory).addCallback(wrappedProtocol)


def serverEndpoint(
    reactor: object, arguments: Sequence[str], keywords: Mapping[str, str]
) -> TLSServerEndpoint:
    """
    Make the endpoint that a string C{libvirttls:PORT} describes, see L{tlsEndpoint}.

    @raise ValueError: if an argument is malformed, or a file cannot be used.
    """
    if len(arguments) > 1:
        raise ValueError(f"takes a port, then NAME=VALUE; {arguments[1]!r} has no name")
    unknown = sorted(set(keywords) - _ARGUMENTS)
    if unknown:
        raise ValueError(f"there is no {unknown[0]}=; there are {', '.join(sorted(_ARGUMENTS))}")
    return tlsEndpoint(reactor, *arguments, **keywords)


def tlsEndpoint(
    reactor: object,
    port: str = _PORT,
    pki: str | None = None,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    crl: str | None = None,
    verify: str = "yes",
    interface: str = "",
    backlog: str = _BACKLOG,
) -> TLSServerEndpoint:
    """
    Make the endpoint that a string describes.  All arguments are optional.

    @param port: the port to listen on.
    @param pki: the folder that has libvirt's default file names, by default C{/etc/pki}.
    @param ca: the authorities' certificates, see L{kaproto.security.pki.serverFiles}.
    @param cert: the server's certificate.
    @param key: its private key.
    @param crl: the authorities' revocation lists.
    @param verify: C{yes}, or C{no} to accept clients without certificates.
    @param interface: the IP address to listen on, by default all.
    @param backlog: how many connections may wait to be accepted.
    @raise ValueError: if an argument is malformed, or a file cannot be used.
    """
    from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint

    from kaproto.security.pki import PKI_DIRECTORY, serverFiles
    from kaproto.security.tls import ServerContextFactory

    if verify not in _ANSWERS:
        raise ValueError(f"verify is yes or no, not {verify!r}")
    _checkInterface(interface)
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    portNumber = _number("port", port, 0, _PORT_MAX)
    wrapped = kind(reactor, portNumber, _number("backlog", backlog, 1, _BACKLOG_MAX), interface)
    directory = _path("pki", pki) or PKI_DIRECTORY
    given = (("ca", ca), ("cert", cert), ("key", key), ("crl", crl))
    files = partial(serverFiles, directory, *(_path(name, text) for name, text in given))
    return TLSServerEndpoint(
        wrapped,
        ServerContextFactory(files, verify=_ANSWERS[verify]),
        IReactorTime(reactor, None),
    )


_ARGUMENTS: Final = frozenset(signature(tlsEndpoint).parameters) - {"reactor"}


def transportOf(description: str) -> str:
    """
    @param description: a server endpoint string.
    @return: C{"tcp"}, C{"tls"} or C{"unix"}, as in L{kaproto.peer.Peer}; C{"tcp"}, the least
        secure, for unknown endpoints too.
    """
    name, _colon, rest = description.removeprefix("haproxy:").removeprefix("proxy:").partition(":")
    if name in ("libvirttls", "ssl", "tls"):
        return "tls"
    if name == "unix" or (name in ("systemd", "fd") and "domain=UNIX" in rest.split(":")):
        return "unix"
    return "tcp"


def whyNotServed(description: str) -> str | None:
    """
    @param description: a server endpoint string.
    @return: if kaserver cannot serve libvirt's clients there, the reason and the endpoint string
        to use instead; C{None} if it can.
    """
    kinds = description.split(":")
    inner = next((each for each in kinds if each not in _LAYERS), "")
    layers = kinds[: kinds.index(inner)] if inner else kinds
    if inner in ("ssl", "tls"):
        return (
            f"{inner}: is TLS that libvirt's clients do not speak; use libvirttls:PORT, with "
            "ca=, cert= and key= if the files are not in /etc/pki, and verify=no for clients "
            "without certificates"
        )
    if "haproxy" in layers:
        use = "proxy:unix:PATH" if inner == "unix" else f"proxy:{inner or 'tcp'}:PORT:from=NETWORK"
        return (
            "haproxy: accepts a PROXY header from any client, and expects it inside TLS; use "
            f"{use}, with the network that the balancer connects from"
        )
    return None


def _path(name: str, text: str | None) -> Path | None:
    if text == "":
        raise ValueError(f"{name}= needs a path")
    return None if text is None else Path(text)


def _checkInterface(text: str) -> None:
    try:
        if text:
            ip_address(text.partition("%")[0])
    except ValueError:
        raise ValueError(
            f"interface is an IP address of this machine, not {text!r}; in an IPv6 address write "
            "\\: for each colon"
        ) from None


def _number(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise ValueError(f"{name} is a whole number from {least} to {most}, not {text!r}")
    return int(text)
