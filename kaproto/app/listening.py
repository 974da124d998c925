"""
Describes listening addresses for the log and error messages: their names, who can reach them, and
remedies when listening fails.
"""

from __future__ import annotations

import errno
import stat
from ipaddress import ip_address
from pathlib import Path
from socket import gaierror
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress

__all__ = ["explain", "isExposed", "isOpenToAll", "show"]

_IN_USE: Final = "choose another port or path, or stop what is listening there"
_FOLDER: Final = "a socket needs a folder that exists"
_ADDRESS: Final = "interface= takes an address of this machine, such as 127.0.0.1"

_CURES: Final = {
    errno.EADDRINUSE: _IN_USE,
    errno.ENOENT: _FOLDER,
    errno.ENOTDIR: _FOLDER,
    errno.EADDRNOTAVAIL: _ADDRESS,
    errno.EINVAL: _ADDRESS,
    errno.EPERM: "group= takes a group that this process's user is a member of, unless it is root",
    errno.EMFILE: (
        "with --workers each worker has a socket per listener: raise the limit of open files "
        "(LimitNOFILE= in the unit, or ulimit -n), or start fewer workers"
    ),
    errno.EACCES: (
        "ports below 1024, and some folders, need root: start as root (twistd --uid changes the "
        "user afterwards), have systemd listen (systemd:), or choose another port or path"
    ),
}


def explain(problem: BaseException | None) -> str:
    """
    @param problem: the error raised when listening failed.
    @return: the reason, and a remedy if one is known.
    """
    cause = problem.socketError if isinstance(problem, CannotListenError) else problem
    reason = str(getattr(cause, "strerror", None) or cause)
    match cause:
        case gaierror():
            cure = _ADDRESS
        case OSError(errno=number) if number in _CURES:
            cure = _CURES[number]
        case OverflowError():
            cure = "ports are from 0 to 65535"
        case str() if "lock" in cause:
            cure = _IN_USE
        case OSError() if "path too long" in reason:
            cure = "choose one of at most 107 bytes"
        case _:
            return reason
    return f"{reason}; {cure}"


def isExposed(address: IAddress) -> bool:
    """
    @return: whether other machines may be able to connect.
    """
    return (
        isinstance(address, IPv4Address | IPv6Address) and not ip_address(address.host).is_loopback
    )


def isOpenToAll(address: UNIXAddress) -> bool:
    """
    @return: whether every user of this machine may connect to a UNIX socket.
    """
    try:
        return bool(Path(show(address).removeprefix("unix ")).stat().st_mode & stat.S_IWOTH)
    except (OSError, ValueError):
        # A socket without a file has no mode.
        return True


def show(address: IAddress) -> str:
    """
    @return: the name of the address in the log.
    """
    match address:
        case IPv4Address(host=host, port=port):
            return f"tcp {host}:{port}"
        case IPv6Address(host=host, port=port):
            return f"tcp [{host}]:{port}"
        case UNIXAddress(name=name):
            return f"unix {name.decode() if isinstance(name, bytes) else name}"
        case _:
            return str(address)
