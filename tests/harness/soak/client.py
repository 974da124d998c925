"""
The base classes of the soak's clients: one that opens and answers pings, and one that dies.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

from tests.harness.soak.judge import Verdict
from tests.interop import wire
from tests.interop.wire import Frame, FrameReader

if TYPE_CHECKING:
    from tests.harness.soak.crowd import Crowd

__all__ = ["RECEIVE", "Client", "Mortal", "State"]

RECEIVE: Final = 65536
"""
The most bytes read at once.
"""

_FEATURE: Final = struct.pack(">i", wire.FEATURE_KEEPALIVE)
_RESET: Final = struct.pack("ii", 1, 0)
_STEPS: Final = (
    (wire.AUTH_LIST, b""),
    (wire.SUPPORTS_FEATURE, _FEATURE),
    (wire.OPEN, wire.OPEN_ARGUMENTS),
)


class State(Enum):
    """
    The states of a client.
    """

    OPENING = "opening"
    OPEN = "open"
    LEAVING = "leaving"
    SILENT = "silent"
    GONE = "gone"


class Client:
    """
    A client that opens, and answers pings.

    @cvar name: its name in reports.
    @cvar listener: the index of the listener it connects to.
    @cvar receiveBuffer: its C{SO_RCVBUF}, 0 for the default.
    @ivar state: its state.
    @ivar before: a time just before its last byte was sent, on the monotonic clock.
    @ivar after: a time just after that.
    """

    name: ClassVar[str]
    listener: ClassVar[int] = 0
    receiveBuffer: ClassVar[int] = 0
    state = State.OPENING

    def __init__(self, crowd: Crowd) -> None:
        """
        Start to connect.
        """
        self.crowd = crowd
        self.before = self.after = time.monotonic()
        self._reader = FrameReader()
        self._step = 0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.receiveBuffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receiveBuffer)
        self.socket.connect_ex(("127.0.0.1", crowd.scene.ports[self.listener]))
        crowd.enter(self, select.EPOLLOUT)
        crowd.later(crowd.openSeconds, self._checkOpen)

    def _checkOpen(self) -> None:
        if self.state is State.OPENING:
            self.crowd.tally(Verdict.REFUSED, f"{self} has not opened in time")
            self.leave()

    def __str__(self) -> str:
        return f"{self.name} client {id(self):x}, {self.state.value}"

    def ready(self, events: int, seen: float) -> None:
        """
        Handle an event of the socket.

        @param seen: when it was noticed.
        @param events: from L{select.epoll}.
        """
        if events & select.EPOLLOUT:
            self.crowd.listen(self, select.EPOLLIN)
            if not self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.connected()
                return
        self.read(seen)

    def connected(self) -> None:
        """
        The connection is established: make the first call.
        """
        self._call()

    def read(self, seen: float, most: int = RECEIVE) -> None:
        """
        Read once, and handle the messages.

        @param most: the most bytes to read.
        """
        try:
            data = self.receive(most)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            for frame in self._reader.feed(data, seen):
                self._received(frame)
        elif self.state is not State.GONE:
            self.closed(seen)

    def receive(self, most: int) -> bytes:
        """
        Read from the socket.

        @raise BlockingIOError: when there is nothing to read.
        """
        return self.socket.recv(most)

    def closed(self, seen: float) -> None:
        """
        The server has closed the connection: record the verdict, and leave.
        """
        verdict = self.crowd.judge.live(self.crowd.looked, seen)
        if self.state is State.OPENING:
            verdict = Verdict.REFUSED
        if self.state is not State.LEAVING:
            self.crowd.tally(verdict, f"{self}, {seen - self.after:.2f} s after its last byte")
        self.leave()

    def send(self, data: bytes) -> None:
        """
        Send something that always fits into the buffer, and record the time.
        """
        self.before = time.monotonic()
        try:
            sent = self.socket.send(data)
        except OSError:
            # The connection has been closed; the kernel will report that soon.
            return
        finally:
            self.after = time.monotonic()
        assert sent == len(data), f"{self} is not read from"

    def _call(self) -> None:
        procedure, payload = _STEPS[self._step]
        self.send(wire.encode(procedure, payload, serial=self._step))

    def _received(self, frame: Frame) -> None:
        if frame.program == wire.KEEPALIVE:
            if frame.procedure == 1 and self.state in {State.OPENING, State.OPEN}:
                self.send(wire.PONG)
        elif self.state is State.OPENING:
            self._opening(frame)
        elif self.state is not State.GONE:
            self.received(frame)

    def _opening(self, frame: Frame) -> None:
        if frame.status or frame.serial != self._step:
            self.crowd.tally(Verdict.REFUSED, f"{self}: {frame}")
            self.leave()
            return
        self._step += 1
        if self._step < len(_STEPS):
            self._call()
            return
        self.state = State.OPEN
        self.opened()

    def opened(self) -> None:
        """
        Called when it is open.
        """

    def received(self, frame: Frame) -> None:
        """
        Called for messages that are not keepalive's, once it is open.
        """
        self.crowd.tally(Verdict.WRONG_ANSWER, f"{self}: {frame}")

    def leave(self, *, reset: bool = False) -> None:
        """
        Close the connection; another client then takes its place.

        @param reset: whether to end it with RST.
        """
        if self.state is State.GONE:
            return
        self.state = State.GONE
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.crowd.left(self)
        self.socket.close()


class Mortal(Client):
    """
    A client that falls silent, does not close, and waits to be declared dead.
    """

    def dieWithin(self, least: float, most: float) -> None:
        """
        Fall silent at a random time.

        @param least: the earliest time, in multiples of the server's timeout.
        @param most: the latest time, in the same unit.
        """
        self.crowd.later(random.uniform(least, most) * self.crowd.judge.death, self._die)

    def _die(self) -> None:
        if self.state is not State.OPEN or not self.crowd.mayDie:
            return
        if not self.canDie():
            self.dieWithin(0.1, 0.3)
            return
        self.dies()
        self.state = State.SILENT
        self.crowd.silent.add(self)
        self.vanish()
        self._checkForgotten()

    def canDie(self) -> bool:
        """
        @return: whether it may fall silent now.
        """
        return True

    def dies(self) -> None:
        """
        Called just before it falls silent.
        """

    def vanish(self) -> None:
        """
        Watch for nothing but the end of the connection.
        """
        self.crowd.listen(self, select.EPOLLRDHUP)

    def ready(self, events: int, seen: float) -> None:
        """
        Handle an event of the socket: once it is silent, only the end of the connection.
        """
        if self.state is State.SILENT:
            self.found(self.crowd.looked, seen)
            self.leave()
        else:
            super().ready(events, seen)

    def found(self, looked: float, seen: float) -> None:
        """
        The server has closed the connection: record the verdict.

        @param looked: when it was last known to be open.
        """
        verdict = self.crowd.judge.silent(self.before, self.after, looked, seen)
        times = f"{seen - self.before:.3f} to {seen - self.after:.3f} s"
        self.crowd.tally(verdict, f"{self}, after {times}")

    def _checkForgotten(self) -> None:
        """
        Stop waiting for the server to declare it dead, once that is long overdue.
        """
        if self.state is not State.SILENT:
            return
        if self.crowd.judge.forgotten(self.after, self.crowd.looked):
            self.crowd.tally(Verdict.NEVER, str(self))
            self.leave()
            return
        self.crowd.later(self.crowd.judge.death, self._checkForgotten)
