"""
Live clients of a gateway that are hard to tell from dead ones: one that waits for calls that block,
one that reads slowly, one that downloads much over TLS, and one with many concurrent calls.
"""

from __future__ import annotations

import os
import random
import select
import ssl
import struct
from contextlib import suppress
from typing import Final

from tests.harness.soak.client import Client, State
from tests.harness.soak.judge import Verdict
from tests.interop import wire
from tests.interop.wire import Frame

__all__ = ["GET_XML", "Bulk", "Busy", "Many", "Slow"]

GET_XML: Final = 14
_RESTORE: Final = 54
_NO_FLAGS: Final = struct.pack(">I", 0)
_RECORDS: Final = 16
_LOOK_AGAIN: Final = 0.1


class Asking(Client):
    """
    A client that makes some calls, waits for all replies, and begins again.
    """

    def opened(self) -> None:
        """
        Schedule the first calls.
        """
        self._serial = 100
        self._waiting: set[int] = set()
        self._later(0.1, 1)

    def _later(self, least: float, most: float) -> None:
        self.crowd.later(random.uniform(least, most) * self.crowd.judge.interval, self._begin)

    def _begin(self) -> None:
        if self.state is State.OPEN:
            self.ask()

    def ask(self) -> None:
        """
        Make the calls.
        """
        raise NotImplementedError

    def isRight(self, frame: Frame) -> bool:
        """
        @return: whether this is the expected reply.
        """
        raise NotImplementedError

    def answered(self) -> None:
        """
        Called when all calls were answered.
        """
        self._later(0.1, 1)

    def call(self, procedure: int, payload: bytes = b"", times: int = 1) -> None:
        """
        Make a call C{times} times at once.
        """
        serials = range(self._serial + 1, self._serial + 1 + times)
        self._serial += times
        self._waiting.update(serials)
        self.crowd.calls += times
        self.send(b"".join(wire.encode(procedure, payload, serial=each) for each in serials))

    def expectAnswers(self, seconds: float) -> None:
        """
        Record a problem if the current calls are not answered in time.
        """
        last, asked = self._serial, self.crowd.looked

        def check() -> None:
            looked = self.crowd.looked
            excused = self.crowd.judge.excuses.within(asked, looked)
            if not self._waiting or self._serial != last or self.state is not State.OPEN:
                return
            if looked - asked <= seconds + excused:
                self.crowd.later(excused + _LOOK_AGAIN, check)
                return
            self.crowd.tally(Verdict.NO_ANSWER, f"{self}: calls {sorted(self._waiting)}")
            self.leave()

        self.crowd.later(seconds, check)

    def received(self, frame: Frame) -> None:
        """
        Check a reply.
        """
        if frame.kind != wire.REPLY or frame.serial not in self._waiting or not self.isRight(frame):
            self.crowd.tally(Verdict.WRONG_ANSWER, f"{self}: {str(frame)[:300]}")
        self._waiting.discard(frame.serial)
        if not self._waiting:
            self.answered()


class Busy(Asking):
    """
    Has calls in progress that block for several times the timeout.  While it has five, libvirtd
    does not read its connection.

    Each call restores a domain from a FIFO that has no writer.
    """

    name = "busy"

    def ask(self) -> None:
        """
        Make calls that block, and schedule their end.
        """
        self._path = os.path.join(self.crowd.scene.folder, f"{id(self):x}-{self._serial}")
        os.mkfifo(self._path)
        os.chmod(self._path, 0o666)
        self.call(_RESTORE, wire.string(self._path), random.choice((4, 5, 8)))
        self.crowd.later(random.uniform(2, 5) * self.crowd.judge.death, self._unblock)

    def _unblock(self) -> None:
        if self.state is State.OPEN:
            self._letGo()
            self.expectAnswers(self.crowd.answerSeconds)

    def _letGo(self) -> None:
        """
        Unblock the calls that wait in the FIFO; the others fail, since it is gone.
        """
        with suppress(FileNotFoundError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
            os.unlink(self._path)
            os.close(descriptor)

    def isRight(self, frame: Frame) -> bool:
        """
        @return: whether it is an error: there is nothing to restore from.
        """
        return (frame.procedure, frame.status) == (_RESTORE, 1)

    def leave(self, *, reset: bool = False) -> None:
        """
        Close the connection, and leave no call in libvirtd.
        """
        super().leave(reset=reset)
        if self._serial > 100:
            self._letGo()

    _path = ""
    _serial = 0


class Many(Asking):
    """
    Makes a hundred concurrent calls.
    """

    name = "many"
    _answer = wire.string(os.uname().nodename)

    def ask(self) -> None:
        """
        Make the calls.
        """
        self.call(wire.GET_HOSTNAME, times=100)
        self.expectAnswers(self.crowd.answerSeconds)

    def isRight(self, frame: Frame) -> bool:
        """
        @return: whether it is the host name.
        """
        return frame[3:7] == (wire.GET_HOSTNAME, wire.REPLY, frame.serial, 0) and (
            frame.payload == self._answer
        )


class _Reading(Asking):
    """
    Requests a megabyte.
    """

    def ask(self) -> None:
        """
        Make the call.
        """
        self.call(GET_XML, self.crowd.scene.domain + _NO_FLAGS)

    def isRight(self, frame: Frame) -> bool:
        """
        @return: whether it arrived intact.
        """
        return frame.procedure == GET_XML and frame.payload == self.crowd.scene.document


class Slow(_Reading):
    """
    Takes eight times the timeout to read a reply, and reads the pings behind it only then.
    """

    name = "slow"
    receiveBuffer = 16384
    _TICK = 0.05

    def opened(self) -> None:
        """
        Read at a fixed rate from now on.
        """
        super().opened()
        self.rate = len(self.crowd.scene.document) / (8 * self.crowd.judge.death)
        self.crowd.listen(self, select.EPOLLRDHUP)
        self._sip()

    def _sip(self) -> None:
        if self.state is State.OPEN:
            self.read(self.crowd.looked, round(self.rate * self._TICK))
            self.crowd.later(self._TICK, self._sip)

    def ready(self, events: int, seen: float) -> None:
        """
        Handle an event of the socket: once it is open, only the end of the connection.
        """
        if self.state is State.OPEN:
            self.closed(seen)
        else:
            super().ready(events, seen)


class Bulk(_Reading):
    """
    Reads as fast as it can, over TLS.
    """

    name = "bulk"
    listener = 1
    _isAccepted = False

    def connected(self) -> None:
        """
        Start the handshake.
        """
        context = self.crowd.scene.context
        assert context is not None, "no TLS in this scene"
        self.socket = self._tls = context.wrap_socket(
            self.socket, server_hostname="127.0.0.1", do_handshake_on_connect=False
        )
        self.read(self.crowd.looked)

    def receive(self, most: int) -> bytes:
        """
        Continue the handshake, or read several records.
        """
        data = b""
        try:
            if self._tls.version() is None:
                self._tls.do_handshake()
            for _ in range(_RECORDS):
                piece = self._tls.recv(most)
                data += piece
                if not piece:
                    break
            while self._tls.pending():
                data += self._tls.recv(most)
        except ssl.SSLWantReadError as error:
            if not data:
                raise BlockingIOError from error
        if data and not self._isAccepted:
            # This byte is the server's confirmation of the client's certificate.
            assert data == b"\1", data
            self._isAccepted = True
            self._call()
            raise BlockingIOError
        return data

    def ask(self) -> None:
        """
        Make the call, which must be answered soon.
        """
        super().ask()
        self.expectAnswers(self.crowd.answerSeconds)
