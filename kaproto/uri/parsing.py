"""
Parses libvirt URIs as libvirt's own client does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import attrs

from kaproto.uri.drivers import checkDriver, checkTransport, isURI
from kaproto.uri.parameters import decoded, parameters

__all__ = ["TCP_PORT", "TLS_PORT", "ConnectionURI", "parseURI"]

TCP_PORT: Final = 16509
TLS_PORT: Final = 16514

_PORT_MAX: Final = 65535


# RFC 3986, appendix A.  An address in brackets is checked when it is resolved.
_CHARACTER: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_PATH_CHARACTER: Final = rf"(?:{_CHARACTER}|[:@])"
_URI: Final = re.compile(
    rf"""
    (?P<scheme> [A-Za-z][A-Za-z0-9.+-]*) :
    (?://
        (?:(?P<user> (?:{_CHARACTER}|:)*) @)?
        (?P<host> \[[^\]/?\#]*\] | {_CHARACTER}*)
        (?: : (?P<port> [0-9]{{1,9}}))?
        (?= [/?\#] | \Z)
    | (?!//))
    (?P<path> (?:{_PATH_CHARACTER}|/)*)
    (?:\? (?P<query> (?:{_PATH_CHARACTER}|[/?])*))?
    (?:\# (?P<fragment> (?:{_PATH_CHARACTER}|[][/?])*))?
    """,
    re.VERBOSE,
)

# The characters that libvirt's client leaves unescaped in the name that it sends.
_SAFE_IN_PATH: Final = "/!$&'()*+,;=@"
_SAFE_IN_FRAGMENT: Final = _SAFE_IN_PATH + ":?[]"


@attrs.frozen
class ConnectionURI:
    """
    A parsed URI.

    @ivar transport: C{"tcp"}, C{"tls"} or C{"unix"}.
    @ivar host: the host to connect to, a name or an address without brackets; empty for a UNIX
        socket.
    @ivar port: the TCP port; 0 for a UNIX socket.
    @ivar socket: the path of the UNIX socket; empty for other transports.
    @ivar name: the name to open on the server: the URI without transport, host and the client's own
        parameters.
    @ivar user: the user name before the host, if any.
    @ivar authentication: C{"sasl"} or C{"polkit"}, if the server must offer it (C{auth=}).
    @ivar mechanism: the SASL mechanism to use (C{auth=sasl.MECHANISM}), in capitals.
    @ivar authfile: the path of the file with the user's name and password.
    @ivar pkipath: the folder with the TLS files, C{None} for libvirt's default places.
    @ivar verify: whether to check the server's certificate; C{False} with C{no_verify=1}.
    """

    transport: str
    host: str
    port: int
    socket: str
    name: str
    user: str | None = None
    authentication: str | None = None
    mechanism: str | None = None
    authfile: str | None = None
    pkipath: str | None = None
    verify: bool = True


def parseURI(text: str, *, readOnly: bool = False) -> ConnectionURI:
    """
    Parse a URI as libvirt's own client does.

    @param readOnly: whether to choose libvirtd's read-only UNIX socket.
    @raise ValueError: when it cannot be used; the message quotes it and names the part at fault.
    """
    try:
        return _parse(text, readOnly=readOnly)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _parse(text: str, *, readOnly: bool) -> ConnectionURI:
    match = _URI.fullmatch(text)
    if match is None or not isURI(text):
        raise ValueError(
            "not a URI such as qemu+tcp://host/system or qemu:///system; spaces, quotes and "
            "letters beyond ASCII must be escaped (%20)"
        )
    driver, plus, transport = match["scheme"].partition("+")
    host = decoded(match["host"] or "")
    if ":" in host:
        host = host.removeprefix("[").removesuffix("]")
    path = decoded(match["path"])
    transport = transport.lower() if plus else "tls" if host else "unix"
    checkDriver(match["scheme"], host, path)
    checkTransport(transport)
    own, others = parameters(match["query"] or "")
    socket, port = "", 0
    if transport == "unix":
        if host:
            raise ValueError(f"a UNIX socket has no host; leave out {host!r}")
        socket = _socket(own, driver, path, plus, readOnly=readOnly)
    else:
        # Without a host, libvirt's client ignores a port.
        port = _port(match["port"] or "", transport) if host else _port("", transport)
        host = _host(host)
    if transport == "tls" and own.get("tls_priority", "NORMAL") != "NORMAL":
        raise ValueError("tls_priority= is for GnuTLS, and kaproto uses OpenSSL; leave it out")
    name = f"{driver}://{quote(path, _SAFE_IN_PATH, errors='surrogateescape')}" + others
    if match["fragment"] is not None:
        fragment = decoded(match["fragment"])
        name += "#" + quote(fragment, _SAFE_IN_FRAGMENT, errors="surrogateescape")
    authentication, _dot, mechanism = own.get("auth", "").partition(".")
    return ConnectionURI(
        transport,
        host,
        port,
        socket,
        own.get("name", "" if driver == "remote" else name),
        decoded(match["user"]) if match["user"] else None,
        authentication.lower() or None,
        mechanism.upper() or None,
        own.get("authfile"),
        own.get("pkipath"),
        own.get("no_verify") != "1",
    )


def _host(host: str) -> str:
    if not host.isascii():
        raise ValueError(f"host {host!r} must be written in ASCII, as xn--...")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{host!r} is not a host name") from None
    return host or "localhost"


def _port(digits: str, transport: str) -> int:
    port = int(digits or "0") or (TLS_PORT if transport == "tls" else TCP_PORT)
    if port > _PORT_MAX:
        raise ValueError(f"port {port} is above {_PORT_MAX}")
    return port


def _socket(own: Mapping[str, str], driver: str, path: str, plus: str, *, readOnly: bool) -> str:
    """
    Find the path of the socket.  For users other than root, their own libvirtd serves C{/session}
    and the test driver.
    """
    if "socket" in own:
        return own["socket"]
    directory, suffix = "/run/libvirt", "-ro" if readOnly else ""
    if os.geteuid() != 0 and (path == "/session" or (driver == "test" and plus)):
        environment = os.environ
        cache = environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        directory, suffix = f"{environment.get('XDG_RUNTIME_DIR') or cache}/libvirt", ""
    legacy = f"{directory}/libvirt-sock{suffix}"
    # libvirtd serves all drivers on the socket above; the daemon of one driver has this one.
    direct = f"{directory}/virt{driver}d-sock{suffix}"
    mode = own.get("mode", "auto")
    if mode == "auto":
        mode = "direct" if Path(direct).exists() else "legacy"
    return direct if mode == "direct" else legacy
