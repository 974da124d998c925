"""
libvirt's connection URIs: where to connect, and what to open there.

The grammar is RFC 3986's.  What libvirt adds to it: the transport after a plus sign in the
scheme, a semicolon that separates parameters as an ampersand does, and parameters that are for
the client and are not sent to the server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import attrs

__all__ = ["TCP_PORT", "TLS_PORT", "ConnectionURI", "isURI", "parseURI"]

TCP_PORT: Final = 16509
TLS_PORT: Final = 16514

_PORT_MAX: Final = 65535
_SOCKET_PATH_MAX: Final = 107
"""
The most bytes in the path of a UNIX socket (C{sun_path}, less its final NUL).
"""

# RFC 3986, appendix A; an address in brackets is looked at by whoever resolves it.
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

# What libvirt's client leaves unescaped in the name that it sends.
_SAFE_IN_PATH: Final = "/!$&'()*+,;=@"
_SAFE_IN_FRAGMENT: Final = _SAFE_IN_PATH + ":?[]"

_CLIENT_DRIVERS: Final = frozenset({"esx", "gsx", "hyperv", "parallels", "vpx"})
"""
Drivers that libvirt's client runs itself, and that talk to something else than libvirtd.
"""

_LOCAL_DRIVERS: Final = frozenset({"openvz", "test", "vmwarefusion", "vmwareplayer", "vmwarews"})
"""
Drivers that libvirt's client runs itself unless the URI has a host or a transport.
"""

_DRIVERS: Final = (
    _CLIENT_DRIVERS
    | _LOCAL_DRIVERS
    | {"bhyve", "ch", "interface", "lxc", "network", "nodedev", "nwfilter"}
    | {"qemu", "remote", "secret", "storage", "vbox", "vz", "xen"}
)

_SLASH_DRIVERS: Final = frozenset({"qemu", "vbox", "vz"})
"""
Drivers of which C{qemu://system} is taken for a misspelt C{qemu:///system}.
"""


@attrs.frozen
class ConnectionURI:
    """
    A URI taken apart.

    @ivar transport: C{"tcp"}, C{"tls"} or C{"unix"}.
    @ivar host: the host to connect to, a name or an address without brackets; empty for a UNIX
        socket.
    @ivar port: the TCP port; 0 for a UNIX socket.
    @ivar socket: the path of the UNIX socket; empty for the others.
    @ivar name: what to ask the server to open: the URI without transport, host and the client's
        own parameters.
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


def isURI(text: str) -> bool:
    """
    Tell a URI from a Twisted endpoint string.  C{qemu:/system} is a URI because libvirt has a
    driver of that name, C{tcp:host:16509} is none.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or re.fullmatch(r"[A-Za-z][A-Za-z0-9.+-]*", scheme) is None:
        return False
    return rest.startswith("//") or "+" in scheme or scheme in _DRIVERS


def parseURI(text: str, *, readOnly: bool = False) -> ConnectionURI:
    """
    Take a URI apart as libvirt's own client does.

    @param readOnly: choose the read-only one of libvirtd's UNIX sockets.
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
    host = _decoded(match["host"] or "")
    if ":" in host:
        host = host.removeprefix("[").removesuffix("]")
    path = _decoded(match["path"])
    transport = transport.lower() if plus else "tls" if host else "unix"
    _checkDriver(match["scheme"], host, path)
    _checkTransport(transport)
    own, others = _parameters(match["query"] or "")
    socket, port = "", 0
    if transport == "unix":
        if host:
            raise ValueError(f"a UNIX socket is on no host, so leave out {host!r}")
        socket = _socket(own, driver, path, plus, readOnly=readOnly)
    else:
        # Without a host libvirt's client takes no notice of a port.
        port = _port(match["port"] or "", transport) if host else _port("", transport)
        host = _host(host)
    if transport == "tls" and own.get("tls_priority", "NORMAL") != "NORMAL":
        raise ValueError("tls_priority= is in GnuTLS's language and TLS here is OpenSSL's")
    name = f"{driver}://{quote(path, _SAFE_IN_PATH, errors='surrogateescape')}" + others
    if match["fragment"] is not None:
        fragment = _decoded(match["fragment"])
        name += "#" + quote(fragment, _SAFE_IN_FRAGMENT, errors="surrogateescape")
    authentication, _dot, mechanism = own.get("auth", "").partition(".")
    return ConnectionURI(
        transport,
        host,
        port,
        socket,
        own.get("name", "" if driver == "remote" else name),
        _decoded(match["user"]) if match["user"] else None,
        authentication.lower() or None,
        mechanism.upper() or None,
        own.get("authfile"),
        own.get("pkipath"),
        own.get("no_verify") != "1",
    )


def _decoded(text: str) -> str:
    """
    Replace escapes; bytes that are not UTF-8 become lone surrogates, as in C{os.fsdecode}.
    """
    decoded = unquote(text, errors="surrogateescape")
    if "\0" in decoded:
        raise ValueError("%00 ends a C string, and libvirt ignores what follows")
    return decoded


def _checkDriver(scheme: str, host: str, path: str) -> None:
    if scheme in _CLIENT_DRIVERS or (scheme in _LOCAL_DRIVERS and not host):
        hint = "" if scheme in _CLIENT_DRIVERS else f"; {scheme}+unix:// connects to libvirtd"
        raise ValueError(
            f"libvirt's client runs the {scheme} driver itself, without libvirtd{hint}"
        )
    if path == "/embed":
        raise ValueError("libvirt's client runs an embedded driver itself")
    if scheme in _SLASH_DRIVERS and host in ("system", "session"):
        raise ValueError(f"{host!r} is a host here; {scheme}:///{host} has three slashes")


def _checkTransport(transport: str) -> None:
    if transport in ("ssh", "libssh", "libssh2"):
        raise ValueError(
            f"transport {transport!r} is not supported; forward the socket with "
            "ssh -NL /tmp/libvirt-sock:/run/libvirt/libvirt-sock HOST, and connect to "
            "qemu+unix:///system?socket=/tmp/libvirt-sock"
        )
    if transport not in ("tcp", "tls", "unix"):
        raise ValueError(f"transport {transport!r} is not one of tcp, tls, unix")


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
    Find the socket.  A program that is not root's, and opens C{/session} or libvirtd's test
    driver, has a libvirtd of its user's own.
    """
    if "socket" in own:
        return own["socket"]
    directory, suffix = "/run/libvirt", "-ro" if readOnly else ""
    if os.geteuid() != 0 and (path == "/session" or (driver == "test" and plus)):
        environment = os.environ
        cache = environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        directory, suffix = f"{environment.get('XDG_RUNTIME_DIR') or cache}/libvirt", ""
    legacy = f"{directory}/libvirt-sock{suffix}"
    # One libvirtd for all drivers, or a daemon for each.
    direct = f"{directory}/virt{driver}d-sock{suffix}"
    mode = own.get("mode", "auto")
    if mode == "auto":
        mode = "direct" if Path(direct).exists() else "legacy"
    return direct if mode == "direct" else legacy


def _parameters(query: str) -> tuple[Mapping[str, str], str]:
    """
    @return: the client's own parameters, by their names in small letters, and the query for the
        server: the others, if any.
    """
    own: dict[str, str] = {}
    others: list[str] = []
    for section in _sections(query):
        key, _equals, value = section.partition("=")
        if not key:
            continue
        key, value = _decoded(key), _decoded(value)
        if key.lower() in _OWN_PARAMETERS:
            own[key.lower()] = _OWN_PARAMETERS[key.lower()](key, value)
        else:
            # libvirt's client escapes only the value.
            others.append(f"{key}={quote(value, '', errors='surrogateescape')}")
    return own, "?" + "&".join(others) if others else ""


def _sections(query: str) -> list[str]:
    """
    Split at ampersands, and what follows the last of them at semicolons.

    C{a=1;b=2&c=3;d=4} is C{a=1;b=2}, C{c=3}, C{d=4}.
    """
    *sections, rest = query.split("&")
    return sections + rest.split(";")


def _text(_key: str, value: str) -> str:
    return value


def _path(key: str, value: str) -> str:
    size = len(os.fsencode(value))
    if not 1 <= size <= _SOCKET_PATH_MAX:
        raise ValueError(f"{key}= has {size} bytes; a UNIX socket's path has 1 to 107")
    return value


def _oneOf(words: tuple[str, ...], key: str, value: str) -> str:
    if value not in words:
        raise ValueError(f"{key}={value} is not one of {', '.join(words)}")
    return value


def _flag(key: str, value: str) -> str:
    """
    Read 0 or 1, written as the C library's C{strtol} would read it.

    To libvirt's client every other number means 1, which for C{no_verify} is the open side.
    """
    match = re.fullmatch(r"[ \t-\r]*\+?0*([01])", value)
    if match is None:
        raise ValueError(f"{key}={value} is neither 0 nor 1")
    return match[1]


def _authentication(key: str, value: str) -> str:
    if not value.lower().startswith("sasl.") and value.lower() not in ("sasl", "polkit"):
        raise ValueError(f"{key}={value} is not one of sasl, sasl.MECHANISM, polkit")
    return value


_OWN_PARAMETERS: Final[Mapping[str, Callable[[str, str], str]]] = {
    "auth": _authentication,
    "authfile": _text,
    "command": _text,
    "keyfile": _text,
    "known_hosts": _text,
    "known_hosts_verify": _text,
    "mode": partial(_oneOf, ("auto", "direct", "legacy")),
    "name": _text,
    "netcat": _text,
    "no_sanity": _flag,
    "no_tty": _flag,
    "no_verify": _flag,
    "pkipath": _text,
    "proxy": partial(_oneOf, ("auto", "native", "netcat")),
    "socket": _path,
    "sshauth": _text,
    "tls_priority": _text,
}
"""
The parameters that are for the client and not for the server, and how to check each.  libvirt
takes them with every transport, and in capitals too.
"""
