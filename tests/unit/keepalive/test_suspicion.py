"""
Tests for L{kaproto.keepalive.suspicion}.
"""

from __future__ import annotations

from math import inf

from twisted.internet.task import Clock

from kaproto.keepalive import suspicion, unreadpeer
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.kernel import Delivery
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import TICK
from tests.unit.keepalive.test_heartbeat import HeartbeatTestCase


class SlowReaderTests(HeartbeatTestCase):
    """
    Tests for a peer that reads slowly. The test plays the kernel, and the peer answers each ping
    that it has read.

    @ivar rate: bytes that it reads per second.
    @ivar limit: the most bytes that it reads.
    @ivar answers: whether it answers.
    @ivar more: bytes per second that are written to it besides pings.
    @ivar counts: whether the kernel has TCP's counters, or only a UNIX socket's.
    """

    def setUp(self) -> None:
        """
        Create a peer that reads 10,000 bytes a second.
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
        for module in (unreadpeer, suspicion):
            self.patch(module, "delivery", self.look)
        self.patch(suspicion, "SentCounter", Counter)
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
        @return: the kernel's counters: those of TCP or, if C{counts} is false, of a UNIX socket
            whose bytes are all in the kernel.
        """
        now = self.clock.seconds()
        queued = len(self.transport.value()) - int(self.taken)
        if not self.counts:
            return Delivery(queued, local=True)
        return Delivery(queued, int(self.taken), 0, 0, now, sinceSent=now - self.takenAt)

    def advance(self, seconds: float) -> None:
        """
        Advance the clock, and let the peer read.
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
        Check that the peer is dead after that many seconds.
        """
        self.advance(seconds - within)
        self.assertEqual(self.deaths, [])
        self.advance(2 * within)
        self.assertEqual(len(self.deaths), 1)

    def test_slow(self) -> None:
        """
        A slow peer is alive, and is pinged only once until it has read that ping. Then it answers
        and is pinged as usual.
        """
        for self.counts in (True, False):
            self.transport.write(bytes(200_000))
            pings = self.pings
            before = Counter.running
            self.advance(19.5)
            self.assertEqual((self.deaths, self.pings - pings), ([], 1))
            self.assertEqual(Counter.running - before, not self.counts)
            self.advance(5)
            self.assertEqual(Counter.running, before)
            self.assertEqual(self.deaths, [])
            self.assertIn(self.pings - pings, (4, 5, 6))

    def test_stops(self) -> None:
        """
        A peer that stops reading is dead C{interval * (count + 1)} seconds after it last took
        bytes, whether it was reading or idle. On a UNIX socket, where the kernel does not know that
        time, it may take up to two intervals longer.
        """
        for counts, latest in ((True, 3), (False, 5)):
            for isReading in (True, False):
                times = [self.timeOfDeath(counts, isReading, part / 8) for part in range(9)]
                self.assertGreater(min(times), 3 - 3 * TICK)
                self.assertLess(max(times), latest + 3 * TICK)

    def timeOfDeath(self, counts: bool, isReading: bool, part: float) -> float:
        """
        Make a reading or an idle peer stop.

        @return: the seconds after which it is dead.
        """
        self.setUp()
        self.counts = counts
        self.transport.write(bytes(isReading * 200_000))
        self.advance(10 + part)
        self.limit = self.taken
        stopped = self.takenAt if isReading else self.watched.liveness.heard
        self.transport.write(bytes(200_000))
        while not self.deaths:
            self.advance(TICK)
        return self.clock.seconds() - stopped

    def test_neverReads(self) -> None:
        """
        A peer that never reads is dead C{interval * (count + 1)} seconds after it was last heard.
        """
        self.transport.write(bytes(200_000))
        self.rate = 0
        self.diesAfter(3)

    def test_pingsTaken(self) -> None:
        """
        That pings and other small writes are taken is no sign of life: the kernel buffers them for
        a stopped program.
        """
        self.rate, self.answers, self.more = inf, False, 320
        self.diesAfter(3)

    def test_maybePausedUNIX(self) -> None:
        """
        While reading from a peer on a UNIX socket is paused, its silence does not count if the peer
        may have stopped reading, too.
        """
        self.counts, self.rate = False, 0
        self.watched.pause(pingOn=True)
        self.advance(20)
        self.assertEqual((self.deaths, self.pings), ([], 0))

    def test_pingsReadUNIX(self) -> None:
        """
        On a UNIX socket, a peer that reads pings without answering is dead, except while its
        answers are not read.
        """
        self.counts, self.rate, self.answers = False, inf, False
        self.watched.pause(pingOn=True, readsOn=True)
        self.advance(20)
        self.assertEqual(self.deaths, [])
        self.watched.resume()
        self.diesAfter(3, 1)

    def test_readsAndNeverAnswers(self) -> None:
        """
        A peer that reads an endless stream without answering is dead C{interval * (count + 1)}
        seconds after it has read everything before a ping.
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
        A slow peer is alive with a count of one, too.
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
        A ping that waits for the end of a message has not been written, so bytes written meanwhile
        precede it. A peer that has read everything written of the message cannot answer, and its
        silence does not count.
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

    def test_suspected(self) -> None:
        """
        The judge is told of a slow peer that took nothing for an interval, and not earlier.
        """
        self.watched.judge = judge = Witness(self.clock)
        self.transport.write(bytes(200_000))
        self.limit = 104_000
        self.advance(10.9)
        self.assertEqual(judge.asked, [])
        self.advance(1.2)
        self.assertEqual(len(judge.asked), 1)
        self.advance(4)
        self.assertEqual(judge.asked[-1][0], "excuses")

    def test_halfATLSRecord(self) -> None:
        """
        Where the kernel does not know when bytes arrived, a part of a TLS record is a sign of life.
        """
        layer = Layer()
        self.patch(suspicion, "tlsOf", lambda transport: layer if transport else None)
        self.answers, self.counts = False, False
        for _ in range(20):
            self.advance(1)
            layer.bytesReceived += 1
        self.assertEqual(self.deaths, [])
        self.diesAfter(3, 1.1)

    def test_unanswerable(self) -> None:
        """
        Without counters, silence counts as usual.
        """
        self.patch(suspicion, "delivery", lambda _transport: None)
        self.transport.write(bytes(200_000))
        self.diesAfter(3)


class Layer:
    """
    A stand-in for a TLS layer.
    """

    bytesReceived = 0


class Counter:
    """
    A stand-in for L{kaproto.keepalive.kernel.SentCounter}.

    @cvar running: how many have not been stopped.
    """

    total = 0
    running = 0

    def __init__(self, _transport: object) -> None:
        Counter.running += 1

    def stop(self) -> None:
        """
        Count it as stopped.
        """
        Counter.running -= 1


class Witness:
    """
    A judge with a given verdict, which records when it is asked.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.verdict = True
        self.asked: list[tuple[str, float]] = []

    def suspected(self) -> None:
        """
        Record the time.
        """
        self.asked.append(("suspected", self._clock.seconds()))

    def excuses(self) -> bool:
        """
        Record the time.
        """
        self.asked.append(("excuses", self._clock.seconds()))
        return self.verdict


class JudgeTests(HeartbeatTestCase):
    """
    Tests for a heartbeat with a judge.
    """

    def setUp(self) -> None:
        """
        Create a judge.
        """
        super().setUp()
        self.judge = Witness(self.clock)

    def watch(self, count: int) -> Heartbeat:
        """
        Start a heartbeat with an interval of a second.
        """
        heartbeat = self.heartbeat(KeepAlive(1, count))
        heartbeat.judge = self.judge
        return heartbeat

    def test_excused(self) -> None:
        """
        The judge is told after each interval without an answer. When all pings were left
        unanswered, it is asked after each interval, and no more pings are sent.
        """
        heartbeat = self.watch(3)
        self.advance(6.5)
        self.assertEqual(
            self.judge.asked,
            [
                ("suspected", 2),
                ("suspected", 3),
                ("excuses", 4),
                ("excuses", 5),
                ("excuses", 6),
            ],
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
        A peer that is heard again is pinged as usual.
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
        The judge is not asked while the peer answers. With a count of one, it is not asked before
        the ping was left unanswered for an interval.
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
        An ended heartbeat has no reference to its judge.
        """
        heartbeat = self.watch(1)
        heartbeat.end()
        self.assertIsNone(heartbeat.judge)
