"""
Asks the kernel about one connection (C{sock_diag(7)}), at a cost that does not grow with the number
of connections, as that of reading C{/proc/net/tcp} does.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

__all__ = ["isEstablished"]

_NETLINK_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_REQUEST: Final = 1
_ESTABLISHED: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
_QUERY: Final = struct.Struct("=BBBxI2s2s16s16sI8s")
_LOOPBACK: Final = socket.inet_aton("127.0.0.1")
_ANY_STATE: Final = 0xFFFFFFFF
_ANY_COOKIE: Final = b"\xff" * 8


def isEstablished(server: int, client: int) -> bool:
    """
    @param server: the server's port on the loopback address.
    @param client: the client's port.
    @return: whether the server's end of their connection is open.
    """
    ports = (port.to_bytes(2, "big") for port in (server, client))
    query = _QUERY.pack(
        socket.AF_INET,
        socket.IPPROTO_TCP,
        0,
        _ANY_STATE,
        *ports,
        _LOOPBACK,
        _LOOPBACK,
        0,
        _ANY_COOKIE,
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(_HEADER.pack(_HEADER.size + len(query), _BY_FAMILY, _REQUEST, 0, 0) + query)
        answer = kernel.recv(4096)
    _size, kind, *_rest = _HEADER.unpack_from(answer)
    # Without a connection the kernel returns the listening socket, which has another state.
    return kind == _BY_FAMILY and answer[_HEADER.size + 1] == _ESTABLISHED
