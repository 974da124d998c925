"""
Parses the endpoint string C{proxy:}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint

from kaproto.endpointstring import LayeredEndpoint, innerEndpoint, takeKeywords
from kaproto.peer import parseNetwork
from kaproto.security.proxy import ProxyEndpoint, Trust
from kaproto.security.terminated import DN_FIELD, TerminatedTLS

__all__ = ["serverEndpoint"]


def serverEndpoint(
    reactor: object, arguments: Sequence[str], keywords: dict[str, str]
) -> IStreamServerEndpoint:
    """
    Make the endpoint that a string describes.

    @param arguments: the inner endpoint's name and its positional arguments.
    @param keywords: the inner endpoint's keywords, and those of C{proxy:}.  C{from} has networks
        for TCP, C{uid} has user ids for UNIX sockets, both separated by commas.
        C{tls=terminated} means that the balancer terminates TLS; then C{certificate} is C{required}
        or C{optional}, and C{dn} is the type of the private field with the distinguished name.
    @raise ValueError: when a keyword is malformed or missing, or the inner endpoint cannot be used
        with PROXY headers.
    """
    own = takeKeywords(keywords, _KEYWORDS)
    name = arguments[0] if arguments else ""
    if name not in _INNER:
        raise ValueError(
            f"proxy: goes before one of {', '.join(_INNER)}, as in "
            f"proxy:tcp:16509:from=192.0.2.0/24; {name!r} is none of them"
        )
    terminated = _parseTerminated(own, name)
    trust = _parseTrust(own, unix=name == "unix" or keywords.get("domain") == "UNIX")
    inner: IStreamServerEndpoint = innerEndpoint(
        serverFromString, reactor, "proxy", _KEYWORDS, arguments, keywords
    )
    clock = IReactorTime(reactor)

    def wrap(endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
        return ProxyEndpoint(endpoint, trust, clock, terminated)

    return inner.beneath(wrap) if isinstance(inner, LayeredEndpoint) else wrap(inner)


_KEYWORDS: Final = ("from", "uid", "tls", "certificate", "dn")
_INNER: Final = ("tcp", "tcp4", "tcp6", "unix", "systemd", "fd", "libvirttls", "keepalive")


def _parseTrust(keywords: Mapping[str, str], *, unix: bool) -> Trust:
    if unix:
        if "from" in keywords:
            raise ValueError(
                "from= is for TCP; on a UNIX socket mode= says who may connect, and uid= whose "
                "headers are believed"
            )
        return Trust(users=_each("uid", keywords.get("uid"), _uid))
    if "uid" in keywords:
        raise ValueError("uid= is for UNIX sockets; from= says which networks are believed")
    if "from" not in keywords:
        raise ValueError(
            "proxy: needs from=NETWORK[,NETWORK], the addresses that the load balancer connects "
            "from, such as from=192.0.2.10 or from=192.0.2.0/24"
        )
    return Trust(networks=_each("from", keywords["from"], parseNetwork))


def _parseTerminated(keywords: Mapping[str, str], inner: str) -> TerminatedTLS | None:
    tls = keywords.get("tls")
    if tls is None:
        for name in ("certificate", "dn"):
            if name in keywords:
                raise ValueError(f"{name}= goes with tls=terminated")
        return None
    if tls != "terminated":
        raise ValueError(f"tls= takes only terminated, for a balancer that ends TLS, not {tls!r}")
    if inner == "libvirttls":
        raise ValueError("TLS ends at the balancer or here: leave tls= out, or use proxy:tcp:")
    certificate = keywords.get("certificate", "required")
    if certificate not in ("required", "optional"):
        raise ValueError(f"certificate= is required or optional, not {certificate!r}")
    text = keywords.get("dn", f"{DN_FIELD:#x}")
    try:
        return TerminatedTLS(certificate == "required", int(text, 0))
    except ValueError as error:
        raise ValueError(f"dn={text}: {error}") from error


_T = TypeVar("_T")


def _each(name: str, text: str | None, parse: Callable[[str], _T]) -> tuple[_T, ...]:
    if text is None:
        return ()
    try:
        return tuple(parse(each) for each in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"{name}={text}: {error} (in an IPv6 address write \\: for each colon)"
        ) from error


def _uid(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"a user id is a whole number, not {text!r}")
    return int(text)
