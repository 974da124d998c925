"""
Tests for L{kaproto.keepalive.idlereader}.
"""

from __future__ import annotations

import os
import select
import socket
from typing import cast
from unittest import mock

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.idlereader import BATCH, WAKES, IdleReader
from kaproto.keepalive.liveness import Liveness
from kaproto.keepalive.pacemaker import Pacemaker
from kaproto.testing import MemoryTransport
from kaproto.transport import StreamTransport
from kaproto.wire.message import PING, PONG
from tests.support_sockets import tcpPair


class Connected(Protocol):
    """
    A connection that records what it receives.
    """

    idle = -1
    pong = PONG
    pingedAt: float | None = None
    latency: float | None = None
    roundTrips: Histogram | None = None

    def __init__(self, liveness: Liveness) -> None:
        self.liveness = liveness
        self.received = b""
        self.lost: Failure | None = None
        self.raises: Exception | None = None

    def dataReceived(self, data: bytes) -> None:
        """
        Record the bytes, or raise an error.
        """
        if self.raises is not None:
            raise self.raises
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the reason.
        """
        self.lost = reason


class UNIXConnection(unix.Server):
    """
    A transport on a UNIX socket.
    """

    def __init__(self, ours: socket.socket, protocol: Protocol, reactor: IReactorFDSet) -> None:
        tcp.Connection.__init__(self, ours, protocol, reactor)


class IdleReaderTests(SynchronousTestCase):
    """
    Tests for L{IdleReader}.
    """

    def setUp(self) -> None:
        """
        Create a reader and a reactor.
        """
        if not hasattr(select, "epoll"):
            raise SkipTest("this system has no epoll")
        self.reactor = MemoryReactorClock()
        clock = Clock()
        self.pacemaker = Pacemaker(clock)
        clock.advance(0.125)
        self.reader = IdleReader(cast(IReactorFDSet, self.reactor), self.pacemaker)

    def connect(self, kind: type[tcp.Connection] = tcp.Connection) -> Connected:
        """
        Connect a client that was last heard at 0 s.
        """
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        self.addCleanup(peer.close)
        self.addCleanup(ours.close)
        liveness = Liveness(0.0)
        liveness.unanswered = 2
        connected = Connected(liveness)
        transport = kind(ours, connected, self.reactor)
        transport.logstr = "connected"
        transport.connected = True
        transport.startReading()
        connected.makeConnection(transport)
        connected.peer = peer  # type: ignore[attr-defined]
        return connected

    def idle(self) -> Connected:
        """
        Connect a client whose connection is idle.
        """
        connected = self.connect()
        self.take(connected)
        self.assertGreaterEqual(connected.idle, 0)
        return connected

    def take(self, connected: Connected) -> None:
        """
        Give a connection to the reader.
        """
        self.reader.take(connected)  # type: ignore[arg-type]

    def release(self, connected: Connected) -> None:
        """
        Take a connection from the reader.
        """
        self.reader.release(connected)  # type: ignore[arg-type]

    def send(self, connected: Connected, data: bytes) -> None:
        """
        Send bytes from the client, and let the reader read.
        """
        connected.peer.sendall(data)  # type: ignore[attr-defined]
        self.reader.doRead()

    def assertAwake(self, connected: Connected) -> None:
        """
        Check that the reactor reads the connection, and the reader has no other.
        """
        self.assertIn(connected.transport, self.reactor.getReaders())
        self.assertLess(connected.idle, 0)
        self.assertEqual(len(self.reader), 0)
        self.assertNotIn(self.reader, self.reactor.getReaders())
        self.assertEqual(self.reader.fileno(), -1)

    def test_log(self) -> None:
        """
        The reader has a name for the log.
        """
        self.assertEqual(self.reader.logPrefix(), "idle connections")

    def test_taken(self) -> None:
        """
        The reactor polls the reader instead of the idle connections.
        """
        first, second = self.idle(), self.idle()
        self.assertEqual(self.reactor.getReaders(), [self.reader])
        self.assertEqual(len(self.reader), 2)
        self.release(first)
        self.assertEqual(self.reactor.getReaders(), [self.reader])
        self.release(second)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reader.fileno(), -1)

    def test_pong(self) -> None:
        """
        A pong is a sign of life and answers all pings; the connection stays idle.
        """
        connected = self.idle()
        self.send(connected, PONG)
        self.assertEqual(connected.liveness.heard, 0.125)
        self.assertEqual(connected.liveness.unanswered, 0)
        self.assertEqual(connected.received, b"")
        self.assertGreaterEqual(connected.idle, 0)

    def test_latency(self) -> None:
        """
        The round trip of a ping is measured, and counted as L{Histogram.add} does.
        """
        connected = self.idle()
        for roundTrips in (None, Histogram()):
            connected.pingedAt, connected.roundTrips = 0.0, roundTrips
            self.send(connected, PONG)
            self.assertEqual((connected.latency, connected.pingedAt), (0.125, None))
        expected = Histogram()
        expected.add(0.125)
        self.assertEqual(connected.roundTrips, expected)

    def test_twoPongs(self) -> None:
        """
        Of two pongs, the second is read in the next turn.
        """
        connected = self.idle()
        self.send(connected, PONG + PONG)
        connected.liveness.unanswered = 1
        self.reader.doRead()
        self.assertEqual(connected.liveness.unanswered, 0)
        self.assertGreaterEqual(connected.idle, 0)

    def test_anythingElse(self) -> None:
        """
        Other bytes are delivered and the connection is given back to the reactor, which reads the
        rest.
        """
        for data in (PING, PONG[:5], PONG[:-1] + b"\1", b"x" * 100):
            connected = self.idle()
            self.send(connected, data)
            self.assertAwake(connected)
            connected.transport.doRead()  # type: ignore[union-attr]
            self.assertEqual(connected.received, data)
            self.assertEqual(connected.liveness.unanswered, 2)
            connected.transport.stopReading()  # type: ignore[union-attr]

    def test_tooEarly(self) -> None:
        """
        Reading without an event is harmless.
        """
        self.reader.doRead()
        connected = self.idle()
        self.reader.doRead()
        self.assertGreaterEqual(connected.idle, 0)

    def test_spuriousEvent(self) -> None:
        """
        A connection stays idle after an event without data.
        """
        connected = self.idle()
        connected.peer.sendall(PONG)  # type: ignore[attr-defined]
        poller = self.reader._poller
        events = poller.poll(0)  # type: ignore[union-attr]
        connected.transport.getHandle().recv(100)  # type: ignore[union-attr]
        with mock.patch.object(self.reader, "_poller") as again:
            again.poll.return_value = events
            self.reader.doRead()
        self.assertGreaterEqual(connected.idle, 0)
        self.assertEqual(connected.liveness.unanswered, 2)

    def test_end(self) -> None:
        """
        A closed connection is given back to the reactor.
        """
        connected = self.idle()
        connected.peer.close()  # type: ignore[attr-defined]
        self.reader.doRead()
        self.assertAwake(connected)
        self.assertEqual(connected.received, b"")

    def test_reset(self) -> None:
        """
        A reset connection is given back to the reactor.
        """
        peer, ours = tcpPair(self)
        ours.setblocking(False)
        connected = Connected(Liveness(1.0))
        transport = tcp.Connection(ours, connected, self.reactor)
        transport.connected = True
        transport.startReading()
        connected.makeConnection(transport)
        self.take(connected)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        self.assertEqual(select.select([ours], [], [], 10)[0], [ours])
        self.reader.doRead()
        self.assertAwake(connected)

    def test_failure(self) -> None:
        """
        A connection whose C{dataReceived} raises an error is aborted, and the error is logged.
        """
        connected = self.idle()
        connected.raises = RuntimeError("a defect")
        with capturedLogs() as events:
            self.send(connected, PING)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(events), 1)
        self.assertTrue(connected.transport._aborting)  # type: ignore[union-attr]

    def test_closing(self) -> None:
        """
        A connection that is closing receives nothing more.
        """
        connected = self.idle()
        connected.transport.loseConnection()  # type: ignore[union-attr]
        self.send(connected, PING)
        self.assertEqual(connected.received, b"")
        self.assertEqual(len(self.reader), 0)

    def test_startTLS(self) -> None:
        """
        If the transport's protocol was replaced, the new one receives the bytes.
        """
        connected, between = self.idle(), Connected(Liveness(1.0))
        connected.transport.protocol = between  # type: ignore[union-attr]
        self.send(connected, b"\x16")
        self.assertEqual((connected.received, between.received), (b"", b"\x16"))

    def test_releasedAfterClose(self) -> None:
        """
        A connection can be released after its socket was closed, and twice.
        """
        connected = self.idle()
        connected.transport.getHandle().close()  # type: ignore[union-attr]
        self.release(connected)
        self.release(connected)
        self.assertEqual(len(self.reader), 0)

    def test_releasedByAnother(self) -> None:
        """
        A connection may release another one whose event is still to be handled.
        """
        first, second = self.idle(), self.idle()
        received = []
        for connected, other in ((first, second), (second, first)):
            connected.peer.sendall(PING)  # type: ignore[attr-defined]

            def dataReceived(data: bytes, other: Connected = other) -> None:
                received.append(data)
                self.release(other)

            connected.dataReceived = dataReceived  # type: ignore[method-assign]
        self.reader.doRead()
        self.assertEqual(received, [PING])

    def test_unsuitable(self) -> None:
        """
        Only open TCP connections without TLS are taken.
        """
        tls, gone, closing = self.connect(), self.connect(), self.connect()
        tls.transport.TLS = True  # type: ignore[union-attr]
        gone.transport.connected = False  # type: ignore[union-attr]
        closing.transport.disconnecting = True  # type: ignore[union-attr]
        inMemory = Connected(Liveness(1.0))
        inMemory.transport = cast(StreamTransport, mock.create_autospec(MemoryTransport))  # type: ignore[assignment]
        for connected in (tls, gone, closing, inMemory, self.connect(UNIXConnection)):
            self.take(connected)
            self.assertLess(connected.idle, 0)
        self.assertEqual(len(self.reader), 0)
        self.assertNotIn(self.reader, self.reactor.getReaders())

    def test_noEpollLeft(self) -> None:
        """
        If no epoll can be opened, the reactor continues to read the connection.
        """
        connected = self.connect()
        with mock.patch("select.epoll", side_effect=OSError("too many open files")):
            self.take(connected)
        self.assertAwake(connected)

    def test_noRoomInEpoll(self) -> None:
        """
        If the epoll accepts no more descriptors, the reactor continues to read the connection.
        """
        connected = self.connect()
        with mock.patch("select.epoll") as epoll:
            epoll.return_value.register.side_effect = OSError("no space left")
            self.take(connected)
        self.assertAwake(connected)

    def test_crowd(self) -> None:
        """
        If many connections receive data at once, the reactor gets a turn in between.
        """
        crowd = [self.idle() for _ in range(WAKES + 10)]
        for connected in crowd:
            connected.peer.sendall(PING)  # type: ignore[attr-defined]
        self.reader.doRead()
        self.assertEqual(sum(connected.received == PING for connected in crowd), WAKES)
        self.reader.doRead()
        self.assertEqual(sum(connected.received == PING for connected in crowd), len(crowd))

    def test_pongsOfACrowd(self) -> None:
        """
        If many connections receive pongs at once, the reactor gets a turn in between, and all are
        read.
        """
        crowd = [self.idle() for _ in range(BATCH + 10)]
        for connected in crowd:
            connected.peer.sendall(PONG)  # type: ignore[attr-defined]
        self.reader.doRead()
        self.assertEqual(sum(not connected.liveness.unanswered for connected in crowd), BATCH)
        self.reader.doRead()
        self.assertEqual(sum(not connected.liveness.unanswered for connected in crowd), len(crowd))

    def test_shutdown(self) -> None:
        """
        When the reactor shuts down, the reader reports it to the idle connections.
        """
        connected = self.idle()
        self.reader.connectionLost(Failure(ConnectionLost()))
        self.assertIsNotNone(connected.lost)
        self.assertEqual(len(self.reader), 0)

    def test_where(self) -> None:
        """
        There is a reader only with epoll and a reactor that polls file descriptors.
        """
        self.assertIsNotNone(IdleReader.orNone(self.reactor, self.pacemaker))
        self.assertIsNone(IdleReader.orNone(Clock(), self.pacemaker))
        with mock.patch.object(select, "epoll"):
            del select.epoll
            self.assertIsNone(IdleReader.orNone(self.reactor, self.pacemaker))

    def test_descriptors(self) -> None:
        """
        A reader without connections has no open file descriptor.
        """
        connected = self.connect()
        self.assertEqual(self.reader.fileno(), -1)
        self.take(connected)
        opened = self.reader.fileno()
        os.fstat(opened)
        self.release(connected)
        self.assertEqual(self.reader.fileno(), -1)
        self.assertRaises(OSError, os.fstat, opened)
