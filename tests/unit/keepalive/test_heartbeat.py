"""
Tests for L{kaproto.keepalive.heartbeat}.
"""

from __future__ import annotations

import gc
import weakref
from math import inf
from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import KeepAliveTimeout
from kaproto.keepalive import heartbeat as module
from kaproto.keepalive.heartbeat import Heartbeat, Monitor
from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.kernel import Delivery
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
        self.patch(module, "hasUnread", lambda _transport: unread[0])
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


class SlowReaderTests(HeartbeatTestCase):
    """
    A peer that takes what was written to it at some rate.  It is in the place of the kernel, and
    answers each ping that it has read, if it answers at all.

    @ivar rate: bytes a second.
    @ivar limit: the most bytes that it takes.
    @ivar answers: whether it answers.
    @ivar more: bytes a second that are written to it beside pings.
    """

    def setUp(self) -> None:
        """
        Have a peer that reads 10,000 bytes a second.
        """
        super().setUp()
        self.rate = 10_000.0
        self.limit = inf
        self.answers = True
        self.more = 0
        self.taken = 0.0
        self.takenAt = 0.0
        self.counts = True
        self.pings = 0
        self.pingsAt: list[int] = []
        self.patch(module, "delivery", self.look)
        self.patch(module, "SentCounter", Counter)
        self.watched = self.heartbeat(KeepAlive(1, 2))
        self.watched._ping = self.ping

    def ping(self) -> None:
        """
        Write a ping.
        """
        self.pings += 1
        self.transport.write(bytes(28))
        self.pingsAt.append(len(self.transport.value()))

    def look(self, _transport: object) -> Delivery:
        """
        What the kernel says, that of a TCP connection or, if C{counts} is false, of a UNIX socket
        whose buffers are all in the kernel.
        """
        now = self.clock.seconds()
        queued = len(self.transport.value()) - int(self.taken)
        if not self.counts:
            return Delivery(queued)
        return Delivery(queued, int(self.taken), 0, 0, now, sinceSent=now - self.takenAt)

    def advance(self, seconds: float) -> None:
        """
        Let time pass, and the peer read.
        """
        for _ in range(round(seconds / TICK)):
            self.transport.write(bytes(round(self.more * TICK)))
            Counter.total = written = len(self.transport.value())
            taken = min(self.taken + self.rate * TICK, self.limit, written)
            if taken > self.taken:
                self.taken, self.takenAt = taken, self.clock.seconds()
            while self.answers and self.pingsAt and self.pingsAt[0] <= taken:
                self.pingsAt.pop(0)
                self.watched.heard()
            self.clock.advance(TICK)

    def diesAfter(self, seconds: float, within: float = 3 * TICK) -> None:
        """
        Check that the peer dies after that many seconds.
        """
        self.advance(seconds - within)
        self.assertEqual(self.deaths, [])
        self.advance(2 * within)
        self.assertEqual(len(self.deaths), 1)

    def test_slow(self) -> None:
        """
        A slow peer is kept, and pinged once until it has read so far.  When it has, it answers,
        and is watched as ever.
        """
        for self.counts in (True, False):
            self.transport.write(bytes(200_000))
            pings = self.pings
            self.advance(19.5)
            self.assertEqual((self.deaths, self.pings - pings), ([], 1))
            self.advance(5)
            self.assertEqual(self.deaths, [])
            self.assertIn(self.pings - pings, (4, 5, 6))

    def test_stopsReading(self) -> None:
        """
        One that stops reading dies C{interval * (count + 1)} seconds later, and one interval more
        where the kernel does not say when it last read.
        """
        self.transport.write(bytes(200_000))
        self.limit = 104_000
        self.advance(10.4)
        self.diesAfter(3)

    def test_stopsReadingUNIX(self) -> None:
        """
        On a UNIX socket that is found at the next look, up to an interval later.
        """
        self.counts = False
        self.transport.write(bytes(200_000))
        self.limit = 104_000
        self.advance(10.4)
        self.advance(2.9)
        self.assertEqual(self.deaths, [])
        self.advance(1.2)
        self.assertEqual(len(self.deaths), 1)

    def test_neverReads(self) -> None:
        """
        One that never reads a byte dies C{interval * (count + 1)} seconds after it was last heard.
        """
        self.transport.write(bytes(200_000))
        self.rate = 0
        self.diesAfter(3)

    def test_pingsTaken(self) -> None:
        """
        That pings and other small things are taken is no life: the kernel takes them for a
        program that is stopped.
        """
        self.rate, self.answers, self.more = inf, False, 320
        self.diesAfter(3)

    def test_readsAndNeverAnswers(self) -> None:
        """
        One that reads a stream without end and answers nothing dies
        C{interval * (count + 1)} seconds after it has read what was in front of a ping.
        """
        for self.counts in (True, False):
            self.deaths.clear()
            self.taken = len(self.transport.value())
            self.pingsAt.clear()
            self.answers, self.more = False, 10_000
            self.watched.heard()
            self.watched.start(KeepAlive(1, 2))
            self.transport.write(bytes(60_000))
            self.advance(8)
            self.assertEqual(self.deaths, [])
            self.advance(4.2)
            self.assertEqual(len(self.deaths), 1)

    def test_oneByOne(self) -> None:
        """
        With a count of one a slow peer is kept as well.
        """
        self.watched.start(KeepAlive(1, 1))
        self.transport.write(bytes(200_000))
        self.advance(20)
        self.assertEqual(self.deaths, [])
        self.rate = 0
        self.transport.write(bytes(200_000))
        self.advance(3)
        self.assertEqual(len(self.deaths), 1)

    def test_heldBack(self) -> None:
        """
        A ping that waits for the end of a message has not been written, so what is written
        meanwhile is in front of it.  If the peer has read all there is of the message, it cannot
        answer, and its silence does not count.
        """
        held, busy = True, False
        self.watched.relay(self.ping, lambda: busy, lambda: held)
        self.answers, self.more = False, 10_000
        self.transport.write(bytes(100_000))
        self.advance(20)
        self.assertEqual(self.deaths, [])
        busy, self.more = True, 0
        self.advance(30)
        self.assertEqual(self.deaths, [])
        held = busy = False
        self.advance(4.2)
        self.assertEqual(len(self.deaths), 1)

    def test_unanswerable(self) -> None:
        """
        Where there are no counters silence is judged as ever.
        """
        self.patch(module, "delivery", lambda _transport: None)
        self.transport.write(bytes(200_000))
        self.diesAfter(3)


class Counter:
    """
    In the place of a L{kaproto.keepalive.kernel.SentCounter}.
    """

    total = 0

    def __init__(self, _transport: object) -> None:
        pass

    def stop(self) -> None:
        """
        It does not count anyway.
        """


class Witness:
    """
    A judge that says what it is told to.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.verdict = True
        self.asked: list[tuple[str, float]] = []

    def suspected(self) -> None:
        """
        Note when.
        """
        self.asked.append(("suspected", self._clock.seconds()))

    def excuses(self) -> bool:
        """
        Note when.
        """
        self.asked.append(("excuses", self._clock.seconds()))
        return self.verdict


class JudgeTests(HeartbeatTestCase):
    """
    A peer of which somebody knows more.
    """

    def setUp(self) -> None:
        """
        Watch the peer.
        """
        super().setUp()
        self.judge = Witness(self.clock)

    def watch(self, count: int) -> Heartbeat:
        """
        Watch a peer at an interval of a second.
        """
        heartbeat = self.heartbeat(KeepAlive(1, count))
        heartbeat.judge = self.judge
        return heartbeat

    def test_excused(self) -> None:
        """
        The judge is told when a ping was left unanswered for an interval, and asked when all were,
        and after each interval from then on.  No more pings are sent.
        """
        heartbeat = self.watch(3)
        self.advance(6.5)
        self.assertEqual(
            self.judge.asked,
            [("suspected", 2), ("excuses", 4), ("excuses", 5), ("excuses", 6)],
        )
        self.assertEqual(self.transport.value(), b"???")
        self.assertEqual(self.deaths, [])
        self.judge.verdict = False
        self.advance(1)
        self.assertEqual(len(self.deaths), 1)
        self.assertEqual(self.deaths[0].silence, 7)
        heartbeat.end()
        self.assertStopped()

    def test_heardAgain(self) -> None:
        """
        A peer that is heard again is pinged as ever.
        """
        heartbeat = self.watch(2)
        self.advance(4.25)
        heartbeat.heard()
        self.transport.clear()
        del self.judge.asked[:]
        self.advance(2.5)
        self.assertEqual(self.transport.value(), b"??")
        self.assertEqual(self.judge.asked, [("suspected", 6.25)])
        heartbeat.end()

    def test_answers(self) -> None:
        """
        While the peer answers the judge is not asked, nor is it with a count of one before the
        ping has been left unanswered for an interval.
        """
        heartbeat = self.watch(1)
        for _ in range(3):
            self.advance(1.5)
            heartbeat.heard()
        self.assertEqual(self.judge.asked, [])
        self.judge.verdict = False
        self.advance(2.1)
        self.assertEqual([what for what, _ in self.judge.asked], ["excuses"])
        self.assertEqual(len(self.deaths), 1)

    def test_end(self) -> None:
        """
        The heartbeat lets go of its judge.
        """
        heartbeat = self.watch(1)
        heartbeat.end()
        self.assertIsNone(heartbeat.judge)


class MonitorTests(HeartbeatTestCase):
    """
    What heartbeats share.
    """

    def test_shared(self) -> None:
        """
        All heartbeats of a clock have one wheel, and so one timer.
        """
        one, other = self.heartbeat(KeepAlive(1, 2)), self.heartbeat(KeepAlive(2, 2))
        self.assertIs(one.pacemaker, other.pacemaker)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertIsNot(Monitor.of(Clock()).pacemaker, one.pacemaker)
        one.stop()
        other.stop()

    def test_reactor(self) -> None:
        """
        The wheel is that of the transport's reactor, or of the installed one.
        """
        from twisted.internet import reactor

        heartbeat = Heartbeat(self.transport, b"?")
        self.assertIs(heartbeat.pacemaker, Monitor.of(cast(IReactorTime, reactor)).pacemaker)
        self.transport.reactor = self.clock  # type: ignore[attr-defined]
        heartbeat = Heartbeat(self.transport, b"?")
        self.assertIs(heartbeat.pacemaker, Monitor.of(self.clock).pacemaker)

    def test_freed(self) -> None:
        """
        A clock and its wheel are freed when the last heartbeat is.
        """
        heartbeat = self.heartbeat(KeepAlive(1, 2))
        heartbeat.stop()
        alive = weakref.ref(self.clock)
        del heartbeat, self.clock
        gc.collect()
        self.assertIsNone(alive())
