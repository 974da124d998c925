"""
The four kinds of clients: one that is idle, one that chats, one that dies, one that comes and goes.
"""

from __future__ import annotations

import os
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

__all__ = ["KINDS", "Chatty", "Client", "Dying", "Idle", "Reconnecting", "State"]

_RECEIVE: Final = 65536
_KEEPALIVE_REASON: Final = struct.pack(">i", 2)
_FEATURE: Final = struct.pack(">i", wire.FEATURE_KEEPALIVE)
_HALF: Final = wire.encode(wire.GET_HOSTNAME, serial=9)[:14]
_RESET: Final = struct.pack("ii", 1, 0)
_STEPS: Final = (
    (wire.AUTH_LIST, b""),
    (wire.SUPPORTS_FEATURE, _FEATURE),
    (wire.OPEN, wire.OPEN_ARGUMENTS),
)


class State(Enum):
    """
    How far a client has come.
    """

    OPENING = "opening"
    OPEN = "open"
    LEAVING = "leaving"
    SILENT = "silent"
    GONE = "gone"


class Client:
    """
    A client that opens, and answers pings.

    @ivar state: how far it has come.
    @ivar before: when the last byte had not been sent yet, on the monotonic clock.
    @ivar after: when it had.
    """

    name: ClassVar[str]
    state = State.OPENING

    def __init__(self, crowd: Crowd) -> None:
        """
        Begin to connect.
        """
        self.crowd = crowd
        self.before = self.after = time.monotonic()
        self._reader = FrameReader()
        self._step = 0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(("127.0.0.1", crowd.port))
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
        The kernel has something to say of the connection.

        @param seen: when it was known.
        """
        if events & select.EPOLLOUT:
            self.crowd.listen(self, select.EPOLLIN)
            if not self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._call()
                return
        try:
            data = self.socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            for frame in self._reader.feed(data, seen):
                self._received(frame)
        elif self.state is not State.GONE:
            self.closed(seen)

    def closed(self, seen: float) -> None:
        """
        The server has closed the connection.
        """
        verdict = self.crowd.judge.live(self.crowd.looked, seen)
        if self.state is State.OPENING:
            verdict = Verdict.REFUSED
        if self.state is not State.LEAVING:
            self.crowd.tally(verdict, f"{self}, {seen - self.after:.2f} s after its last byte")
        self.leave()

    def send(self, data: bytes) -> None:
        """
        Send something that always fits, and note when.
        """
        self.before = time.monotonic()
        try:
            sent = self.socket.send(data)
        except OSError:
            # The connection has been closed, as the kernel will say in a moment.
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
        It is open.
        """

    def received(self, frame: Frame) -> None:
        """
        Something has come that is no ping.
        """
        self.crowd.tally(Verdict.WRONG_ANSWER, f"{self}: {frame}")

    def leave(self, *, reset: bool = False) -> None:
        """
        Close the connection, after which another client takes this one's place.

        @param reset: whether to do so by a reset.
        """
        if self.state is State.GONE:
            return
        self.state = State.GONE
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.crowd.left(self)
        self.socket.close()


class Idle(Client):
    """
    Answers pings, and that is all.
    """

    name = "idle"


class Chatty(Client):
    """
    Calls now and then, and looks at the answers.
    """

    name = "chatty"
    _answer = wire.string(os.uname().nodename)

    def opened(self) -> None:
        """
        Make the first call soon.
        """
        self._serial = 100
        self._waiting: float | None = None
        self._callLater()

    def _callLater(self) -> None:
        # Mostly before it would be pinged, sometimes not.
        self.crowd.later(random.uniform(0.1, 1.3) * self.crowd.judge.interval, self._ask)

    def _ask(self) -> None:
        if self.state is not State.OPEN:
            return
        self._callLater()
        if self._waiting is None:
            self._serial += 1
            self._waiting = time.monotonic()
            self.crowd.calls += 1
            self.send(wire.encode(wire.GET_HOSTNAME, serial=self._serial))
            return
        looked = self.crowd.looked
        excused = self.crowd.judge.excuses.within(self._waiting, looked)
        if looked - self._waiting > self.crowd.answerSeconds + excused:
            self.crowd.tally(Verdict.NO_ANSWER, f"{self}, call {self._serial}")
            self._waiting = None

    def received(self, frame: Frame) -> None:
        """
        An answer, which has to be the right one.
        """
        right = (wire.REMOTE, wire.GET_HOSTNAME, wire.REPLY, self._serial, 0, self._answer)
        if right != (frame.program, frame.procedure, *frame[4:]) or self._waiting is None:
            self.crowd.tally(Verdict.WRONG_ANSWER, f"{self}: {frame}")
        self._waiting = None


class Dying(Client):
    """
    Lives for a while, and then sends nothing any more, reads nothing, and does not close.

    Some ask before that to be told when they are given up, some have sent half a message.
    """

    name = "dying"

    def opened(self) -> None:
        """
        Die some time later.
        """
        self._told = random.random() < 1 / 3
        if self._told:
            self.send(wire.encode(wire.CLOSE_CALLBACK, serial=50))
        self.crowd.later(random.uniform(0.2, 2) * self.crowd.judge.death, self._die)

    def received(self, frame: Frame) -> None:
        """
        Nothing but the answer to its one call is expected.
        """
        if (frame.procedure, frame.kind, frame.status) != (wire.CLOSE_CALLBACK, wire.REPLY, 0):
            super().received(frame)

    def _die(self) -> None:
        if self.state is not State.OPEN or not self.crowd.mayDie:
            return
        if random.random() < 1 / 3:
            self.send(_HALF)
        self.state = State.SILENT
        # The kernel tells of the end of the connection all the same.
        self.crowd.listen(self, select.EPOLLRDHUP)
        self.crowd.silent.add(self)
        self._checkForgotten()

    def ready(self, events: int, seen: float) -> None:
        """
        Once it is silent nothing but the end of the connection is told.
        """
        if self.state is not State.SILENT:
            super().ready(events, seen)
            return
        crowd = self.crowd
        verdict = crowd.judge.silent(self.before, self.after, crowd.looked, seen)
        crowd.tally(verdict, f"{self}, after {seen - self.before:.3f} to {seen - self.after:.3f} s")
        self._readFarewell(seen)
        self.leave()

    def _readFarewell(self, seen: float) -> None:
        """
        See what the server has sent to the dead one: the pings, and why it was given up.  A reset
        takes that away.
        """
        try:
            frames = self._reader.feed(self.socket.recv(_RECEIVE), seen)
        except OSError:
            return
        pings = [frame for frame in frames if frame.program == wire.KEEPALIVE]
        told = [frame.payload for frame in frames if frame.procedure == wire.CONNECTION_CLOSED]
        count = self.crowd.judge.count
        # One more may have been on its way when the last byte was sent.
        if len(pings) not in {count, count + 1} or told != [_KEEPALIVE_REASON] * self._told:
            self.crowd.tally(Verdict.WRONG_ANSWER, f"{self}: {frames}")

    def _checkForgotten(self) -> None:
        """
        Stop waiting for the server to find it, once that is long overdue.
        """
        if self.state is not State.SILENT:
            return
        if self.crowd.judge.forgotten(self.after, self.crowd.looked):
            self.crowd.tally(Verdict.NEVER, str(self))
            self.leave()
            return
        self.crowd.later(self.crowd.judge.death, self._checkForgotten)


class Reconnecting(Client):
    """
    Leaves after a while, in one way or another; another one comes in its place.
    """

    name = "reconnecting"

    def __init__(self, crowd: Crowd) -> None:
        """
        Some leave before they have opened.
        """
        self._way = random.choice(("close", "reset", "say goodbye", "in the middle", "early"))
        super().__init__(crowd)
        if self._way == "early":
            crowd.later(random.uniform(0, 0.1), self._go)

    def opened(self) -> None:
        """
        Leave some time later.
        """
        self.crowd.later(random.uniform(0.1, 2) * self.crowd.judge.death, self._go)

    def _go(self) -> None:
        if self.state not in {State.OPENING, State.OPEN}:
            return
        if self._way == "say goodbye" and self.state is State.OPEN:
            self.send(wire.encode(wire.CLOSE, serial=60))
            self.state = State.LEAVING
            return
        if self._way == "in the middle":
            self.send(_HALF)
        self.leave(reset=self._way in {"reset", "early"})

    def received(self, frame: Frame) -> None:
        """
        The answer to its goodbye, after which the server closes.
        """
        right = (wire.CLOSE, wire.REPLY, 60, 0)
        if right != (frame.procedure, frame.kind, frame.serial, frame.status):
            super().received(frame)


KINDS: Final[dict[type[Client], float]] = {Idle: 0.5, Chatty: 0.2, Dying: 0.15, Reconnecting: 0.15}
"""
The kinds, and which part of the crowd is of each.
"""
