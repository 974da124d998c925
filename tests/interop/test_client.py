"""
Tests for L{kaproto.client} with a real libvirtd.
"""

from __future__ import annotations

import socket
import struct
import time
from itertools import pairwise
from statistics import median

from twisted.internet.defer import gatherResults
from twisted.python.failure import Failure

from kaproto.client import Connection, KeepAliveClientProtocol, KeepAliveClientService, connect
from kaproto.errors import ConnectionClosed, KeepAliveTimeout, RemoteError
from kaproto.keepalive.liveness import KeepAlive
from tests.interop import wire
from tests.interop.forwarder import Forwarder, Link
from tests.interop.servers import LibvirtDaemon
from tests.interop.support import InteropTestCase, pause, reactor, together, waitUntil


class _Closing:
    """
    When and why a connection closed, according to C{whenClosed}.

    @ivar at: the time on the monotonic clock, or C{None} while it is open.
    @ivar reason: what C{whenClosed} fired with.
    """

    def __init__(self, connection: Connection | KeepAliveClientProtocol) -> None:
        self.at: float | None = None
        self.reason: object = None
        connection.whenClosed().addBoth(self._closed)

    def _closed(self, reason: object) -> None:
        self.at = time.monotonic()
        self.reason = reason.value if isinstance(reason, Failure) else reason


class ClientTestCase(InteropTestCase):
    """
    A test that connects to libvirtd.
    """

    tools = ("libvirtd",)

    async def open(self, uri: str) -> Connection:
        """
        Connect to C{uri}, and close the connection when the test ends.
        """
        connection = await connect(reactor, uri)
        self.addCleanup(connection.close)
        return connection

    async def watched(
        self, interval: int = -1, count: int = 5
    ) -> tuple[LibvirtDaemon, Connection, Link]:
        """
        Start a libvirtd, and connect to it through a forwarder.

        @param interval: libvirtd's C{keepalive_interval}.
        @param count: libvirtd's C{keepalive_count}.
        """
        daemon = await LibvirtDaemon.start(self, interval, count)
        forwarder = Forwarder(self, daemon.port)
        connection = await self.open(forwarder.uri)
        (link,) = forwarder.links
        return daemon, connection, link


class CallTests(ClientTestCase):
    """
    Tests for opening, calls, errors and closing.
    """

    async def _check(self, uri: str) -> None:
        connection = await self.open(uri)
        closing = _Closing(connection)
        self.assertTrue(connection.isAlive())
        self.assertTrue(connection.keepAliveSupported)
        self.assertEqual(await connection.hostname(), socket.gethostname())
        version = await connection.call(wire.REMOTE, wire.GET_LIB_VERSION, b"")
        self.assertGreater(struct.unpack(">Q", version)[0], 1_000_000)
        self.assertIsNone(closing.at)
        await connection.close()
        self.assertFalse(connection.isAlive())
        self.assertIsInstance(closing.reason, ConnectionClosed)

    async def test_unix(self) -> None:
        """
        Over a UNIX socket named in the URI the connection opens, answers and closes.
        """
        await self._check((await LibvirtDaemon.start(self)).unixURI)

    async def test_tcp(self) -> None:
        """
        Over TCP the connection opens, answers and closes.
        """
        await self._check((await LibvirtDaemon.start(self)).uri)

    async def test_manyCalls(self) -> None:
        """
        Of a hundred concurrent calls, which libvirtd answers out of order, each gets its own reply.
        """
        connection = await self.open((await LibvirtDaemon.start(self)).uri)
        hostname = await connection.call(wire.REMOTE, wire.GET_HOSTNAME, b"")
        features = {8: 1, 9: 1, 10: 1, 1: 0, 2: 0}
        calls: list[tuple[int, bytes, bytes]] = []
        for _round in range(17):
            calls.append((wire.GET_HOSTNAME, b"", hostname))
            for feature, answer in features.items():
                calls.append(
                    (wire.SUPPORTS_FEATURE, struct.pack(">i", feature), struct.pack(">i", answer))
                )
        answers = await gatherResults(
            [connection.call(wire.REMOTE, procedure, payload) for procedure, payload, _ in calls],
            consumeErrors=True,
        )
        self.assertEqual(answers, [answer for _procedure, _payload, answer in calls])

    async def test_failedCall(self) -> None:
        """
        A call that fails raises libvirtd's error, and the connection stays open.
        """
        connection = await self.open((await LibvirtDaemon.start(self)).uri)
        with self.assertRaises(RemoteError) as caught:
            await connection.call(wire.REMOTE, 9999, b"")
        error = caught.exception
        self.assertEqual((error.code, error.domain, error.level), (39, 7, 2))
        self.assertEqual(error.message, "unknown procedure: 9999")
        self.assertEqual(await connection.hostname(), socket.gethostname())

    async def test_failedOpen(self) -> None:
        """
        Opening an unknown driver raises libvirtd's error.
        """
        daemon = await LibvirtDaemon.start(self)
        with self.assertRaises(RemoteError) as caught:
            await connect(reactor, daemon.unixURI.replace("test+unix:///default", "foo+unix:///x"))
        error = caught.exception
        self.assertEqual((error.code, error.domain, error.level), (5, 0, 2))
        self.assertEqual(error.message, "no connection driver available for foo:///x")

    async def test_killedServer(self) -> None:
        """
        When libvirtd is killed, the call in progress fails and C{whenClosed} fires without waiting
        for a keepalive timeout.
        """
        daemon, connection, _link = await self.watched()
        closing = _Closing(connection)
        connection.setKeepAlive(30, 5)
        daemon.freeze()
        hostname = connection.hostname()
        killed = time.monotonic()
        await daemon.kill()
        closed = await waitUntil(lambda: closing.at, "the connection to close")
        self.assertLess(closed - killed, 2)
        self.assertNotIsInstance(closing.reason, KeepAliveTimeout)
        with self.assertRaises(Exception) as caught:
            await hostname
        self.assertNotIsInstance(caught.exception, RemoteError)
        self.assertFalse(connection.isAlive())


class ReconnectTests(ClientTestCase):
    """
    Tests for L{KeepAliveClientService}.
    """

    async def test_restartedServer(self) -> None:
        """
        When libvirtd is killed and started again, the service opens a new connection, and calls
        C{onOpen} after each open.
        """
        daemon = await LibvirtDaemon.start(self)
        hostnames: list[str] = []

        async def onOpen(connection: Connection) -> None:
            hostnames.append(await connection.hostname())

        service = KeepAliveClientService(
            reactor, daemon.unixURI, onOpen=onOpen, retryPolicy=lambda _failures: 0.05
        )
        service.startService()
        self.addCleanup(service.stopService)
        first = await service.whenConnected()
        self.assertEqual(hostnames, [socket.gethostname()])
        await daemon.kill()
        await waitUntil(lambda: not first.isAlive(), "the connection to be lost")
        await daemon.restart()
        second = await service.whenConnected()
        self.assertIsNot(second, first)
        self.assertEqual(hostnames, [socket.gethostname()] * 2)
        self.assertEqual(await second.hostname(), socket.gethostname())


class KeepAliveTests(ClientTestCase):
    """
    Tests for L{Connection.setKeepAlive} and for a service, observed on the wire by a forwarder.
    """

    async def _frozen(self) -> None:
        daemon, connection, link = await self.watched()
        closing = _Closing(connection)
        connection.setKeepAlive(1, 2)
        await waitUntil(lambda: connection.latency is not None, "libvirtd to answer a ping")
        self.assertEqual(len(link.server.pongs), 1)
        daemon.freeze()
        hostname = connection.hostname()
        with self.assertRaises(KeepAliveTimeout):
            await hostname
        closed = await waitUntil(lambda: closing.at, "the connection to close")
        silent = link.server.lastByte
        assert silent is not None
        self.assertApproximates(closed - silent, 3, 0.3)
        self.assertIsInstance(closing.reason, KeepAliveTimeout)
        self.assertFalse(connection.isAlive())
        first, second = (at for at in link.client.pings if at > silent)
        self.assertApproximates(first - silent, 1, 0.3)
        self.assertApproximates(second - silent, 2, 0.3)

    async def _changed(self) -> None:
        _daemon, connection, link = await self.watched()
        connection.setKeepAlive(30, 2)
        connection.setKeepAlive(0.2, 2)
        await waitUntil(lambda: len(link.client.pings) >= 4, "four pings", timeout=3)
        changed = time.monotonic()
        connection.setKeepAlive(0.6, 2)
        await pause(2)
        quick = _gaps([at for at in link.client.pings if at < changed])
        slow = _gaps([at for at in link.client.pings if at > changed])
        # The median tolerates a few late pings on a busy machine.
        self.assertApproximates(median(quick), 0.2, 0.15)
        self.assertApproximates(median(slow), 0.6, 0.2)
        self.assertTrue(connection.isAlive())

    async def _stopped(self, interval: float, count: int) -> None:
        daemon, connection, link = await self.watched()
        closing = _Closing(connection)
        connection.setKeepAlive(0.2, 2)
        await waitUntil(lambda: link.server.pongs, "libvirtd to answer a ping")
        connection.setKeepAlive(interval, count)
        stopped = time.monotonic()
        daemon.freeze()
        await pause(1.5)
        self.assertEqual([at for at in link.client.pings if at > stopped + 0.05], [])
        self.assertIsNone(closing.at)
        daemon.thaw()
        self.assertEqual(await connection.hostname(), socket.gethostname())

    async def _pinged(self) -> None:
        _daemon, connection, link = await self.watched(interval=1, count=1)
        await pause(3.5)
        self.assertTrue(connection.isAlive())
        self.assertGreaterEqual(len(link.server.pings), 2)
        self.assertEqual(len(link.client.pongs), len(link.server.pings))
        self.assertEqual(link.client.pings, [])
        self.assertEqual(await connection.hostname(), socket.gethostname())

    async def _kept(self) -> None:
        """
        The connection to a healthy server is still the same after five seconds of keepalive.
        """
        daemon = await LibvirtDaemon.start(self)
        forwarder = Forwarder(self, daemon.port)
        service = KeepAliveClientService(reactor, forwarder.uri, keepAlive=KeepAlive(0.5, 2))
        service.startService()
        self.addCleanup(service.stopService)
        connection = await service.whenConnected()
        await pause(5)
        self.assertIs(await service.whenConnected(), connection)
        self.assertTrue(connection.isAlive())
        self.assertIsNotNone(connection.latency)
        self.assertEqual(len(forwarder.links), 1)

    async def test_onTheWire(self) -> None:
        """
        With C{setKeepAlive(1, 2)} a stopped libvirtd is pinged twice, 1 s apart, and declared dead
        3 s after its last byte: a call in progress and C{whenClosed} fail with C{KeepAliveTimeout}.

        A new interval takes effect at once.  An interval or count of zero stops the pings, and a
        stopped libvirtd is not declared dead.  libvirtd's own pings are answered, whether this side
        pings or not.  A service keeps its connection to a healthy server.
        """
        await together(
            self._frozen(),
            self._changed(),
            self._stopped(0, 2),
            self._stopped(0.2, 0),
            self._pinged(),
            self._kept(),
        )


def _gaps(times: list[float]) -> list[float]:
    """
    @return: the seconds between consecutive times.
    """
    return [later - earlier for earlier, later in pairwise(times)]
