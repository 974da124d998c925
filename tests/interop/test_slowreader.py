"""
Tests for slow readers on real sockets: they stay connected, and are found dead in time when they
stop.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from tempfile import mkdtemp
from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Connection

from kaproto.client import connect
from kaproto.errors import KeepAliveTimeout
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from tests.interop import libraryprogram
from tests.interop.programs import Program
from tests.interop.support import InteropTestCase, pause, reactor, together, waitUntil
from tests.support import Probe

_KEEP_ALIVE = KeepAlive(0.5, 2)
_DEATH = 1.5
_SIZE = 1_200_000
_RATE = 300_000
_STEP = 0.05
_MUCH = 8 << 20


class Sender(Protocol):
    """
    Sends much at once to a peer, and watches it with a L{Heartbeat}.
    """

    transport: Connection

    def __init__(self) -> None:
        self.deaths: list[tuple[float, KeepAliveTimeout]] = []
        self.pings = 0

    def connectionMade(self) -> None:
        """
        Start the heartbeat, and send.
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
        Tell the heartbeat that the peer is alive.
        """
        self.heartbeat.heard()

    def died(self, reason: KeepAliveTimeout) -> None:
        """
        Record the death, and close.
        """
        self.deaths.append((time.monotonic(), reason))
        self.transport.abortConnection()


class Reader:
    """
    A peer with a small receive buffer, which reads at a fixed rate and answers the pings that it
    reads.
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
        Stop reading.
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
    Tests for a peer that takes four seconds to read what was sent, and sends nothing meanwhile.
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

    async def test_slow(self) -> None:
        """
        A slow reader stays connected, and is pinged again when it has read everything.  One that
        stops reading is declared dead after C{interval * (count + 1)} seconds, or up to an interval
        later, since its progress is checked once per interval.
        """
        most = _DEATH + _KEEP_ALIVE.interval + 0.4
        families = (socket.AF_INET, socket.AF_UNIX)
        await together(
            *(self._lives(family) for family in families),
            *(self._dies(family, most) for family in families),
        )


class _Server(KeepAliveServerProtocol):
    """
    A connection at the server that records its end.
    """

    ended: tuple[float, Exception] | None = None

    def connectionClosed(self, reason: Exception) -> None:
        """
        Record when the connection was closed, and why.
        """
        self.ended = time.monotonic(), reason


class StoppedTests(InteropTestCase):
    """
    Tests for clients that stop reading, and others that do not.
    """

    tools = ()

    async def _serve(
        self, endpoint: str, limits: Limits | None = None
    ) -> tuple[KeepAliveServerFactory, str]:
        """
        @return: a server, and the URI to connect to.
        """
        factory = KeepAliveServerFactory(
            Mandatory(_KEEP_ALIVE), programs=[Probe()], clock=reactor, limits=limits
        )
        factory.protocol = _Server
        port = await serverFromString(reactor, endpoint).listen(factory)
        self.addCleanup(maybeDeferred, port.stopListening)
        self.addCleanup(factory.abort)
        address = port.getHost()
        if isinstance(address, IPv4Address):
            return factory, f"tcp:127.0.0.1:{address.port}"
        return factory, endpoint

    async def _haveMuchToRead(self, endpoint: str, latest: float) -> None:
        """
        Stop two programs (C{SIGSTOP}), send to both, and continue one in time.

        @param latest: seconds within which the other must be declared dead.
        """
        factory, uri = await self._serve(endpoint)
        programs = []
        for _ in range(2):
            command = [sys.executable, libraryprogram.__file__, "connect", uri, "60", "1"]
            programs.append(Program.start(self, command, os.environ))
            await programs[-1].waitOutput("connected")
        servers = [cast(_Server, each) for each in factory.connections]
        for program in programs:
            program.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        for server in servers:
            server.sendEvent(Probe.number, 1, bytes(_MUCH))
        await pause(0.6 * _DEATH)
        programs[0].signal(signal.SIGCONT)
        await self._dies(servers[1], stopped, latest)
        await pause(max(0, stopped + 3 * _DEATH - time.monotonic()))
        self.assertIsNone(servers[0].ended)

    async def _areNotRead(self, endpoint: str, latest: float) -> None:
        """
        Have two clients' calls wait, so that the server stops reading from both.  Stop one of them.
        """
        factory, uri = await self._serve(endpoint, Limits(runningCalls=1, waitingCalls=1))
        lives = await connect(reactor, uri, keepAlive=_KEEP_ALIVE)
        stops = await connect(reactor, uri)
        for connection in (lives, stops):
            self.addCleanup(cast(Connection, connection.protocol.transport).abortConnection)
            for _ in range(3):
                connection.call(Probe.number, Probe.LATER).addErrback(lambda _: None)
        servers = [cast(_Server, each) for each in factory.connections]
        await waitUntil(lambda: all(each._kaproto.reading.pauses for each in servers), "the pauses")
        await pause(1.5 * _DEATH)
        self.assertEqual([each.ended for each in servers], [None, None])
        cast(Connection, stops.protocol.transport).stopReading()
        await self._dies(servers[1], time.monotonic(), latest)
        await pause(_DEATH)
        self.assertTrue(lives.isAlive())

    async def _dies(self, server: _Server, stopped: float, latest: float) -> None:
        await waitUntil(lambda: server.ended, f"the death of {server.transport}")
        at, reason = cast(tuple[float, Exception], server.ended)
        self.assertIsInstance(reason, KeepAliveTimeout)
        took = at - stopped
        self.assertTrue(_DEATH - 1.1 < took < latest + 0.4, f"{server.transport}: {took:.2f} s")

    async def test_stopped(self) -> None:
        """
        A stopped client with much to read is declared dead on TCP C{interval * (count + 1)} seconds
        after its kernel last acknowledged bytes, and on a UNIX socket up to two intervals later,
        since the kernel does not report that time.  One that the server does not read from is found
        on TCP by its missing answers, and on a UNIX socket, up to a second later, by what it does
        not read.  No client that continues in time is declared dead.
        """
        tcp = "tcp:0:interface=127.0.0.1"
        path = self.privateDirectory()
        await together(
            self._haveMuchToRead(tcp, _DEATH),
            self._haveMuchToRead(f"unix:{path}/1", _DEATH + 2 * _KEEP_ALIVE.interval),
            self._areNotRead(tcp, _DEATH),
            self._areNotRead(f"unix:{path}/2", _DEATH + 1),
        )
