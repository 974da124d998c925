"""
Makes server endpoints from endpoint strings: adds defaults, and suggests corrections of invalid
strings.
"""

from __future__ import annotations

import contextlib
import grp
import os
import re
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import attrs
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from kaproto.app.suggestions import LAYERS, quoteAddress, suggestServer
from kaproto.app.unixsockets import MODE, UNIXSocketReactor
from kaproto.endpointstring import quoted, whyNotMade
from kaproto.security.admission import AccessControl
from kaproto.security.certificates import PKIError
from kaproto.security.endpoints import TLSServerEndpoint, whyNotServed
from kaproto.security.proxy import ProxyEndpoint
from kaproto.uri import TCP_PORT, isURI

__all__ = [
    "DEFAULT_LISTEN",
    "Listener",
    "defaultSocket",
    "innermost",
    "serverEndpoint",
    "takeReadOnly",
    "unixListener",
    "virshCommand",
]

_BACKLOG: Final = 1024

DEFAULT_LISTEN: Final = f"tcp:{TCP_PORT}:interface=127.0.0.1"
"""
The default listener of the embedded host: libvirt's TCP port, on the loopback interface.
"""

_OWN: Final = {"keepalive", "libvirttls", "proxy", "tcpkeepalive"}
# In an endpoint string, a backslash quotes a colon within an argument.
_GROUP: Final = re.compile(r"(?<!\\):group=((?:\\.|[^:\\])*)")
_READ_ONLY: Final = re.compile(r"(?<!\\):readonly=((?:\\.|[^:\\])*)")


@attrs.frozen
class Listener:
    """
    A listener for clients.

    @ivar description: the endpoint string that the administrator wrote.
    @ivar endpoint: the endpoint.
    @ivar accessControl: decides which clients may connect.
    @ivar folder: the folder to create for the socket; C{None} to create none.
    """

    description: str
    endpoint: IStreamServerEndpoint
    accessControl: AccessControl
    folder: Path | None = None

    @property
    def wantsCertificates(self) -> bool:
        """
        Whether clients need a certificate.
        """
        endpoint = self.endpoint
        if isinstance(endpoint, ProxyEndpoint) and endpoint.terminated is not None:
            return endpoint.terminated.required
        return isinstance(endpoint, TLSServerEndpoint) and endpoint.contextFactory.verify

    @property
    def believesEverybodyHere(self) -> bool:
        """
        Whether PROXY headers are accepted from any program on this machine, which could thus
        impersonate any client.
        """
        proxy = self.endpoint
        if isinstance(proxy, TLSServerEndpoint):
            proxy = proxy.wrapped
        return isinstance(proxy, ProxyEndpoint) and proxy.trust.includesLoopback

    @property
    def authenticates(self) -> bool:
        """
        Whether clients must authenticate, by a login or a certificate.
        """
        return self.accessControl.portal is not None or self.wantsCertificates


def innermost(description: str) -> str:
    """
    @param description: a server endpoint string.
    @return: the string without prefixes of wrapping endpoints, such as C{proxy:}.
    """
    kind, colon, rest = description.partition(":")
    return innermost(rest) if colon and kind in LAYERS else description


def serverEndpoint(reactor: object, description: str) -> IStreamServerEndpoint:
    """
    Make the endpoint that a string describes.

    The strings are Twisted's, with other defaults.  TCP and UNIX sockets have a backlog of 1024,
    since all clients reconnect at once after a restart.  UNIX sockets have the mode 660, take the
    argument C{group=}, and have no lock file; see L{kaproto.app.unixsockets}.

    @raise ValueError: when the string is invalid; the message suggests a correction, if there is
        one.
    """
    _check(description)
    kind, colon, rest = innermost(description).partition(":")
    text, group = description, None
    if kind == "unix":
        text, group = _takeGroup(description)
        if ":mode=" not in rest:
            text += f":mode={MODE:o}"
    if kind in ("tcp", "tcp6", "unix") and colon and ":backlog=" not in rest:
        text += f":backlog={_BACKLOG}"
    try:
        listens = UNIXSocketReactor(reactor, group) if kind in ("unix", "systemd") else reactor
        endpoint = serverFromString(listens, text)
    except PKIError:
        raise
    except Exception as error:
        raise ValueError(_explain(kind, description, error)) from error
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        _checkDomain(endpoint)
    return IStreamServerEndpoint(endpoint)


def takeReadOnly(description: str) -> tuple[str, bool]:
    """
    @param description: a server endpoint string, with or without C{readonly=yes} or
        C{readonly=no}.
    @return: the string without that argument, and whether all connections are read-only.
    @raise ValueError: when the argument is neither yes nor no.
    """
    match = _READ_ONLY.search(description)
    if match is None:
        return description, False
    if match[1] not in ("yes", "no"):
        raise ValueError(f"readonly is yes or no, not {match[1]!r}")
    return description[: match.start()] + description[match.end() :], match[1] == "yes"


def _check(description: str) -> None:
    """
    @raise ValueError: when the endpoint cannot serve libvirt's clients, or an argument is invalid.
    """
    problem = whyNotServed(description)
    if problem is not None:
        raise ValueError(problem)
    meant = quoteAddress(description)
    if meant != description:
        raise ValueError(f"write \\: for each colon in an address: {_flag(meant)}")
    kind, colon, rest = innermost(description).partition(":")
    if kind == "unix" and colon and not rest.partition(":")[0]:
        raise ValueError("it takes a path, such as unix:/run/kaserver/libvirt-sock")
    if kind == "unix" and ":lockfile=" in rest:
        raise ValueError(
            "leave lockfile= out: kaserver needs no lock file to detect the socket of a server "
            "that was killed"
        )
    # Twisted would accept a mode of -1, and let every user connect.
    for name, (pattern, expected) in _NUMBERS.items():
        for value in re.findall(rf"(?<!\\):{name}=([^:]*)", rest):
            if not re.fullmatch(pattern, value):
                raise ValueError(f"{name}= is {expected}, not {value!r}")


_NO_GROUP: Final = 2**32 - 1
"""
The first invalid group id: C{chown} takes it as -1, and leaves the group unchanged.
"""

_NUMBERS: Final = {
    "mode": ("0?[0-7]{3}", "three octal digits, such as 660"),
    "backlog": ("[1-9][0-9]{0,8}", "a whole number from 1 up"),
}


def _takeGroup(description: str) -> tuple[str, int | None]:
    match = _GROUP.search(description)
    if match is None:
        return description, None
    name = re.sub(r"\\(.)", r"\1", match[1])
    group = int(name) if name.isdecimal() else _groupNamed(name)
    if group is None or group >= _NO_GROUP:
        raise ValueError(f"there is no group {name!r} on this machine")
    return description[: match.start()] + description[match.end() :], group


def _groupNamed(name: str) -> int | None:
    with contextlib.suppress(KeyError):
        return grp.getgrnam(name).gr_gid
    return None


def _explain(kind: str, description: str, error: Exception) -> str:
    if kind == "systemd" and isinstance(error, KeyError):
        return (
            f"{whyNotMade(error)}; the name is FileDescriptorName= in the socket unit, and outside "
            "systemd there is none"
        )
    meant = suggestServer(description)
    if meant is not None:
        return f"is {_flag(meant)} meant?"
    if isinstance(error, ValueError) and {kind, description.partition(":")[0]} & _OWN:
        return str(error)
    return (
        f"{whyNotMade(error)}; it takes a Twisted server endpoint, such as "
        f"{DEFAULT_LISTEN} or unix:/run/kaserver/libvirt-sock"
    )


def _flag(description: str) -> str:
    return shlex.quote(f"--listen={description}")


def _checkDomain(endpoint: AdoptedStreamServerEndpoint) -> None:
    """
    @raise ValueError: when the socket passed by systemd is of another address family.
    """
    with socket.socket(fileno=os.dup(endpoint.fileno)) as passed:
        family = passed.family
    if family != endpoint.addressFamily:
        raise ValueError(
            f"the socket that systemd has passed is of another address family: write "
            f"domain={family.name.removeprefix('AF_')}"
        )


def defaultSocket(environment: Mapping[str, str], *, root: bool) -> Path | None:
    """
    @param environment: the environment, with systemd's C{RUNTIME_DIRECTORY} or with
        C{XDG_RUNTIME_DIR}.
    @param root: whether this process runs as root.
    @return: the default path of a gateway's socket; C{None} if there is no folder for it.
    """
    given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    own = environment.get("XDG_RUNTIME_DIR", "")
    if given:
        folder = Path(given)
    elif root:
        folder = Path("/run/kaserver")
    elif own:
        folder = Path(own) / "kaserver"
    else:
        return None
    return folder / "libvirt-sock"


def unixListener(path: Path) -> str:
    """
    @return: the endpoint string of a UNIX socket that only its owner and its group can connect to.
    """
    return f"unix:{quoted(str(path))}:mode={MODE:o}"


def virshCommand(path: str, upstream: str | None) -> str:
    """
    @param path: the path of the UNIX socket that kaserver listens on.
    @param upstream: the value of C{--upstream}, if kaserver is a gateway.
    @return: the virsh command that connects to it.
    """
    if upstream is None:
        driver, name = "test", "/default"
    elif isURI(upstream):
        parts = urlsplit(upstream)
        driver, name = parts.scheme.partition("+")[0], parts.path
    else:
        driver, name = "qemu", "/session" if "/run/user/" in upstream else "/system"
    return f"virsh -c {shlex.quote(f'{driver}+unix://{name}?socket={quote(path)}')}"
