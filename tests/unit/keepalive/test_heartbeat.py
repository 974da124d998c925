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
    A protocol that parses for itself and has a heartbeat.
    """

    clock: IReactorTime

    def connectionMade(self) -> None:
        """
        Have the peer watched.
        """
        self.heartbeat = Heartbeat(
            self.transport, ping=lambda: self.sendLine(b"PING"), clock=self.clock
        )
        self.heartbeat.start(KeepAlive(1, 2))

    def dataReceived(self, data: bytes) -> None:
        """
        Anything is a sign of life.
        """
        self.heartbeat.heard()
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        """
        Pass over what the peer says.
        """


class Reader:
    """
    In the place of an L{kaproto.keepalive.idlereader.IdleReader}.
    """

    def __init__(self, released: list[object]) -> None:
        self._released = released

    def release(self, heartbeat: object) -> None:
        """
        Remember it.
        """
        self._released.append(heartbeat)


class HeartbeatTestCase(SynchronousTestCase):
    """
    A test with time of its own and a transport.
    """

    def setUp(self) -> None:
        """
        Stop the time.
        """
        self.clock = Clock()
        self.transport = StringTransport(peerAddress=ADDRESS)
        self.deaths: list[KeepAliveTimeout] = []

    def heartbeat(self, keepAlive: KeepAlive | None = None) -> Heartbeat:
        """
        Have a peer watched.
        """
        heartbeat = Heartbeat(self.transport, b"?", died=self.deaths.append, clock=self.clock)
        if keepAlive is not None:
            heartbeat.start(keepAlive)
        return heartbeat

    def advance(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self.clock.pump([TICK] * round(seconds / TICK))

    def assertStopped(self) -> None:
        """
        Fail if anybody is watched.
        """
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HeartbeatTests(HeartbeatTestCase):
    """
    A peer that is watched.
    """

    def test_chat(self) -> None:
        """
        A protocol of lines pings with a line of its own; a peer that says anything lives, and one
        that does not is aborted.
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
        A peer can be pinged at any time, watched or not, and every answer from then on is told.
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
        A connection whose pongs are read past the reactor is read by it again.
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
        Answers are counted by how long they took, where somebody wants that.
        """
        heartbeat = self.heartbeat(KeepAlive(1, 2))
        heartbeat.roundTrips = Histogram()
        self.advance(1.125)
        heartbeat.heard()
        self.assertEqual((heartbeat.roundTrips.total, heartbeat.roundTrips.sum), (1, 0.125))
        heartbeat.stop()

    def test_death(self) -> None:
        """
        Whoever wants to know of a death is told once, with the numbers, and does what it likes.
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
        A start replaces the terms; zeros and a stop end the watch, after which it can be started
        again.
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
        When the transport has ended, no ping is sent and nobody is told of a death, whether that
        happened before the first ping or after the last.
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
        A watch that ends after a ping was found to be due sends none.
        """
        heartbeat = self.heartbeat(KeepAlive(1, 2))
        heartbeat.due(1)
        heartbeat.stop()
        heartbeat.sendPing()
        self.assertEqual(self.transport.value(), b"")

    def test_pause(self) -> None:
        """
        While the peer is not read its silence does not count, nor is it pinged.
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
        A peer whose time is up lives if something from it is waiting to be read, and has its
        whole time again.
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
        Of a transport that does not tell what waits, the reactor gets a turn before the verdict.
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
        A peer that cannot answer yet is not pinged, and its silence so far does not count; one
        that can is pinged the other way.
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
        A ping that cannot be sent is logged, and the peer's silence is judged as ever.
        """
        heartbeat = Heartbeat(self.transport, lambda: 1 / 0, clock=self.clock)
        self.assertIn("192.0.2.1", repr(heartbeat))
        heartbeat.start(KeepAlive(1, 1))
        self.advance(2.5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.transport.disconnected)

    def test_end(self) -> None:
        """
        After its end a heartbeat holds nothing of the protocol, so that it takes no garbage
        collector to free it.
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
