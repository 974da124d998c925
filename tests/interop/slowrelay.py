"""
A slow link: a relay between two loopback ports with small buffers.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

from twisted.internet.task import LoopingCall

from tests.interop.support import InteropTestCase

__all__ = ["SlowRelay"]

_TICK: Final = 0.02
_ROOM: Final = 4096
_ANYTHING: Final = 65536


class _Direction:
    """
    Carries bytes from one end to the other.
    """

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._source = source
        self._sink = sink
        self._rest = b""

    def move(self, most: int) -> bool:
        """
        @return: whether both ends are still open.
        """
        try:
            if not self._rest:
                self._rest = self._source.recv(most)
                if not self._rest:
                    return False
            self._rest = self._rest[self._sink.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def close(self) -> None:
        """
        Close the end that it reads from.
        """
        self._source.close()


class SlowRelay:
    """
    Relays connections from one loopback port to another.

    @ivar port: the port for clients to connect to.
    @ivar rate: bytes per second in each direction; C{None} for no limit, 0 for a link that is cut:
        nothing is relayed then, not even the end of a connection.
    """

    def __init__(self, case: InteropTestCase, target: int) -> None:
        self.rate: int | None = None
        self._target = target
        self._connections: list[tuple[_Direction, _Direction]] = []
        self._listening = self._bounded(case)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        self.port: int = self._listening.getsockname()[1]
        self._case = case
        loop = LoopingCall(self._turn)
        loop.start(_TICK)
        case.addCleanup(loop.stop)

    def _bounded(self, case: InteropTestCase) -> socket.socket:
        one = socket.socket()
        case.addCleanup(one.close)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        one.setblocking(False)
        return one

    def _turn(self) -> None:
        with suppress(BlockingIOError):
            near, _address = self._listening.accept()
            self._case.addCleanup(near.close)
            near.setblocking(False)
            far = self._bounded(self._case)
            far.connect_ex(("127.0.0.1", self._target))
            self._connections.append((_Direction(near, far), _Direction(far, near)))
        if self.rate == 0:
            return
        most = _ANYTHING if self.rate is None else round(self.rate * _TICK)
        for connection in list(self._connections):
            there, back = connection
            if not (there.move(most) and back.move(most)):
                self._connections.remove(connection)
                there.close()
                back.close()
