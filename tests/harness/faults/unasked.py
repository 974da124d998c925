"""
A client that does not ask for keepalive: run as a program.

Usage: C{python unasked.py HOST PORT idle|download|stuck}.  It opens, prints C{open} with its local
port, and then does nothing, or calls and reads without end, or calls without end and reads nothing.
"""

import socket
import struct
import sys
import time

__all__ = ["main"]

_REMOTE = 0x20008086
_OPEN = 1
_CAPABILITIES = 7
_AT_ONCE = 50


def _call(procedure: int, payload: bytes = b"") -> bytes:
    return struct.pack(">7I", 28 + len(payload), _REMOTE, 1, procedure, 0, 0, 0) + payload


def main() -> None:
    """
    Run the client.
    """
    host, port, what = sys.argv[1:]
    link = socket.create_connection((host, int(port)))
    link.sendall(_call(_OPEN, struct.pack(">5I", 1, 0, 0, 0, 0)[:12]))
    length = struct.unpack(">I", link.recv(4, socket.MSG_WAITALL))[0]
    link.recv(length - 4, socket.MSG_WAITALL)
    print(f"open {link.getsockname()[1]}", flush=True)
    if what == "download":
        link.sendall(_call(_CAPABILITIES) * _AT_ONCE)
        while True:
            length = struct.unpack(">I", link.recv(4, socket.MSG_WAITALL))[0]
            link.recv(length - 4, socket.MSG_WAITALL)
            link.sendall(_call(_CAPABILITIES))
    elif what == "stuck":
        while True:
            link.sendall(_call(_CAPABILITIES) * _AT_ONCE)
    time.sleep(1000)


if __name__ == "__main__":
    main()
