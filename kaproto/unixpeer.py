"""
Who is at the other end of a UNIX socket.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from kaproto.peer import UnixCredentials

__all__ = ["unixCredentials"]

_FORM: Final = struct.Struct("iII")


def unixCredentials(transport: object) -> UnixCredentials | None:
    """
    Ask the kernel who connected (C{SO_PEERCRED}).

    @param transport: as Twisted has them.
    @return: C{None} where there is no UNIX socket, or the system does not say.
    """
    getHandle = getattr(transport, "getHandle", None)
    handle = None if getHandle is None else getHandle()
    if not isinstance(handle, socket.socket) or handle.family != socket.AF_UNIX:
        return None
    try:
        data = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _FORM.size)
    except OSError:
        return None
    return UnixCredentials(*_FORM.unpack(data))
