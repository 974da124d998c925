"""
Tests for L{kaproto.keepalive.heartbeat}.
"""

from __future__ import annotations

import gc
import weakref

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import KeepAliveTimeout
from kaproto.keepalive import suspicion
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import TICK

ADDRESS = IPv4Address("TCP", "192.0.2.1", 54321)


class Chat(LineReceiver):
    """
    A line-based protocol with a heartbeat of its own.
    """

    clock: IReactorTime

    def connectionMade(self) -> None:
        """
        Start the heartbeat.
        """
        self.heartbeat = Heartbeat(
            self.transport, ping=lambda: self.sendLine(b"PING"), clock=self.clock
        )
        self.heartbeat.start(KeepAlive(1, 2))

    def dataReceived(self, data: bytes) -> None:
        """
        Report every byte as a sign of life.
        """
        self.heartbeat.heard()
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        """
        Ignore the line.
        """


class Reader:
    """
    A stand-in for L{kaproto.keepalive.idlereader.IdleReader}.
    """

    def __init__(self, released: list[object]) -> None:
        self._released = released

    def release(self, heartbeat: object) -> None:
        """
        Record the heartbeat.
        """
        self._released.append(heartbeat)


class HeartbeatTestCase(SynchronousTestCase):
    """
    A test case with a clock and a transport.
    """

    def setUp(self) -> None:
        """
        Create a clock and a transport.
        """
        self.clock = Clock()
        self.transport = StringTransport(peerAddress=ADDRESS)
        self.deaths: list[KeepAliveTimeout] = []

    def heartbeat(self, keepAlive: KeepAlive | None = None) -> Heartbeat:
        """
        Create a heartbeat, and start it if C{keepAlive} is given.
        """
        heartbeat = Heartbeat(self.transport, b"?", died=self.deaths.append, clock=self.clock)
        if keepAlive is not None:
            heartbeat.start(keepAlive)
        return heartbeat

    def advance(self, seconds: float) -> None:
        """
        Advance the clock.
        """
        self.clock.pump([TICK] * round(seconds / TICK))

    def assertStopped(self) -> None:
        """
        Check that no timer is left.
        """
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HeartbeatTests(HeartbeatTestCase):
    """
    Tests for L{Heartbeat}.
    """

    def test_chat(self) -> None:
        """
        A line-based protocol pings with a line; any byte is a sign of life, and a silent peer is
        disconnected.
        """
        chat = Chat()
        chat.clock = self.clock
        chat.makeConnection(self.transport)
        self.advance(1.125)
        self.assertEqual(self.transport.value(), b"PING\r\n")
        chat.dataReceived(b"hal")
        self.assertEqual(chat.heartbeat.latency, 0.125)
        self.assertEqual(chat.heartbeat.silence, 0)
        self.advance(2.9)
        self.assertEqual(self.transport.value(), b"PING\r\n" * 3)
        self.assertFalse(self.transport.disconnected)
        self.advance(0.2)
        self.assertTrue(self.transport.disconnected)
        self.assertStopped()

    def test_ask(self) -> None:
        """
        A peer can be pinged at any time, and each of its answers is reported with the latency.
        """
        answers: list[float] = []
        heartbeat = self.heartbeat()
        heartbeat.ask(answers.append)
        self.assertEqual(self.transport.value(), b"?")
        self.clock.advance(0.25)
        heartbeat.answered()
        heartbeat.answered()
        heartbeat.start(KeepAlive(1, 2))
        self.advance(0.875)
        heartbeat.heard()
        self.assertEqual(answers, [0.25, 0.125])
        heartbeat.end()
        self.assertStopped()

    def test_askIdle(self) -> None:
        """
        An idle connection is given back to the reactor before it is pinged.
        """
        heartbeat = self.heartbeat()
        heartbeat.idle = 5
        released: list[object] = []
        heartbeat._monitor.idleReader = Reader(released)  # type: ignore[assignment]
        self.transport.pauseProducing()
        heartbeat.ask(lambda _latency: None)
        self.assertEqual(released, [heartbeat])
        self.assertEqual(self.transport.producerState, "producing")
        heartbeat.idle = -1

    def test_roundTrips(self) -> None:
        """
        Round-trip times are counted in a histogram, if there is one.
        """
        heartbeat = self.heartbeat(KeepAlive(1, 2))
        heartbeat.roundTrips = Histogram()
        self.advance(1.125)
        heartbeat.heard()
        self.assertEqual((heartbeat.roundTrips.total, heartbeat.roundTrips.sum), (1, 0.125))
        heartbeat.stop()

    def test_death(self) -> None:
        """
        C{died} is called once, with the interval, the count and the silence, and the heartbeat does
        not close the connection itself.
        """
        self.heartbeat(KeepAlive(1, 2))
        self.advance(5)
        (reason,) = self.deaths
        self.assertEqual((reason.interval, reason.count), (1, 2))
        self.assertApproximates(reason.silence, 3, TICK)
        self.assertFalse(self.transport.disconnected)
        self.assertEqual(self.transport.value(), b"??")
        self.assertStopped()

    def test_startAndStop(self) -> None:
        """
        A start replaces the terms. A stop, or a start with a zero, ends the heartbeat, and it can
        be started again.
        """
        heartbeat = self.heartbeat(KeepAlive(10, 5))
        self.assertEqual(heartbeat.keepAlive, KeepAlive(10, 5))
        heartbeat.start(KeepAlive(1, 2))
        self.assertEqual(heartbeat.keepAlive, KeepAlive(1, 2))
        for stop in (heartbeat.stop, lambda: heartbeat.start(KeepAlive(1, 0))):
            heartbeat.start(KeepAlive(1, 2))
            stop()
            self.assertEqual(heartbeat.keepAlive, KeepAlive(0, 0))
            self.assertStopped()

    def test_endOfTransport(self) -> None:
        """
        A heartbeat whose transport has ended sends no ping and reports no death.
        """
        for before, pings in ((0.5, b""), (2.5, b"??")):
            self.transport = StringTransport(peerAddress=ADDRESS)
            self.heartbeat(KeepAlive(1, 2))
            self.advance(before)
            self.transport.disconnected = True
            self.advance(5)
            self.assertEqual(self.transport.value(), pings)
            self.assertEqual(self.deaths, [])
            self.assertStopped()

    def test_stoppedBetweenCheckAndPing(self) -> None:
        """
        A heartbeat that is stopped when a ping is already due does not send it.
        """
        heartbeat = self.heartbeat(KeepAlive(1, 2))
        heartbeat.due(1)
        heartbeat.stop()
        heartbeat.sendPing()
        self.assertEqual(self.transport.value(), b"")

    def test_pause(self) -> None:
        """
        While reading is paused, the peer is not pinged and its silence does not count.
        """
        heartbeat = self.heartbeat(KeepAlive(1, 2))
        self.advance(2.5)
        heartbeat.pause()
        self.advance(100)
        heartbeat.resume()
        self.advance(0.25)
        self.assertEqual((self.transport.value(), self.deaths), (b"??", []))
        self.advance(0.5)
        self.assertEqual(len(self.deaths), 1)
        self.assertStopped()

    def test_unread(self) -> None:
        """
        A silent peer whose bytes wait to be read is alive, and gets its full time again.
        """
        unread = [True]
        self.patch(suspicion, "hasUnread", lambda _transport: unread[0])
        self.heartbeat(KeepAlive(1, 2))
        self.advance(5.5)
        self.assertEqual((self.transport.value(), self.deaths), (b"????", []))
        unread[0] = False
        self.advance(0.75)
        self.assertEqual(len(self.deaths), 1)

    def test_cannotSay(self) -> None:
        """
        If a transport cannot tell whether bytes wait to be read, the reactor gets a turn before the
        verdict.
        """
        heartbeat = self.heartbeat(KeepAlive(1, 1))
        self.assertEqual(heartbeat.due(1), 2)
        self.assertEqual(heartbeat.due(2), 2)
        self.assertEqual(self.deaths, [])
        self.assertIsNone(heartbeat.due(2))
        self.assertEqual(len(self.deaths), 1)
        heartbeat.stop()

    def test_busy(self) -> None:
        """
        A peer that cannot answer yet is not pinged, and its silence does not count. Later it is
        pinged by the function given.
        """
        busy = [True]
        pings: list[float] = []
        heartbeat = self.heartbeat(KeepAlive(1, 2))
        heartbeat.relay(lambda: pings.append(self.clock.seconds()), lambda: busy[0], lambda: False)
        self.advance(5.5)
        busy[0] = False
        self.advance(1)
        self.assertEqual((pings, self.transport.value()), ([6], b""))
        heartbeat.stop()

    def test_failingPing(self) -> None:
        """
        A ping that raises an error is logged, and the peer's silence still counts.
        """
        heartbeat = Heartbeat(self.transport, lambda: 1 / 0, clock=self.clock)
        self.assertIn("192.0.2.1", repr(heartbeat))
        heartbeat.start(KeepAlive(1, 1))
        self.advance(2.5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.transport.disconnected)

    def test_end(self) -> None:
        """
        An ended heartbeat has no reference to the protocol, which is freed without the garbage
        collector.
        """
        chat = Chat()
        chat.clock = self.clock
        chat.makeConnection(self.transport)
        chat.heartbeat.end()
        alive = weakref.ref(chat)
        gc.disable()
        self.addCleanup(gc.enable)
        del chat
        self.assertIsNone(alive())
        self.assertStopped()
