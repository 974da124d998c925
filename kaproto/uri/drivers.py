"""
libvirt's drivers and transports, and which of them connect to a libvirtd.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["checkDriver", "checkName", "checkTransport", "isURI"]

_CLIENT_DRIVERS: Final = frozenset({"esx", "gsx", "hyperv", "parallels", "vpx"})
"""
Drivers that libvirt's client runs itself, and that never talk to libvirtd.
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

_PATHS: Final[Mapping[str, Sequence[str]]] = {
    **dict.fromkeys(("bhyve", "ch", "qemu", "vbox", "vz"), ("/system", "/session")),
    **dict.fromkeys(
        ("interface", "network", "nodedev", "secret", "storage"), ("/system", "/session")
    ),
    **dict.fromkeys(("lxc", "nwfilter", "openvz", "xen"), ("/system",)),
    **dict.fromkeys(("vmwarefusion", "vmwareplayer", "vmwarews"), ("/session",)),
}
"""
The paths that each driver can open, from the C{virDrvConnectOpen} of each.  C{test} is missing: it
opens any file.
"""

_SLASH_DRIVERS: Final = frozenset({"qemu", "vbox", "vz"})
"""
Drivers for which two slashes, as in C{qemu://system}, count as a typo.
"""


def isURI(text: str) -> bool:
    """
    Distinguish a URI from a Twisted endpoint string.

    C{qemu:/system} is a URI, because libvirt has a driver of that name; C{tcp:host:16509} is not.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or re.fullmatch(r"[A-Za-z][A-Za-z0-9.+-]*", scheme) is None:
        return False
    return rest.startswith("//") or "+" in scheme or scheme in _DRIVERS


def checkDriver(scheme: str, host: str, path: str) -> None:
    """
    @param scheme: the whole scheme, with the transport.
    @raise ValueError: when this URI does not connect to a libvirtd.
    """
    if scheme in _CLIENT_DRIVERS or (scheme in _LOCAL_DRIVERS and not host):
        hint = "" if scheme in _CLIENT_DRIVERS else f"; {scheme}+unix:// connects to libvirtd"
        raise ValueError(
            f"libvirt's client runs the {scheme} driver itself, without libvirtd{hint}"
        )
    if path == "/embed":
        raise ValueError("libvirt's client runs an embedded driver itself")
    if scheme in _SLASH_DRIVERS and host in ("system", "session"):
        raise ValueError(f"{host!r} is a host here; {scheme}:///{host} has three slashes")


def checkName(driver: str, path: str) -> None:
    """
    Check the name that a libvirtd is asked to open.  The next version of libvirt may have new
    drivers, so an unknown driver is refused only if it looks like a misspelt one.  The path may be
    missing.

    @param driver: the scheme without the transport.
    @raise ValueError: when no libvirtd can open it.
    """
    close = difflib.get_close_matches(driver.lower(), _DRIVERS, 1, 0.7)
    if close and close[0] != driver.lower():
        raise ValueError(f"libvirt has no driver {driver!r}; is {close[0]} meant?")
    paths = _PATHS.get(driver.lower(), ())
    if paths and path not in ("", "/", *paths):
        offered = " or ".join(f"{driver}://{each}" for each in paths)
        raise ValueError(f"libvirt's {driver} driver has no {path}; it opens {offered}")


def checkTransport(transport: str) -> None:
    """
    @raise ValueError: when kaproto does not have this transport.
    """
    if transport in ("ssh", "libssh", "libssh2"):
        raise ValueError(
            f"transport {transport!r} is not supported; forward the socket with "
            "ssh -NL /tmp/libvirt-sock:/run/libvirt/libvirt-sock HOST, and connect to "
            "qemu+unix:///system?socket=/tmp/libvirt-sock"
        )
    if transport not in ("tcp", "tls", "unix"):
        raise ValueError(f"transport {transport!r} is not one of tcp, tls, unix")
