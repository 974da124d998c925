"""
Tests for L{kaproto.backends.upstream}.
"""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.upstream import Upstream, UpstreamHung
from kaproto.keepalive.liveness import KeepAlive, Liveness, Verdict

STEP = 0.25


class FakeProbe:
    """
    A probe's connection.

    @ivar lastHeard: when the server last answered.
    @ivar closed: whether it was closed.
    """

    def __init__(self) -> None:
        self.lastHeard = -inf
        self.closed = False

    def close(self) -> None:
        """
        Record that it was closed.
        """
        self.closed = True


class FakeConnection:
    """
    A client's connection.  Its server answers pings while the test says so.

    @ivar calls: whether calls are under way.
    @ivar read: whether the server reads from it.
    @ivar busyAt: the times when it became busy.
    @ivar endedAt: when it ended, C{None} while it has not.
    @ivar reason: why it ended, C{None} if its own pings were not answered.
    """

    def __init__(self, case: UpstreamTestCase, *, calls: bool, read: bool) -> None:
        self._case = case
        self.isUnderWay = calls
        self.read = read
        self.busyAt: list[float] = []
        self.endedAt: float | None = None
        self.reason: UpstreamHung | None = None
        self.liveness = Liveness(case.clock.seconds())
        self.liveness.start(case.keepAlive)
        self._again = 0.0
        case.upstream.joined(self)

    @property
    def lastHeard(self) -> float:
        """
        The time when the server was last heard.
        """
        return self.liveness.heard

    def becameBusy(self) -> None:
        """
        Record the time.
        """
        self.busyAt.append(self._case.clock.seconds())

    def hung(self, reason: UpstreamHung) -> None:
        """
        Record the reason and end.
        """
        self.reason = reason
        self.end()

    def end(self) -> None:
        """
        Record the time and leave.
        """
        if self.endedAt is None:
            self.endedAt = self._case.clock.seconds()
            self._case.upstream.left(self)

    def beat(self) -> None:
        """
        Do what a heartbeat does in each turn.
        """
        now = self._case.clock.seconds()
        if self.endedAt is not None:
            return
        if self.read and self._case.alive and self.liveness.unanswered:
            self.liveness.hear(now)
        if now < self._again and self.liveness.unanswered:
            return
        verdict = self.liveness.check(now)
        if verdict is Verdict.PING and self.liveness.unanswered == 2:
            self._case.upstream.suspected(self)
        elif verdict is Verdict.DEAD:
            if self._case.upstream.excuses(self):
                self._again = now + self.liveness.interval
            else:
                self.end()


class UpstreamTestCase(SynchronousTestCase):
    """
    Base class for tests of a server that works or hangs, and connections to it.

    @ivar alive: whether the server works.
    @ivar accepts: whether the server answers on new connections.
    """

    keepAlive = KeepAlive(1, 2)

    def setUp(self) -> None:
        """
        Create a server that works.
        """
        self.clock = Clock()
        self.alive = self.accepts = True
        self.probes: list[FakeProbe] = []
        self.connections: list[FakeConnection] = []
        self.upstream = Upstream(self.keepAlive, self.clock, self.clock.seconds, self.makeProbe)

    def makeProbe(self) -> FakeProbe:
        """
        Connect a probe.
        """
        self.probes.append(FakeProbe())
        return self.probes[-1]

    def connect(self, *, calls: bool = False, read: bool = True) -> FakeConnection:
        """
        Connect a client.

        @param calls: whether calls are under way.
        @param read: whether the server reads from the connection.
        """
        self.connections.append(FakeConnection(self, calls=calls, read=read))
        return self.connections[-1]

    def advance(self, seconds: float) -> None:
        """
        Advance the clock in small steps.
        """
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)
            for probe in self.probes:
                if self.alive and self.accepts and not probe.closed:
                    probe.lastHeard = self.clock.seconds()
            for connection in self.connections:
                connection.beat()


class UpstreamTests(UpstreamTestCase):
    """
    Tests for which connections are busy and which are dead.
    """

    def test_idle(self) -> None:
        """
        Connections whose pings are answered need no probe.
        """
        self.connect()
        self.connect(calls=True)
        self.advance(20)
        self.assertEqual(self.probes, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_otherAnswers(self) -> None:
        """
        While another connection is answered, one with calls under way becomes busy when all its
        pings are unanswered, and no probe is made.
        """
        busy = self.connect(calls=True, read=False)
        self.connect()
        self.advance(2.5)
        self.assertEqual(busy.busyAt, [])
        self.advance(20)
        self.assertEqual(busy.busyAt, [3])
        self.assertEqual((busy.endedAt, self.probes), (None, []))
        self.assertEqual((self.upstream.busy, self.upstream.busyTotal), ({busy: 3}, 1))

    def test_probe(self) -> None:
        """
        When no other connection is answered, one probe is made for all silent ones, and closed when
        the server reads from them again.
        """
        connections = [self.connect(calls=True, read=False) for _ in range(3)]
        self.advance(1.75)
        self.assertFalse(self.upstream.isProbed)
        self.advance(20)
        self.assertTrue(self.upstream.isProbed)
        self.assertEqual(len(self.probes), 1)
        for each in connections:
            self.assertEqual((each.endedAt, len(each.busyAt)), (None, 1))
        for each in connections:
            each.read = True
        self.advance(2)
        self.assertTrue(self.probes[0].closed)
        self.assertEqual(self.upstream.busy, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noLongerNeeded(self) -> None:
        """
        The probe is also closed when the last silent connection ends, or another connection is
        answered.
        """
        busy = self.connect(calls=True, read=False)
        self.advance(5)
        busy.end()
        self.assertTrue(self.probes[0].closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        busy = self.connect(calls=True, read=False)
        self.advance(5)
        self.connect()
        self.advance(2)
        self.assertEqual([each.closed for each in self.probes], [True, True])
        self.assertIsNone(busy.endedAt)

    def test_shortLived(self) -> None:
        """
        Short-lived connections that are answered also prove that the server works.
        """
        busy = self.connect(calls=True, read=False)
        for _ in range(20):
            self.advance(1)
            self.connect().end()
        self.assertEqual((busy.endedAt, self.probes), (None, []))

    def test_nothingUnderWay(self) -> None:
        """
        A silent connection without calls under way is dead, and no probe is made.
        """
        for others in (0, 1):
            begun = self.clock.seconds()
            silent = self.connect(read=False)
            for _ in range(others):
                self.connect()
            self.advance(4)
            self.assertEqual((silent.endedAt, silent.reason), (begun + 3, None))
            self.assertEqual(self.probes, [])

    def test_hangs(self) -> None:
        """
        A server that hangs is detected in C{interval * (count + 1)} seconds without calls under
        way, else in C{interval * (count + 3)}, on all such connections at once.
        """
        idle, *calling = [self.connect(calls=calls) for calls in (False, True, True, True)]
        self.advance(10)
        self.alive = False
        last = [each.lastHeard for each in self.connections]
        self.advance(10)
        self.assertEqual(idle.endedAt, last[0] + 3)
        self.assertEqual({each.endedAt for each in calling}, {last[1] + 5})
        self.assertIsNone(idle.reason)
        for each in calling:
            self.assertEqual(
                str(each.reason),
                "it hangs, or waits for storage that hangs, such as an unreachable file server: "
                "nothing heard for 5.0 s, neither on 3 with calls or streams under way nor "
                "on a new connection (--upstream-interval 1 s, --upstream-count 2)",
            )
        self.assertEqual([each.busyAt for each in calling], [[], [], []])
        self.assertTrue(self.probes[0].closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hangsWhileBusy(self) -> None:
        """
        A server that hangs while connections are busy is detected in the same time, no matter
        whether other connections or a probe were answered before.
        """
        for others in (0, 1):
            busy = [self.connect(calls=True, read=False) for _ in range(3)]
            for _ in range(others):
                self.connect()
            self.advance(10)
            self.alive = False
            hungAt = self.clock.seconds()
            self.advance(10)
            for each in busy:
                assert each.endedAt is not None and each.reason is not None
                self.assertEqual(len(each.busyAt), 1)
                self.assertTrue(2 <= each.endedAt - hungAt <= 5, each.endedAt - hungAt)
            self.alive = True

    def test_hangsAgain(self) -> None:
        """
        After a hang, a new probe is made for later connections.
        """
        self.connect(calls=True)
        self.alive = False
        self.advance(10)
        self.alive = True
        busy = self.connect(calls=True, read=False)
        self.advance(10)
        self.assertIsNone(busy.endedAt)
        self.assertEqual(len(self.probes), 2)

    def test_accepts(self) -> None:
        """
        A probe that is connected but not answered, because the server is at its limit of clients,
        proves nothing while other connections are answered.
        """
        self.accepts = False
        busy = self.connect(calls=True, read=False)
        other = self.connect()
        self.advance(20)
        self.assertIsNone(busy.endedAt)
        # The other one is silent for a while, with a call under way.
        other.read = False
        other.isUnderWay = True
        self.advance(3.5)
        self.assertTrue(self.upstream.isProbed)
        other.read = True
        self.advance(20)
        self.assertIsNone(busy.endedAt)
        self.assertFalse(self.upstream.isProbed)

    def test_oneUnanswered(self) -> None:
        """
        With a count of one, the probe is made when the connection would otherwise be dead.
        """
        self.keepAlive = KeepAlive(1, 1)
        self.setUp()
        busy = self.connect(calls=True, read=False)
        self.advance(20)
        self.assertEqual((busy.endedAt, len(self.probes)), (None, 1))
        self.alive = False
        self.advance(3)
        self.assertIsNotNone(busy.reason)

    def test_becomesBusyAgain(self) -> None:
        """
        C{busyTotal} counts each time that a connection becomes busy.
        """
        busy = self.connect(calls=True, read=False)
        self.connect()
        for number in range(1, 4):
            self.advance(6)
            self.assertEqual(self.upstream.busyTotal, number)
            busy.read = True
            self.advance(3)
            self.assertEqual(self.upstream.busy, {})
            busy.read = False

    def take(self, step: str, number: int, flag: bool) -> None:
        """
        Take one of the steps of L{test_anything}.
        """
        if step == "connect":
            self.connect(calls=flag, read=not flag)
        elif step == "advance":
            self.advance(number + 0.5 * flag)
        elif number < len(self.connections):
            connection = self.connections[number]
            if step == "calls":
                connection.isUnderWay = flag
                connection.read |= not flag
            elif step == "read":
                connection.read = flag or not connection.isUnderWay
            else:
                connection.end()
                self.connections.remove(connection)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["connect", "connect", "calls", "read", "end", "advance"]),
                st.integers(0, 5),
                st.booleans(),
            ),
            max_size=40,
        ),
        st.integers(1, 3),
    )
    def test_anything(self, steps: list[tuple[str, int, bool]], count: int) -> None:
        """
        A server that works, accepts new connections, and reads all those without calls under way,
        loses no connection.  When it hangs, all end within C{interval * (count + 3)} seconds of the
        last sign of life, and those without calls within C{interval * (count + 1)}.
        """
        self.keepAlive = KeepAlive(1, count)
        self.setUp()
        for step in steps:
            self.take(*step)
        self.assertEqual([each.endedAt for each in self.connections if each.endedAt], [])
        self.alive = False
        at = self.clock.seconds()
        self.advance(count + 1 + STEP)
        for each in self.connections:
            if not each.isUnderWay:
                assert each.endedAt is not None
                self.assertLessEqual(each.endedAt, at + count + 1)
        self.advance(2)
        for each in self.connections:
            assert each.endedAt is not None
            self.assertLessEqual(each.endedAt, at + count + 3)
        self.assertTrue(all(probe.closed for probe in self.probes))
        self.assertEqual(self.clock.getDelayedCalls(), [])
