"""
The clients of a server: idle ones, and ones that call, die or reconnect.
"""

from __future__ import annotations

import os
import random
import struct
import time
from typing import TYPE_CHECKING, Final

from tests.harness.soak.client import RECEIVE, Client, Mortal, State
from tests.harness.soak.judge import Verdict
from tests.interop import wire
from tests.interop.wire import Frame

if TYPE_CHECKING:
    from tests.harness.soak.crowd import Crowd

__all__ = ["KINDS", "Chatty", "Dying", "Idle", "Reconnecting"]

_KEEPALIVE_REASON: Final = struct.pack(">i", 2)
_HALF: Final = wire.encode(wire.GET_HOSTNAME, serial=9)[:14]


class Idle(Client):
    """
    Only answers pings.
    """

    name = "idle"


class Chatty(Client):
    """
    Calls now and then, and checks the replies.
    """

    name = "chatty"
    _answer = wire.string(os.uname().nodename)

    def opened(self) -> None:
        """
        Schedule the first call.
        """
        self._serial = 100
        self._waiting: float | None = None
        self._callLater()

    def _callLater(self) -> None:
        # Mostly before a ping is due, sometimes later.
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
        Check the reply to the call.
        """
        right = (wire.REMOTE, wire.GET_HOSTNAME, wire.REPLY, self._serial, 0, self._answer)
        if right != (frame.program, frame.procedure, *frame[4:]) or self._waiting is None:
            self.crowd.tally(Verdict.WRONG_ANSWER, f"{self}: {frame}")
        self._waiting = None


class Dying(Mortal):
    """
    Answers pings for a while, then sends nothing, reads nothing, and does not close.

    Before that, some register a close callback, and some send half a message.
    """

    name = "dying"

    def opened(self) -> None:
        """
        Register the close callback or not, and schedule the death.
        """
        self._told = random.random() < 1 / 3
        if self._told:
            self.send(wire.encode(wire.CLOSE_CALLBACK, serial=50))
        self.dieWithin(0.2, 2)

    def received(self, frame: Frame) -> None:
        """
        Accept the reply to the registration; nothing else is expected.
        """
        if (frame.procedure, frame.kind, frame.status) != (wire.CLOSE_CALLBACK, wire.REPLY, 0):
            super().received(frame)

    def dies(self) -> None:
        """
        Send half a message, or nothing.
        """
        if random.random() < 1 / 3:
            self.send(_HALF)

    def found(self, looked: float, seen: float) -> None:
        """
        Check what the server has sent: the pings, and the reason of its close.  After a RST none of
        it can be read.
        """
        super().found(looked, seen)
        try:
            frames = self._reader.feed(self.socket.recv(RECEIVE), seen)
        except OSError:
            return
        pings = [frame for frame in frames if frame.program == wire.KEEPALIVE]
        told = [frame.payload for frame in frames if frame.procedure == wire.CONNECTION_CLOSED]
        count = self.crowd.judge.count
        # One more ping may have been sent just before the last byte arrived.
        if len(pings) not in {count, count + 1} or told != [_KEEPALIVE_REASON] * self._told:
            self.crowd.tally(Verdict.WRONG_ANSWER, f"{self}: {frames}")


class Reconnecting(Client):
    """
    Leaves after a while, in one of several ways; another takes its place.
    """

    name = "reconnecting"

    def __init__(self, crowd: Crowd) -> None:
        """
        Choose the way; some leave before they have opened.
        """
        self._way = random.choice(("close", "reset", "say goodbye", "in the middle", "early"))
        super().__init__(crowd)
        if self._way == "early":
            crowd.later(random.uniform(0, 0.1), self._go)

    def opened(self) -> None:
        """
        Schedule the end.
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
        Accept the reply to its close, after which the server closes the connection.
        """
        right = (wire.CLOSE, wire.REPLY, 60, 0)
        if right != (frame.procedure, frame.kind, frame.serial, frame.status):
            super().received(frame)


KINDS: Final[dict[type[Client], float]] = {Idle: 0.5, Chatty: 0.2, Dying: 0.15, Reconnecting: 0.15}
"""
The kinds of clients, each with its fraction of the crowd.
"""
