"""
A server that accepts every open, and records the address that the client connected to.

It runs in threads of the client's process, so that what it records belongs to the URI being tried.
It uses only the standard library, since the Python with libvirt's bindings does not have kaproto.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterable

__all__ = ["Recorder"]

_OPEN, _CLOSE, _AUTH_LIST = 1, 2, 66
_HEADER = struct.Struct(">6I")


class Recorder:
    """
    Listens on many addresses.

    @ivar opened: for each C{CONNECT_OPEN} the transport, the address the client connected to, the
        name and the read-only flag.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        """
        @param context: for clients that start a TLS handshake.
        """
        self.opened: list[tuple[str, str, str, int]] = []
        self._context = context

    def listenTCP(self, ports: Iterable[int]) -> None:
        """
        Listen on ports of all addresses.
        """
        for port in ports:
            for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                listener = socket.socket(family)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address, port))
                self._serve(listener)

    def listenUNIX(self, paths: Iterable[str]) -> None:
        """
        Listen on UNIX sockets.
        """
        for path in paths:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            self._serve(listener)

    def _serve(self, listener: socket.socket) -> None:
        listener.listen(10)
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _address = listener.accept()
            threading.Thread(target=self._talk, args=[connection], daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        name = connection.getsockname()
        transport, place = "unix", name
        if not isinstance(name, str):
            transport, place = "tcp", f"{name[0]} {name[1]}"
        try:
            if connection.recv(1, socket.MSG_PEEK) == b"\x16":
                transport = "tls"
                connection = self._context.wrap_socket(connection, server_side=True)
                connection.sendall(b"\1")
            while True:
                (length,) = struct.unpack(">I", _exactly(connection, 4))
                if not 28 <= length <= 65536:
                    break
                message = _exactly(connection, length - 4)
                if _HEADER.unpack_from(message)[2] == _OPEN:
                    self.opened.append((transport, place, *_openArguments(message[24:])))
                connection.sendall(_reply(message))
        except (OSError, EOFError):
            pass
        finally:
            connection.close()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _openArguments(payload: bytes) -> tuple[str, int]:
    present, length = struct.unpack_from(">II", payload)
    assert present
    (flags,) = struct.unpack_from(">I", payload, 8 + length + -length % 4)
    # The other flags only concern the client.
    return payload[8 : 8 + length].decode("utf-8", "surrogateescape"), flags & 1


def _reply(message: bytes) -> bytes:
    program, version, procedure, _kind, serial, _status = _HEADER.unpack_from(message)
    payload, failed = b"", 0
    if procedure == _AUTH_LIST:
        payload = struct.pack(">II", 1, 0)
    elif procedure not in (_OPEN, _CLOSE):
        text = b"unknown procedure: %d" % procedure
        payload = struct.pack(">IIII", 39, 7, 1, len(text)) + text + bytes(-len(text) % 4)
        payload += struct.pack(">IIIIIiiI", 2, 0, 0, 0, 0, -1, -1, 0)
        failed = 1
    header = _HEADER.pack(program, version, procedure, 1, serial, failed)
    return struct.pack(">I", 4 + len(header) + len(payload)) + header + payload
