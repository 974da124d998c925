"""
Slow readers on real sockets: they live, and die in their time when they stop.
"""

from __future__ import annotations

import socket
import time
from tempfile import mkdtemp

from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Connection

from kaproto.errors import KeepAliveTimeout
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.liveness import KeepAlive
from tests.interop.support import InteropTestCase, pause, reactor, together, waitUntil

_KEEP_ALIVE = KeepAlive(0.5, 2)
_DEATH = 1.5
_SIZE = 1_200_000
_RATE = 300_000
_STEP = 0.05


class Sender(Protocol):
    """
    Sends much at once to a peer, and has it watched.
    """

    transport: Connection

    def __init__(self) -> None:
        self.deaths: list[tuple[float, KeepAliveTimeout]] = []
        self.pings = 0

    def connectionMade(self) -> None:
        """
        Send it.
        """
        self.heartbeat = Heartbeat(self.transport, self.ping, died=self.died)
        self.heartbeat.start(_KEEP_ALIVE)
        self.transport.write(b"." * _SIZE)

    def ping(self) -> None:
        """
        Ping the peer.
        """
        self.pings += 1
        self.transport.write(b"?")

    def dataReceived(self, data: bytes) -> None:
        """
        The peer lives.
        """
        self.heartbeat.heard()

    def died(self, reason: KeepAliveTimeout) -> None:
        """
        The peer is dead.
        """
        self.deaths.append((time.monotonic(), reason))
        self.transport.abortConnection()


class Reader:
    """
    A peer with a small receive buffer, which reads at a rate and answers the pings that it reads.
    """

    def __init__(self, case: InteropTestCase, family: socket.AddressFamily) -> None:
        self.got = 0
        self.handle = handle = socket.socket(family)
        if family == socket.AF_INET:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self._loop = LoopingCall(self._read)
        case.addCleanup(self.stop)
        case.addCleanup(handle.close)

    def start(self, address: str | tuple[str, int]) -> None:
        """
        Connect and read.
        """
        self.handle.connect(address)
        self.handle.setblocking(False)
        self._loop.start(_STEP)

    def stop(self) -> None:
        """
        Read no more.
        """
        if self._loop.running:
            self._loop.stop()

    def _read(self) -> None:
        try:
            data = self.handle.recv(round(_RATE * _STEP))
        except BlockingIOError:
            return
        self.got += len(data)
        for _ in range(data.count(b"?")):
            self.handle.send(b"!")


class SlowReaderTests(InteropTestCase):
    """
    Four times as long as the silence that is death, the peer says nothing while it reads.
    """

    async def _connect(self, family: socket.AddressFamily) -> tuple[Sender, Reader]:
        senders: list[Sender] = []

        class Made(Sender):
            def connectionMade(self) -> None:
                senders.append(self)
                super().connectionMade()

        address: str | tuple[str, int]
        endpoint: IStreamServerEndpoint
        if family == socket.AF_UNIX:
            address = mkdtemp(dir=self.privateDirectory()) + "/socket"
            endpoint = UNIXServerEndpoint(reactor, address)
            port = await endpoint.listen(Factory.forProtocol(Made))
        else:
            endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            port = await endpoint.listen(Factory.forProtocol(Made))
            address = ("127.0.0.1", port.getHost().port)
        self.addCleanup(port.stopListening)
        reader = Reader(self, family)
        reader.start(address)
        await waitUntil(lambda: senders, "the connection")
        self.addCleanup(senders[0].transport.abortConnection)
        self.addCleanup(senders[0].heartbeat.end)
        return senders[0], reader

    async def _lives(self, family: socket.AddressFamily) -> None:
        sender, reader = await self._connect(family)
        await waitUntil(lambda: reader.got > _SIZE or sender.deaths, "the peer to read all")
        self.assertEqual(sender.deaths, [])
        self.assertLessEqual(sender.pings, 3)
        await pause(2 * _DEATH)
        self.assertEqual(sender.deaths, [])
        self.assertGreaterEqual(sender.pings, 4)

    async def _dies(self, family: socket.AddressFamily, most: float) -> None:
        sender, reader = await self._connect(family)
        await pause(2)
        self.assertEqual(sender.deaths, [])
        reader.stop()
        stopped = time.monotonic()
        await waitUntil(lambda: sender.deaths, "the death")
        self.assertGreater(sender.deaths[0][0] - stopped, _DEATH - 0.3)
        self.assertLess(sender.deaths[0][0] - stopped, most)

    async def test_lives(self) -> None:
        """
        It is kept, and pinged again when it has read everything.
        """
        await together(self._lives(socket.AF_INET), self._lives(socket.AF_UNIX))

    async def test_stops(self) -> None:
        """
        When it stops reading it dies C{interval * (count + 1)} seconds later, and up to an interval
        more, since its progress is looked at once an interval.
        """
        most = _DEATH + _KEEP_ALIVE.interval + 0.4
        await together(self._dies(socket.AF_INET, most), self._dies(socket.AF_UNIX, most))
