"""
The C{libvirttls:} endpoint string: TLS with certificates the way libvirtd has it.

Twisted imports this module whenever a program takes any endpoint string apart, so what is costly
to import waits until it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from kaproto.security.tls import ServerContextFactory

__all__ = ["LibvirtTLSParser", "ProxyParser", "TLSServerEndpoint", "tlsEndpoint", "transportOf"]

_PORT: Final = "16514"
_BACKLOG: Final = "1024"
_ANSWERS: Final = {"yes": True, "no": False}


@implementer(IStreamServerEndpoint)
class TLSServerEndpoint:
    """
    Listens with TLS.

    @ivar contextFactory: has the certificate; reload it to use another.
    """

    def __init__(
        self,
        wrapped: IStreamServerEndpoint,
        contextFactory: ServerContextFactory,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param wrapped: where to listen.
        @param clock: what small writes are gathered on, by default the reactor.
        """
        self.contextFactory = contextFactory
        self._wrapped = wrapped
        self._clock = clock

    def beneath(
        self, wrap: Callable[[IStreamServerEndpoint], IStreamServerEndpoint]
    ) -> TLSServerEndpoint:
        """
        @param wrap: makes an endpoint that does something before TLS begins.
        @return: the same endpoint with that below it.
        """
        return TLSServerEndpoint(wrap(self._wrapped), self.contextFactory, self._clock)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        See L{IStreamServerEndpoint}.
        """
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self._wrapped.listen(
            TLSMemoryBIOFactory(self.contextFactory, False, factory, clock=self._clock)
        )


@implementer(IPlugin, IStreamServerEndpointStringParser)
class LibvirtTLSParser:
    """
    Makes sense of C{libvirttls:PORT}, see L{tlsEndpoint}.
    """

    prefix = "libvirttls"

    def parseStreamServer(
        self, reactor: object, *args: object, **kwargs: object
    ) -> TLSServerEndpoint:
        """
        See L{IStreamServerEndpointStringParser}.

        @raise ValueError: when an argument is no good, or a file will not do.
        """
        unknown = sorted(set(kwargs) - _ARGUMENTS)
        if unknown:
            raise ValueError(
                f"there is no {unknown[0]}=; there are {', '.join(sorted(_ARGUMENTS))}"
            )
        return tlsEndpoint(reactor, *cast(tuple[str, ...], args), **cast(dict[str, str], kwargs))


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ProxyParser:
    """
    Makes an endpoint of C{proxy:ENDPOINT:from=NETWORK}, see
    L{kaproto.security.proxy.proxyEndpoint}.
    """

    prefix = "proxy"

    def parseStreamServer(
        self, reactor: object, *args: object, **kwargs: object
    ) -> IStreamServerEndpoint:
        """
        @raise ValueError: when an argument is missing or malformed.
        """
        from kaproto.security.proxy import proxyEndpoint

        return proxyEndpoint(
            reactor, cast(tuple[str, ...], args), cast(dict[str, str], dict(kwargs))
        )


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
    Make the endpoint that a string describes.  All parts are optional.

    @param port: the port to listen on.
    @param pki: the folder where libvirt's default names are looked for, by default C{/etc/pki}.
    @param ca: the authorities' certificates, see L{kaproto.security.pki.serverFiles}.
    @param cert: the server's certificate.
    @param key: the private key to it.
    @param crl: the authorities' lists of revoked certificates.
    @param verify: C{yes}, or C{no} to let in clients without certificates.
    @param interface: the IP address to listen on, by default all.
    @param backlog: how many connections may wait to be accepted.
    @raise ValueError: when an argument is no good, or a file will not do.
    """
    from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint

    from kaproto.security.pki import PKI_DIRECTORY, serverFiles
    from kaproto.security.tls import ServerContextFactory

    if verify not in _ANSWERS:
        raise ValueError(f"verify is yes or no, not {verify!r}")
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    wrapped = kind(reactor, _number("port", port), _number("backlog", backlog), interface)
    directory = PKI_DIRECTORY if pki is None else Path(pki)
    files = partial(serverFiles, directory, _path(ca), _path(cert), _path(key), _path(crl))
    return TLSServerEndpoint(
        wrapped,
        ServerContextFactory(files, verify=_ANSWERS[verify]),
        IReactorTime(reactor, None),
    )


_ARGUMENTS: Final = frozenset(signature(tlsEndpoint).parameters) - {"reactor"}


def transportOf(description: str) -> str:
    """
    @param description: a server endpoint string.
    @return: C{"tcp"}, C{"tls"} or C{"unix"}, as L{kaproto.peer.Peer} has them; C{"tcp"} as well
        for what is not known, since that is the least that can be expected of it.
    """
    name, _colon, rest = description.removeprefix("haproxy:").removeprefix("proxy:").partition(":")
    if name in ("libvirttls", "ssl", "tls"):
        return "tls"
    if name == "unix" or (name in ("systemd", "fd") and "domain=UNIX" in rest.split(":")):
        return "unix"
    return "tcp"


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{name} is a whole number, not {text!r}")
    return int(text)
