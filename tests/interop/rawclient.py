"""
A client that sends exactly the bytes it is given, and records what arrives and when.
"""

from __future__ import annotations

import struct
import time
from typing import cast

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from tests.interop import wire
from tests.interop.support import InteropTestCase, reactor, waitUntil
from tests.interop.wire import Frame, FrameReader

__all__ = ["RawClient"]


class RawClient(Protocol):
    """
    One connection, controlled by the test.

    @ivar address: the local address, as C{HOST:PORT}.
    @ivar frames: all complete messages received, including keepalive messages.
    @ivar received: the number of bytes received.
    @ivar lostAt: when the connection was lost, on the monotonic clock, or C{None}.
    @ivar wroteAt: when this side last wrote, on the monotonic clock, or C{None}.
    @ivar answering: whether pings are answered.
    """

    transport: Connection

    def __init__(self) -> None:
        self.address = ""
        self.frames: list[Frame] = []
        self.received = 0
        self.lostAt: float | None = None
        self.wroteAt: float | None = None
        self.answering = True
        self._reader = FrameReader()
        self._serial = 0

    @classmethod
    async def connect(cls, case: InteropTestCase, port: int) -> RawClient:
        """
        Connect to a loopback port, and disconnect when the test ends.
        """
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        client = cast(RawClient, await endpoint.connect(Factory.forProtocol(cls)))
        case.addCleanup(client.disconnect)
        return client

    def connectionMade(self) -> None:
        """
        Disable Nagle's algorithm, and keep the address: a closed connection has none.
        """
        self.transport.setTcpNoDelay(True)
        host = self.transport.getHost()
        self.address = f"{host.host}:{host.port}"

    def dataReceived(self, data: bytes) -> None:
        """
        Record the messages, and answer pings if C{answering} is set.
        """
        self.received += len(data)
        frames = self._reader.feed(data, time.monotonic())
        self.frames += frames
        for frame in frames:
            if frame.program == wire.KEEPALIVE and frame.procedure == 1 and self.answering:
                self.write(wire.PONG)

    def write(self, data: bytes) -> None:
        """
        Send bytes.
        """
        self.wroteAt = time.monotonic()
        self.transport.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """
        Record when the connection was lost.
        """
        self.lostAt = time.monotonic()

    @property
    def pings(self) -> list[Frame]:
        """
        The pings that the server has sent.
        """
        return [
            frame
            for frame in self.frames
            if frame.program == wire.KEEPALIVE and frame.procedure == 1
        ]

    def sendCall(self, procedure: int, payload: bytes = b"", program: int = wire.REMOTE) -> int:
        """
        Send a call with the next serial.

        @return: that serial.
        """
        serial = self._serial
        self._serial += 1
        self.write(wire.encode(procedure, payload, serial=serial, program=program))
        return serial

    def replyTo(self, serial: int) -> Frame | None:
        """
        @return: the reply to the call with this serial, or C{None}.
        """
        for frame in self.frames:
            if frame.kind == wire.REPLY and frame.serial == serial:
                return frame
        return None

    async def reply(self, serial: int, timeout: float = 20.0) -> Frame:
        """
        Wait for the reply to the call with this serial.

        @raise AssertionError: when it has not arrived within C{timeout} seconds, or the connection
            was lost first.
        """

        def found() -> Frame | None:
            frame = self.replyTo(serial)
            if frame is None and self.lostAt is not None:
                raise AssertionError(f"connection lost before the reply to call {serial}")
            return frame

        return await waitUntil(found, f"a reply to call {serial}", timeout)

    async def call(self, procedure: int, payload: bytes = b"", timeout: float = 20.0) -> Frame:
        """
        Make a call and wait for its reply.
        """
        return await self.reply(self.sendCall(procedure, payload), timeout)

    async def succeed(self, procedure: int, payload: bytes = b"") -> bytes:
        """
        Make a call that must succeed.

        @return: the payload of the reply.
        """
        frame = await self.call(procedure, payload)
        if frame.status != 0:
            raise AssertionError(f"procedure {procedure} failed: {frame.error}")
        return frame.payload

    async def open(self, *, ask: bool = True) -> None:
        """
        Make the calls of a client that opens a connection.

        @param ask: whether to ask for keepalive first.
        """
        await self.succeed(wire.AUTH_LIST)
        if ask:
            answer = await self.succeed(
                wire.SUPPORTS_FEATURE, struct.pack(">i", wire.FEATURE_KEEPALIVE)
            )
            if answer != b"\0\0\0\1":
                raise AssertionError(f"keepalive feature answered {answer!r}")
        await self.succeed(wire.OPEN, wire.OPEN_ARGUMENTS)

    async def waitLost(self, timeout: float = 20.0) -> float:
        """
        Wait until the server closes the connection.

        @return: when it did, on the monotonic clock.
        """
        return await waitUntil(lambda: self.lostAt, "the server to disconnect", timeout)

    async def disconnect(self) -> None:
        """
        Close the connection from this side.
        """
        if self.lostAt is None:
            self.transport.abortConnection()
            await self.waitLost()
