"""
libvirt's connection URIs: where to connect, and what to open there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import attrs

__all__ = ["TCP_PORT", "TLS_PORT", "ConnectionURI", "isURI", "parseURI"]

TCP_PORT: Final = 16509
TLS_PORT: Final = 16514

_URI = re.compile(r"[A-Za-z][A-Za-z0-9]*(\+[A-Za-z0-9]+)?://")
_OWN_PARAMETERS: Final = frozenset(
    {
        "auth",
        "authfile",
        "mode",
        "name",
        "no_sanity",
        "no_verify",
        "pkipath",
        "socket",
        "tls_priority",
    }
)


@attrs.frozen
class ConnectionURI:
    """
    A URI taken apart.

    @ivar transport: C{"tcp"}, C{"tls"} or C{"unix"}.
    @ivar host: whom to connect to; empty for a UNIX socket.
    @ivar port: the TCP port; 0 for a UNIX socket.
    @ivar socket: the path of the UNIX socket; empty for the others.
    @ivar name: what to ask the server to open: the URI without transport and host.
    @ivar user: the name before the host, if any.
    @ivar parameters: those that are meant for the client.
    """

    transport: str
    host: str
    port: int
    socket: str
    name: str
    user: str | None
    parameters: Mapping[str, str]


def isURI(text: str) -> bool:
    """
    @return: whether this is a URI, and not a Twisted endpoint string.
    """
    return _URI.match(text) is not None


def parseURI(text: str, *, readOnly: bool = False) -> ConnectionURI:
    """
    Take a URI apart as libvirt's own client does.

    @param readOnly: choose the read-only one of libvirtd's UNIX sockets.
    @raise ValueError: when it cannot be used; the message says what can.
    """
    if not isURI(text):
        raise ValueError(f"{text!r} is not a URI like qemu+tcp://host/system or qemu:///system")
    parts, port = _split(text)
    driver, plus, transport = parts.scheme.partition("+")
    if not plus:
        transport = "tls" if parts.hostname else "unix"
    if transport not in ("tcp", "tls", "unix"):
        raise ValueError(f"{text!r}: transport {transport!r} is not one of tcp, tls, unix")
    given = parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True)
    own = {key: value for key, value in given if key in _OWN_PARAMETERS}
    host, socket = parts.hostname or "", ""
    if transport == "unix":
        if host:
            raise ValueError(f"{text!r}: a UNIX socket has no host; use socket= for its path")
        socket = own.get("socket") or _defaultSocket(parts.path, readOnly=readOnly)
    else:
        if not host:
            raise ValueError(f"{text!r}: there is no host in it to connect to")
        port = port or (TLS_PORT if transport == "tls" else TCP_PORT)
    if "name" in own:
        name = own["name"]
    elif driver == "remote":
        name = ""
    else:
        rest = [pair for pair in given if pair[0] not in _OWN_PARAMETERS]
        name = f"{driver}://{parts.path}" + (f"?{urlencode(rest, quote_via=quote)}" if rest else "")
    user = None if parts.username is None else unquote(parts.username)
    return ConnectionURI(transport, host, port, socket, name, user, own)


def _split(text: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(text)
        port = parts.port or 0
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error
    return parts, port


def _defaultSocket(path: str, *, readOnly: bool) -> str:
    if path == "/session" and os.geteuid() != 0:
        runtime = os.environ.get("XDG_RUNTIME_DIR") or Path("~/.cache").expanduser()
        return f"{runtime}/libvirt/libvirt-sock"
    return "/run/libvirt/libvirt-sock" + ("-ro" if readOnly else "")
