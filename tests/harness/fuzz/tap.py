"""
The transport of an attacked end: it records everything, and does nothing by itself.
"""

from __future__ import annotations

import traceback

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kaproto.rpc.protocol import KeepAliveProtocol

__all__ = ["Tap"]


class Tap:
    """
    One end's transport, with the attacker at the other end.

    @ivar written: all that the end has written.
    @ivar wrongs: the violations of the end.
    @ivar ending: whether it has begun to close.
    @ivar lost: whether C{connectionLost} has been called.
    @ivar full: whether the attacker does not read.
    @ivar paused: whether the end has paused reading.
    """

    def __init__(self, clock: Clock, address: IAddress) -> None:
        self.written = bytearray()
        self.wrongs: list[str] = []
        self.ending = False
        self.lost = False
        self.full = False
        self._clock = clock
        self._address = address
        self.paused = False
        self._waiting = bytearray()
        self._producer: IPushProducer | None = None

    def attach(self, protocol: KeepAliveProtocol) -> None:
        """
        Connect.
        """
        self.protocol = protocol
        protocol.makeConnection(self)

    # Called by the attacker

    def feed(self, data: bytes) -> None:
        """
        Deliver bytes, unless the end has paused, and run what is due.
        """
        if not self.ending:
            self._waiting += data
            self._read()
        self._clock.advance(0)

    def _read(self) -> None:
        if self._waiting and not self.paused and not self.ending:
            data, self._waiting = bytes(self._waiting), bytearray()
            try:
                self.protocol.dataReceived(data)
            except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
                self.wrongs.append(traceback.format_exc())
                self.lose(ConnectionAborted())

    def fill(self) -> None:
        """
        Stop reading, so that the end's buffer is full.
        """
        self.full = True
        if self._producer is not None:
            self._producer.pauseProducing()
        self._clock.advance(0)

    def drain(self) -> None:
        """
        Read everything.
        """
        self.full = False
        if self._producer is not None:
            self._producer.resumeProducing()
        elif self.ending:
            self.lose(ConnectionDone())
        self._clock.advance(0)

    def lose(self, reason: Exception) -> None:
        """
        Lose the connection.
        """
        if not self.lost:
            self.lost = self.ending = True
            self._waiting.clear()
            self.protocol.connectionLost(Failure(reason))

    # Called by the end: see kaproto.transport.StreamTransport

    def write(self, data: bytes, /) -> None:
        """
        Record the bytes.
        """
        if self.ending:
            self.wrongs.append(f"{data[:64]!r} was written after the end")
        self.written += data

    def loseConnection(self) -> None:
        """
        Close once everything has been read.
        """
        if not self.ending:
            self.ending = True
            self._clock.callLater(0, self._closed)

    def _closed(self) -> None:
        if not self.full:
            self.lose(ConnectionDone())

    def abortConnection(self) -> None:
        """
        Close at once.
        """
        if not self.lost:
            self.ending = True
            self._clock.callLater(0, self.lose, ConnectionAborted())

    def pauseProducing(self) -> None:
        """
        Deliver no more bytes.
        """
        self.paused = True

    def resumeProducing(self) -> None:
        """
        Deliver the waiting bytes in the next turn, as a reactor does.
        """
        self.paused = False
        if self._waiting:
            self._clock.callLater(0, self._read)

    def registerProducer(self, producer: IPushProducer, streaming: bool, /) -> None:
        """
        Remember the producer.
        """
        self._producer = producer

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        self._producer = None

    def getPeer(self) -> IAddress:
        """
        @return: the attacker's address.
        """
        return self._address
