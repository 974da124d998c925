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
    A connection that keeps what it is given.
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
        Keep it, or fail.
        """
        if self.raises is not None:
            raise self.raises
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Keep the reason.
        """
        self.lost = reason


class UNIXConnection(unix.Server):
    """
    A connection by a UNIX socket, as far as it matters here.
    """

    def __init__(self, ours: socket.socket, protocol: Protocol, reactor: IReactorFDSet) -> None:
        tcp.Connection.__init__(self, ours, protocol, reactor)


class IdleReaderTests(SynchronousTestCase):
    """
    Idle connections are read past the reactor, until they are not idle any more.
    """

    def setUp(self) -> None:
        """
        Have a reader in a reactor.
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
        Connect a client whose first sign of life was at 0.
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
        Connect a client that is idle.
        """
        connected = self.connect()
        self.take(connected)
        self.assertGreaterEqual(connected.idle, 0)
        return connected

    def take(self, connected: Connected) -> None:
        """
        Have the reader read from it, if it can.
        """
        self.reader.take(connected)  # type: ignore[arg-type]

    def release(self, connected: Connected) -> None:
        """
        Have the reader not read from it.
        """
        self.reader.release(connected)  # type: ignore[arg-type]

    def send(self, connected: Connected, data: bytes) -> None:
        """
        Have the client say something, and the reader look.
        """
        connected.peer.sendall(data)  # type: ignore[attr-defined]
        self.reader.doRead()

    def assertAwake(self, connected: Connected) -> None:
        """
        The reactor reads from it and the reader does not.
        """
        self.assertIn(connected.transport, self.reactor.getReaders())
        self.assertLess(connected.idle, 0)
        self.assertEqual(len(self.reader), 0)
        self.assertNotIn(self.reader, self.reactor.getReaders())
        self.assertEqual(self.reader.fileno(), -1)

    def test_log(self) -> None:
        """
        The log can tell who it was.
        """
        self.assertEqual(self.reader.logPrefix(), "idle connections")

    def test_taken(self) -> None:
        """
        The reactor waits for the reader instead of the connections.
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
        A pong is a sign of life and acknowledges the pings; the connection stays idle.
        """
        connected = self.idle()
        self.send(connected, PONG)
        self.assertEqual(connected.liveness.heard, 0.125)
        self.assertEqual(connected.liveness.unanswered, 0)
        self.assertEqual(connected.received, b"")
        self.assertGreaterEqual(connected.idle, 0)

    def test_latency(self) -> None:
        """
        The answer to a ping is measured, and counted where that is wanted, as
        L{Histogram.add} counts it.
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
        Of two pongs the second is read in the next turn.
        """
        connected = self.idle()
        self.send(connected, PONG + PONG)
        connected.liveness.unanswered = 1
        self.reader.doRead()
        self.assertEqual(connected.liveness.unanswered, 0)
        self.assertGreaterEqual(connected.idle, 0)

    def test_anythingElse(self) -> None:
        """
        Anything else is handed on and ends the idleness; the reactor reads the rest.
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
        Nobody minds when the reader is asked to read and there is nothing.
        """
        self.reader.doRead()
        connected = self.idle()
        self.reader.doRead()
        self.assertGreaterEqual(connected.idle, 0)

    def test_spuriousEvent(self) -> None:
        """
        A socket that has nothing after all leaves its connection idle.
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
        The reactor finds out itself that the client has closed.
        """
        connected = self.idle()
        connected.peer.close()  # type: ignore[attr-defined]
        self.reader.doRead()
        self.assertAwake(connected)
        self.assertEqual(connected.received, b"")

    def test_reset(self) -> None:
        """
        The reactor finds out itself that the connection was reset.
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
        A connection that fails to take in what it received is closed, and the log has the reason.
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
        A connection that is being closed gets nothing more.
        """
        connected = self.idle()
        connected.transport.loseConnection()  # type: ignore[union-attr]
        self.send(connected, PING)
        self.assertEqual(connected.received, b"")
        self.assertEqual(len(self.reader), 0)

    def test_startTLS(self) -> None:
        """
        Where something has come between the transport and the connection, that gets the bytes.
        """
        connected, between = self.idle(), Connected(Liveness(1.0))
        connected.transport.protocol = between  # type: ignore[union-attr]
        self.send(connected, b"\x16")
        self.assertEqual((connected.received, between.received), (b"", b"\x16"))

    def test_releasedAfterClose(self) -> None:
        """
        A connection whose socket is closed already can be released, and twice.
        """
        connected = self.idle()
        connected.transport.getHandle().close()  # type: ignore[union-attr]
        self.release(connected)
        self.release(connected)
        self.assertEqual(len(self.reader), 0)

    def test_releasedByAnother(self) -> None:
        """
        What one connection does may release another whose turn it would be.
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
        What is not a plain TCP connection that is up stays as it is.
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
        Where the process may open no more files, the reactor reads on.
        """
        connected = self.connect()
        with mock.patch("select.epoll", side_effect=OSError("too many open files")):
            self.take(connected)
        self.assertAwake(connected)

    def test_noRoomInEpoll(self) -> None:
        """
        Where the epoll takes no more, the reactor reads on.
        """
        connected = self.connect()
        with mock.patch("select.epoll") as epoll:
            epoll.return_value.register.side_effect = OSError("no space left")
            self.take(connected)
        self.assertAwake(connected)

    def test_crowd(self) -> None:
        """
        When many have something to say at once, the reactor gets its turn in between.
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
        Not even pongs keep the reactor from its turn, and everybody is heard in the end.
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
        A reactor that shuts down tells those it reads from; the reader tells the idle ones.
        """
        connected = self.idle()
        self.reader.connectionLost(Failure(ConnectionLost()))
        self.assertIsNotNone(connected.lost)
        self.assertEqual(len(self.reader), 0)

    def test_where(self) -> None:
        """
        There is a reader where there are both epoll and a reactor that waits for files.
        """
        self.assertIsNotNone(IdleReader.orNone(self.reactor, self.pacemaker))
        self.assertIsNone(IdleReader.orNone(Clock(), self.pacemaker))
        with mock.patch.object(select, "epoll"):
            del select.epoll
            self.assertIsNone(IdleReader.orNone(self.reactor, self.pacemaker))

    def test_descriptors(self) -> None:
        """
        A reader that has nobody to read from has no file open.
        """
        connected = self.connect()
        self.assertEqual(self.reader.fileno(), -1)
        self.take(connected)
        opened = self.reader.fileno()
        os.fstat(opened)
        self.release(connected)
        self.assertEqual(self.reader.fileno(), -1)
        self.assertRaises(OSError, os.fstat, opened)
