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
        What the kernel says, that of a TCP connection or, if C{counts} is false, of a UNIX socket
        whose buffers are all in the kernel.
        """
        now = self.clock.seconds()
        queued = len(self.transport.value()) - int(self.taken)
        if not self.counts:
            return Delivery(queued, local=True)
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
        One that stops dies C{interval * (count + 1)} seconds after it last took something, in the
        middle of reading as well as when it was idle and is written to then.  On a UNIX socket,
        where the kernel does not say when that was, it is up to two intervals later.
        """
        for counts, latest in ((True, 3), (False, 5)):
            for isReading in (True, False):
                times = [self.timeOfDeath(counts, isReading, part / 8) for part in range(9)]
                self.assertGreater(min(times), 3 - 3 * TICK)
                self.assertLess(max(times), latest + 3 * TICK)

    def timeOfDeath(self, counts: bool, isReading: bool, part: float) -> float:
        """
        Have a peer that is reading, or idle, stop.

        @return: seconds after which it is dead.
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

    def test_maybePausedUNIX(self) -> None:
        """
        A peer on a UNIX socket that may not read on while it is not read is not judged.
        """
        self.counts, self.rate = False, 0
        self.watched.pause(pingOn=True)
        self.advance(20)
        self.assertEqual((self.deaths, self.pings), ([], 0))

    def test_pingsReadUNIX(self) -> None:
        """
        Nor is it life on a UNIX socket that pings are read and not answered, unless the answers
        could not be seen because the peer is not read.
        """
        self.counts, self.rate, self.answers = False, inf, False
        self.watched.pause(pingOn=True, readsOn=True)
        self.advance(20)
        self.assertEqual(self.deaths, [])
        self.watched.resume()
        self.diesAfter(3, 1)

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

    def test_suspected(self) -> None:
        """
        The judge of a slow peer is told when that took nothing for an interval, and not before.
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
        Where the kernel does not say when bytes came, those that the TLS layer has received are
        life.
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
        Where there are no counters silence is judged as ever.
        """
        self.patch(suspicion, "delivery", lambda _transport: None)
        self.transport.write(bytes(200_000))
        self.diesAfter(3)


class Layer:
    """
    In the place of a TLS layer.
    """

    bytesReceived = 0


class Counter:
    """
    In the place of a L{kaproto.keepalive.kernel.SentCounter}.

    @cvar running: how many there are that have not been stopped.
    """

    total = 0
    running = 0

    def __init__(self, _transport: object) -> None:
        Counter.running += 1

    def stop(self) -> None:
        """
        Note it.
        """
        Counter.running -= 1


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
        The judge is told when a ping was left unanswered for an interval, and after the next, and
        asked when all were, and after each interval from then on.  No more pings are sent.
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
