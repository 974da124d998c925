"""
An extra client that calls all the time: the delay of each reply shows how long the server's loop
was busy with other work.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

from benchmarks.load import HANDSHAKE, HEADER, KEEPALIVE, PONG, call

__all__ = ["Probe"]

HOSTNAME = 59
PERIOD = 0.005
PATIENCE = 60.0


class Probe:
    """
    A connection that asks for the host name every few milliseconds, from a separate thread.
    """

    def __init__(self, port: int) -> None:
        """
        Open the connection.

        @param port: the server's port, on the loopback address.
        """
        self._connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for message in HANDSHAKE.values():
            self._ask(message)
        self._delays: list[float] = []
        self._problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """
        Start calling.

        @return: this object.
        """
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """
        Stop calling, and close the connection.

        @param kind: not used.
        @param error: not used.
        @param where: not used.
        """
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def take(self) -> list[float]:
        """
        Take the delays measured since the previous call of this method.

        @return: seconds, in ascending order.
        @raise RuntimeError: if the connection was lost.
        """
        if self._problem:
            raise RuntimeError(f"the probe's connection was lost: {self._problem}")
        delays, self._delays = self._delays, []
        return sorted(delays)

    def _run(self) -> None:
        try:
            while not self._stop.wait(PERIOD):
                begun = time.monotonic()
                self._ask(call(HOSTNAME, 3))
                self._delays.append(time.monotonic() - begun)
        except OSError as error:
            self._problem = str(error)

    def _ask(self, message: bytes) -> None:
        self._connection.sendall(message)
        while True:
            length, program, _, procedure, _, _, status = HEADER.unpack(self._exactly(HEADER.size))
            payload = self._exactly(length - HEADER.size)
            if program != KEEPALIVE:
                break
            if procedure == 1:
                self._connection.sendall(PONG)
        if status:
            (code,) = struct.unpack_from(">i", payload)
            raise OSError(f"procedure {procedure} was answered with error {code}")

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._connection.recv(count - len(data))
            if not more:
                raise OSError("the server closed it")
            data += more
        return data
