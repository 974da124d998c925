"""
Tests for L{kaproto.rpc.protocol}.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import IFileDescriptorReceiver, IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import (
    ConnectionClosed,
    KeepAliveTimeout,
    PeerFlooded,
)
from kaproto.keepalive import suspicion
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.idlereader import Idler, IdleReader
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import STEP
from kaproto.rpc.protocol import KeepAliveFactory
from kaproto.rpc.reading import Pause
from kaproto.wire.filter import MessageFilter
from kaproto.wire.message import (
    PING,
    PONG,
    Message,
    MessageType,
    packMessage,
)
from kaproto.wire.programs import KEEPALIVE_PROGRAM
from tests.support import KEEPALIVE, Wire
from tests.support_protocol import HELLO, Plain, ProtocolTestCase, keepsKeepAlive

FLOOD_OF_PONGS = 64
"""
The number of pongs that a peer may leave unread.
"""


class FactoryTests(SynchronousTestCase):
    """
    Tests for the state that a factory's connections share.
    """

    def test_reactor(self) -> None:
        """
        By default a factory uses the reactor and the monotonic clock, because the reactor's own
        time follows the wall clock.
        """
        from twisted.internet import reactor

        factory = KeepAliveFactory()
        self.assertIs(factory.clock, monotonicClock(IReactorTime(reactor)))
        self.assertIs(factory.seconds, time.monotonic)

    def test_clock(self) -> None:
        """
        A L{Clock} is used for all times.
        """
        clock = Clock()
        factory = KeepAliveFactory(cast(IReactorTime, clock))
        clock.advance(7)
        self.assertIs(factory.clock, clock)
        self.assertEqual(factory.seconds(), 7)


class KeepAliveTests(ProtocolTestCase):
    """
    Tests for pings, pongs and silence.
    """

    def test_quietUntilStarted(self) -> None:
        """
        Before keepalive is started no pings are sent and no timer runs.
        """
        wire = self.plain()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(wire.protocol.keepAlive, KeepAlive(0, 0))

    def test_death(self) -> None:
        """
        A silent peer is pinged C{count} times, once per interval, and then aborted with a
        L{KeepAliveTimeout} that gives the numbers.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.assertEqual(wire.protocol.keepAlive, KEEPALIVE)
        self.advance(2.9)
        self.assertEqual(wire.taken(), PING * 2)
        self.advance(0.2)
        self.assertTrue(wire.aborted)
        reason = self.reasonOf(wire)
        assert isinstance(reason, KeepAliveTimeout)
        self.assertEqual((reason.interval, reason.count), (1, 2))
        self.assertApproximates(reason.silence, 3, 0.05)

    def test_exactDeath(self) -> None:
        """
        A ping may be sent one turn of the wheel late, but a dead peer is aborted on time.
        """
        wires = [self.plain() for _ in range(20)]
        dues: dict[Wire[Plain], float] = {}
        for number, wire in enumerate(wires):
            wire.protocol._kaproto.startKeepAlive(KeepAlive(0.7 + number / 1000, 1 + number % 3))
            dues[wire] = (0.7 + number / 1000) * (2 + number % 3)
        alive = set(wires)
        while alive:
            self.clock.advance(STEP)
            now = self.clock.seconds()
            for wire in list(alive):
                if wire.aborted:
                    alive.remove(wire)
                    self.assertTrue(dues[wire] <= now <= dues[wire] + 2 * STEP, (dues[wire], now))
            self.assertLess(now, 4)
        pinged = [len(wire.taken()) // len(PING) for wire in wires]
        self.assertEqual(pinged, [1 + number % 3 for number in range(20)])

    def test_acknowledged(self) -> None:
        """
        A pong acknowledges all earlier pings, and the count starts again.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.advance(2.5)
        wire.feed(PONG)
        self.advance(2.9)
        self.assertEqual(wire.taken(), PING * 4)
        self.assertFalse(wire.closing)
        self.advance(0.2)
        self.assertTrue(wire.aborted)

    def test_lastChance(self) -> None:
        """
        A peer is aborted only when it is found dead twice, with a chance to read its bytes in
        between.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        for now in (1, 2, 3):
            self.assertIsNotNone(wire.protocol._kaproto.heartbeat.due(now))
        wire.feed(PONG)
        for now in (4, 5, 6):
            self.assertIsNotNone(wire.protocol._kaproto.heartbeat.due(now))
        self.assertFalse(wire.closing)
        self.assertIsNone(wire.protocol._kaproto.heartbeat.due(6))
        self.assertTrue(wire.aborted)

    def test_anythingIsLife(self) -> None:
        """
        A pong, a message or a part of one postpones the next ping by one interval.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        for life in (PONG, packMessage(HELLO), packMessage(HELLO)[:1]):
            self.advance(0.75)
            wire.feed(life)
        self.advance(0.75)
        self.assertEqual(wire.taken(), b"")
        self.assertApproximates(wire.protocol.silence, 0.75, 0.05)
        self.advance(0.5)
        self.assertEqual(wire.taken(), PING)

    def test_replaced(self) -> None:
        """
        Starting keepalive again replaces interval and count immediately.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KeepAlive(10, 5))
        self.advance(1.5)
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.advance(0.1)
        self.assertEqual(wire.taken(), PING)

    def test_zeroStops(self) -> None:
        """
        An interval or count of 0 stops keepalive and its timer.
        """
        for zero in (KeepAlive(0, 2), KeepAlive(1, 0)):
            wire = self.plain()
            wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
            wire.protocol._kaproto.startKeepAlive(zero)
            self.assertEqual(wire.protocol.keepAlive, KeepAlive(0, 0))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closedMeanwhile(self) -> None:
        """
        No ping is sent if the connection closes after the ping became due.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        wire.protocol._kaproto.heartbeat.due(1)
        (pinged,) = wire.protocol._kaproto.heartbeat.pacemaker._pings
        wire.protocol._kaproto.disconnect(ConnectionClosed("enough"))
        pinged.sendPing()
        self.assertEqual(wire.taken(), b"")

    def test_notWhenClosing(self) -> None:
        """
        Keepalive does not start on a closing connection.
        """
        wire = self.plain()
        wire.protocol._kaproto.abort(ConnectionClosed("enough"))
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_earlyBeat(self) -> None:
        """
        C{due}, called too early, returns the time of the next ping.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.assertEqual(wire.protocol._kaproto.heartbeat.due(0.5), 1)
        self.assertEqual(wire.taken(), b"")

    def test_latency(self) -> None:
        """
        C{latency} is the round trip of the latest answered ping, whether the pong arrives alone or
        with other bytes.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.assertIsNone(wire.protocol.latency)
        for before, latency in ((b"", 0.125), (packMessage(HELLO), 0.25)):
            self.untilPinged(wire)
            self.clock.advance(latency)
            wire.feed(before + PONG)
            self.assertEqual(wire.protocol.latency, latency)
            self.clock.advance(0.25)
            wire.feed(before + PONG)
            self.assertEqual(wire.protocol.latency, latency)

    def test_unaskedPong(self) -> None:
        """
        A pong without a ping is only a sign of life.
        """
        wire = self.plain()
        wire.feed(PONG)
        wire.feed(HELLO, PONG)
        self.assertIsNone(wire.protocol.latency)
        self.assertEqual(wire.protocol.messages, [HELLO])

    def test_pong(self) -> None:
        """
        A ping is answered at once, whatever its serial, status and payload.
        """
        wire = self.plain()
        wire.feed(PING)
        self.assertEqual(wire.taken(), PONG)
        odd = Message(KEEPALIVE_PROGRAM, 1, 1, MessageType.MESSAGE, 9, 1, b"more")
        wire.feed(HELLO, odd)
        self.assertEqual(wire.taken(), PONG)

    def test_otherKeepAliveMessages(self) -> None:
        """
        Keepalive messages of another version or an unknown procedure are ignored; a keepalive call
        is delivered like other messages.
        """
        wire = self.plain()
        asCall = Message(KEEPALIVE_PROGRAM, 1, 1, MessageType.CALL, 0, 0)
        wire.feed(
            Message(KEEPALIVE_PROGRAM, 2, 1, MessageType.MESSAGE, 0, 0),
            Message(KEEPALIVE_PROGRAM, 1, 3, MessageType.MESSAGE, 0, 0),
            asCall,
        )
        self.assertEqual(wire.taken(), b"")
        self.assertEqual(wire.protocol.messages, [asCall])

    def test_pingFlood(self) -> None:
        """
        A peer that exceeds its budget of pings per second is aborted.
        """
        self.clock.advance(10)
        wire = self.plain()
        wire.feed(PING * wire.protocol.factory.limits.pingBudget)
        self.turns()
        self.assertFalse(wire.closing)
        wire.feed(PING)
        self.assertTrue(wire.aborted)
        reason = self.reasonOf(wire)
        self.assertIsInstance(reason, PeerFlooded)
        self.assertIn("more than 100 pings in a second", str(reason))

    def test_pingBudgetIsPerSecond(self) -> None:
        """
        The budget is available again in the next second.
        """
        wire = self.plain()
        for _second in range(3):
            wire.feed(PING * wire.protocol.factory.limits.pingBudget)
            self.clock.advance(1)
        self.assertFalse(wire.closing)

    def test_pingsPiledUp(self) -> None:
        """
        A peer may catch up on pings that piled up while it was not read: up to ten seconds' worth,
        beside the current second's.
        """
        for seconds, allowed in ((1, 1), (2, 2), (3.5, 3), (11, 11), (1000, 11)):
            wire = self.plain()
            self.clock.advance(seconds)
            wire.feed(PING * (allowed * wire.protocol.factory.limits.pingBudget))
            self.turns(20)
            self.assertFalse(wire.closing)
            wire.feed(PING)
            self.assertIsInstance(self.reasonOf(wire), PeerFlooded)

    def test_pingsSavedUpOnce(self) -> None:
        """
        Saved budget can be used only once.
        """
        wire = self.plain()
        self.clock.advance(5)
        wire.feed(PING * (5 * wire.protocol.factory.limits.pingBudget))
        self.turns(20)
        self.clock.advance(1)
        wire.feed(PING * wire.protocol.factory.limits.pingBudget)
        self.turns(20)
        self.assertFalse(wire.closing)
        wire.feed(PING)
        self.assertIsInstance(self.reasonOf(wire), PeerFlooded)

    def test_unreadPongs(self) -> None:
        """
        A peer that pings and does not read the pongs is aborted before they fill the memory; a peer
        that reads in time is not.
        """
        wire = self.plain()
        wire.protocol._kaproto.pauseProducing()
        wire.feed(PING * FLOOD_OF_PONGS)
        wire.protocol._kaproto.resumeProducing()
        self.clock.advance(1)
        wire.protocol._kaproto.pauseProducing()
        wire.feed(PING * FLOOD_OF_PONGS)
        self.assertFalse(wire.closing)
        wire.feed(PING)
        self.assertTrue(wire.aborted)
        reason = self.reasonOf(wire)
        self.assertIsInstance(reason, PeerFlooded)
        self.assertIn("has left 64 pongs unread", str(reason))

    def test_fileDescriptor(self) -> None:
        """
        A file descriptor is closed, nothing is logged, and the message sent with it is received.
        """
        wire = self.plain()
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        IFileDescriptorReceiver(wire.protocol).fileDescriptorReceived(reading)
        self.assertRaises(OSError, os.fstat, reading)
        wire.feed(HELLO)
        self.assertEqual(wire.protocol.messages, [HELLO])
        self.assertEqual(self.logged(), [])


class WaitingRoom:
    """
    A fake L{IdleReader}.
    """

    def __init__(self) -> None:
        self.idlers: list[Idler] = []

    def take(self, idler: Idler) -> None:
        """
        A connection has become idle.
        """
        idler.idle = 5
        idler.transport.pauseProducing()
        self.idlers.append(idler)

    def release(self, idler: Idler) -> None:
        """
        A connection is no longer idle.
        """
        idler.idle = -1
        self.idlers.remove(idler)


class IdleTests(ProtocolTestCase):
    """
    Tests for reading through the factory's L{IdleReader} while only pongs are expected.
    """

    def setUp(self) -> None:
        """
        Create a connection that is about to ping.
        """
        super().setUp()
        self.room = WaitingRoom()
        self.end = self.plain()
        self.prepare(self.end)

    def prepare(self, wire: Wire[Plain]) -> None:
        """
        Start keepalive with the fake idle reader.
        """
        wire.protocol._kaproto.heartbeat._monitor.idleReader = cast(IdleReader, self.room)
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)

    def test_idle(self) -> None:
        """
        A peer that was pinged is idle.
        """
        self.assertEqual(self.room.idlers, [])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [self.end.protocol._kaproto.heartbeat])
        self.end.feed(PONG)
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [self.end.protocol._kaproto.heartbeat])

    def test_notWithinMessage(self) -> None:
        """
        A peer in the middle of a message is not idle.
        """
        self.end.feed(packMessage(HELLO)[:20])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [])
        self.end.feed(packMessage(HELLO)[20:])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [self.end.protocol._kaproto.heartbeat])

    def test_stopped(self) -> None:
        """
        When keepalive stops, the reactor reads the peer again.
        """
        self.untilPinged(self.end)
        self.assertFalse(self.end.reading)
        self.end.protocol._kaproto.startKeepAlive(KeepAlive(0, 0))
        self.assertEqual(self.room.idlers, [])
        self.assertTrue(self.end.reading)

    def test_pausedReading(self) -> None:
        """
        When reading is paused, the idle reader does not read the peer either.
        """
        self.untilPinged(self.end)
        self.end.protocol._kaproto.pauseReading(Pause.CALLS)
        self.assertEqual(self.room.idlers, [])
        self.assertFalse(self.end.reading)

    def test_lastChance(self) -> None:
        """
        A peer whose time is up is not dead if bytes from it wait to be read, and it stays idle.
        """
        verdicts = [True, True, False]
        self.patch(suspicion, "hasUnread", lambda _transport: verdicts.pop(0))
        self.untilPinged(self.end)
        self.advance(3)
        self.assertEqual(verdicts, [True, False])
        self.assertEqual(self.room.idlers, [self.end.protocol._kaproto.heartbeat])
        self.assertFalse(self.end.closing)
        self.advance(3)
        self.assertEqual(verdicts, [False])
        self.assertFalse(self.end.closing)
        self.advance(4)
        self.assertEqual(verdicts, [])
        self.assertTrue(self.end.aborted)

    def test_ends(self) -> None:
        """
        A connection that ends is removed from the idle reader.
        """
        ends: tuple[Callable[[Wire[Plain]], None], ...] = (
            lambda wire: wire.protocol._kaproto.disconnect(ConnectionClosed("bye")),
            lambda wire: wire.protocol._kaproto.abort(ConnectionClosed("bye")),
            lambda wire: wire.lose(),
        )
        for end in ends:
            wire = self.plain()
            self.prepare(wire)
            self.untilPinged(wire)
            self.assertIn(wire.protocol._kaproto.heartbeat, self.room.idlers)
            end(wire)
            self.assertNotIn(wire.protocol._kaproto.heartbeat, self.room.idlers)

    def test_relay(self) -> None:
        """
        A relayed peer is idle between messages.
        """
        sieve = MessageFilter(keepsKeepAlive, lambda _message, _raw: None, lambda _data: None)
        other = self.plain()
        self.end.protocol._kaproto.startRelay(sieve, sieve, other.protocol._kaproto)
        packed = packMessage(HELLO)
        self.end.feed(packed[:20])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [])
        self.end.feed(packed[20:])
        self.untilPinged(self.end)
        self.assertEqual(self.room.idlers, [self.end.protocol._kaproto.heartbeat])
