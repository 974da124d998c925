"""
Clients that die in other ways than falling silent between two messages.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from typing import Final

from tests.harness.soak.client import Mortal, State
from tests.harness.soak.live import Slow
from tests.harness.soak.sockdiag import isEstablished

__all__ = ["Stuck", "Unreachable"]

_LOOK_EVERY: Final = 0.05
_SO_ATTACH_FILTER: Final = 26
_BPF_RET_K: Final = 6
_LAST_DATA_RECEIVED: Final = 52
_KERNEL_TICK: Final = 0.01


class Unreachable(Mortal):
    """
    Its host disappears: from then on its kernel receives and acknowledges nothing.  A socket filter
    drops all segments.

    The end of the connection is not noticed here either, so the kernel is asked for the server's
    socket.
    """

    name = "unreachable"

    def opened(self) -> None:
        """
        Schedule the death.
        """
        self.dieWithin(0.2, 2)

    def vanish(self) -> None:
        """
        Drop what arrives, and watch the server's socket.
        """
        super().vanish()
        program = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RET_K, 0, 0, 0))
        filters = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filters)
        self._port = self.socket.getsockname()[1]
        self._lookedAt = time.monotonic()
        self._look()

    def _look(self) -> None:
        if self.state is not State.SILENT:
            return
        now = time.monotonic()
        if isEstablished(self.crowd.scene.ports[self.listener], self._port):
            self._lookedAt = now
            self.crowd.later(_LOOK_EVERY, self._look)
        else:
            self.found(self._lookedAt, now)
            self.leave()

    def leave(self, *, reset: bool = False) -> None:
        """
        Leave with RST, since the kernel would wait for an acknowledgement of a FIN.
        """
        super().leave(reset=True)


class Stuck(Slow, Mortal):
    """
    Reads slowly, and stops in the middle of a reply.
    """

    name = "stuck"

    def opened(self) -> None:
        """
        Schedule the death.
        """
        super().opened()
        self.dieWithin(1, 4)

    def canDie(self) -> bool:
        """
        @return: whether it has read some of the reply, and has much more to read.
        """
        return 0 < self._reader.partial < len(self.crowd.scene.document) / 2

    def dies(self) -> None:
        """
        Record the time: from now on its kernel only accepts what it still has room for.
        """
        self.after = time.monotonic()

    def found(self, looked: float, seen: float) -> None:
        """
        Ask the kernel when it last received data, which was its last sign of life, and record the
        verdict.
        """
        asked = time.monotonic()
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        told = time.monotonic()
        (milliseconds,) = struct.unpack_from("I", info, _LAST_DATA_RECEIVED)
        self.before = asked - milliseconds / 1000 - _KERNEL_TICK
        self.after = told - milliseconds / 1000
        super().found(looked, seen)
