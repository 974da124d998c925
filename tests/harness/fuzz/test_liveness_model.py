"""
Watched connections, compared with a model that recomputes everything from the list of events.

L{tests.unit.keepalive.test_liveness} has a model of the arithmetic alone.  Here whole connections
and their pacemaker run in a process that stalls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import KeepAliveTimeout
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import STALL, TICK, Pacemaker
from kaproto.limits import Limits
from kaproto.rpc.reading import Pause
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import PING, PONG, packMessage
from tests.harness.fuzz import machineSettings
from tests.harness.fuzz.tap import Tap
from tests.support import call

STEP: Final = TICK / 2
"""
The seconds of one step of time in a process that is not busy.
"""

SLACK: Final = TICK + STEP
"""
The most seconds by which a check may be late in such a process.
"""

TURNS_MAX: Final = 50
"""
The most turns of the reactor that may follow one another while no time passes.
"""

ADDRESS: Final = IPv4Address("TCP", "192.0.2.1", 54321)
UNKNOWN: Final = packMessage(call(1, bytes(40), program=0x2F00BEEF, kind=2))
"""
A message that is ignored.  The peer sends it repeatedly, in arbitrary pieces.
"""


class ReactorClock(Clock):
    """
    A reactor's clock: after the calls that are due, it reads the sockets before the calls scheduled
    by them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: Callable[[], object] = lambda: None
        self.turns = 0

    def advance(self, amount: float) -> None:
        """
        Reset the count of turns, and advance.
        """
        self.turns = 0
        super().advance(amount)

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 - its name in the interface
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        """
        Read the sockets before a call without delay.
        """
        if delay == 0:
            self.turns += 1
            assert self.turns < TURNS_MAX, "the reactor has no rest"
            super().callLater(0, self.read)
        return super().callLater(delay, callable, *args, **kw)


@attrs.define
class Heard:
    """
    Bytes were read.
    """


@attrs.define
class Pinged:
    """
    A ping was sent.
    """


@attrs.define
class Started:
    """
    Keepalive was started or changed.
    """

    interval: float
    count: int


@attrs.define
class Stopped:
    """
    Keepalive was stopped.
    """


@attrs.define
class Passed:
    """
    Time passed.

    @ivar least: the seconds of it that must count as silence.
    @ivar most: the seconds that may count.
    """

    least: float
    most: float


Happening = Heard | Pinged | Started | Stopped | Passed


@attrs.define
class Account:
    """
    The state that follows from a list of events.

    @ivar silence: the least and the most seconds since bytes were read.
    @ivar watched: the least and the most seconds since keepalive was started.
    @ivar pings: the least and the most seconds since each unanswered ping.
    @ivar gap: the longest time since then in which this end could not run.
    """

    silence: tuple[float, float] = (0, 0)
    watched: tuple[float, float] = (0, 0)
    pings: list[tuple[float, float]] = attrs.field(factory=list)
    terms: Started | None = None
    gap: float = 0

    @classmethod
    def of(cls, happenings: list[Happening]) -> Account:
        """
        Compute the state.
        """
        account = cls()
        heardAt = startedAt = (0.0, 0.0)
        pingedAt: list[tuple[float, float]] = []
        now = (0.0, 0.0)
        for each in happenings:
            match each:
                case Passed():
                    now = (now[0] + each.least, now[1] + each.most)
                    if each.most > STEP:
                        account.gap = max(account.gap, each.most)
                case Heard():
                    heardAt, pingedAt, account.gap = now, [], 0
                case Started():
                    startedAt, pingedAt, account.terms = now, [], each
                case Stopped():
                    pingedAt, account.terms = [], None
                case Pinged():
                    pingedAt.append(now)
        account.silence = _since(heardAt, now)
        account.watched = _since(startedAt, now)
        account.pings = [_since(at, now) for at in pingedAt]
        return account

    @property
    def mayPing(self) -> bool:
        """
        Whether a ping is allowed.
        """
        if self.terms is None or len(self.pings) >= self.terms.count:
            return False
        interval = self.terms.interval
        return self.silence[1] >= interval - TICK and (
            not self.pings or self.pings[-1][1] >= interval / 2 - TICK
        )

    @property
    def mayDie(self) -> bool:
        """
        Whether the peer may be declared dead.
        """
        if self.terms is None or len(self.pings) != self.terms.count:
            return False
        interval = self.terms.interval
        return (
            self.silence[1] >= interval * (self.terms.count + 1) - TICK
            and self.pings[-1][1] >= interval / 2 - TICK
        )

    @property
    def mustHavePinged(self) -> bool:
        """
        Whether the first ping is overdue.
        """
        if self.terms is None or self.pings:
            return False
        slack = SLACK + TICK + self.gap
        return min(self.silence[0] - self.terms.interval, self.watched[0]) > slack

    @property
    def mustBeDead(self) -> bool:
        """
        Whether the peer must have been declared dead: C{interval * (count + 1)} after the last byte
        or, if keepalive was started late in that time, after all the pings that must be sent first.
        """
        if self.terms is None:
            return False
        interval, count = self.terms.interval, self.terms.count
        # An interval shorter than two ticks takes up to two ticks, each time.
        stage = interval if interval >= 2 * SLACK else interval + SLACK
        uncertain = max(self.silence[1] - self.silence[0], self.watched[1] - self.watched[0])
        slack = SLACK + TICK + 2 * uncertain + self.gap * (count + 1)
        return (
            self.silence[0] > stage * (count + 1) + slack
            and self.watched[0] > stage * (count - 0.5) + slack
        )


def _since(then: tuple[float, float], now: tuple[float, float]) -> tuple[float, float]:
    return (now[0] - then[0], now[1] - then[1])


class Connection:
    """
    A connection and its events.
    """

    protocol: KeepAliveServerProtocol
    tap: Tap
    happenings: list[Happening]
    socket: bytearray
    _stream: bytes
    _seen: int
    _ended: bool

    def __init__(self, factory: KeepAliveServerFactory, clock: Clock) -> None:
        protocol = factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveServerProtocol)
        self.protocol = protocol
        self.tap = Tap(clock, ADDRESS)
        self.tap.attach(protocol)
        self.tap.feed(packMessage(call(1, b"\0\0\0\1" + bytes(8))))
        assert protocol.session is not None, "it should be open"
        self.happenings: list[Happening] = []
        self.socket = bytearray()
        self._stream = b""
        self._seen = len(self.tap.written)
        self._ended = False

    def say(self, size: int) -> None:
        """
        Send a piece of the peer's endless stream.
        """
        while len(self._stream) < size:
            self._stream += UNKNOWN
        self.socket += self._stream[:size]
        self._stream = self._stream[size:]

    def pong(self) -> None:
        """
        Complete the peer's message, and send a pong.
        """
        self.socket += self._stream + PONG
        self._stream = b""

    def read(self) -> None:
        """
        Read the socket.
        """
        self.observe()
        if self.socket and not bool(self.protocol._kaproto.reading.pauses) and not self.tap.ending:
            data, self.socket = bytes(self.socket), bytearray()
            self.tap.protocol.dataReceived(data)
            self.happenings.append(Heard())

    def observe(self) -> None:
        """
        Record what this end has done, and check that it was allowed.
        """
        written = bytes(self.tap.written[self._seen :])
        self._seen = len(self.tap.written)
        for at in range(0, len(written), len(PING)):
            assert written[at : at + len(PING)] == PING, "nothing but pings is written"
            account = Account.of(self.happenings)
            assert account.mayPing, f"a ping too early, or too many: {account}"
            self.happenings.append(Pinged())
        if self.tap.ending and not self._ended:
            self._ended = True
            account = Account.of(self.happenings)
            assert account.mayDie, f"dead too early: {account}"
            assert not self.socket or bool(self.protocol._kaproto.reading.pauses), (
                "dead with bytes to be read"
            )
            reason = self.protocol._kaproto.closing.reason
            assert isinstance(reason, KeepAliveTimeout), reason
            assert account.terms is not None
            assert (reason.interval, reason.count) == (
                account.terms.interval,
                account.terms.count,
            )
            least, most = account.silence
            assert least - SLACK - STALL <= reason.silence <= most + SLACK, (reason, account)

    def check(self) -> None:
        """
        Check that what must have been done by now has been done.
        """
        self.observe()
        if self.tap.ending or bool(self.protocol._kaproto.reading.pauses) or self.socket:
            return
        account = Account.of(self.happenings)
        assert not account.mustHavePinged, f"no ping: {account}"
        assert not account.mustBeDead, f"not dead: {account}"


INTERVALS = st.integers(16, 160).map(lambda each: each / 64) | st.sampled_from(
    (1e-16, 1e-9, 0.001, 1 / 64, 0.04)
)
COUNTS = st.integers(1, 3)
WHO = st.integers(0, 1)


class Process(RuleBasedStateMachine):
    """
    Two connections in one process.
    """

    clock: ReactorClock
    monotonic: float
    factory: KeepAliveServerFactory
    pacemaker: Pacemaker
    connections: list[Connection]

    def __init__(self) -> None:
        super().__init__()
        self.clock = ReactorClock()
        self.monotonic = 1000.0
        self.clock.read = self.read
        factory = KeepAliveServerFactory(clock=self.clock, limits=Limits(openTimeout=10**9))
        factory.seconds = lambda: self.monotonic
        self.pacemaker = Pacemaker(self.clock)
        factory._monitor.pacemaker = self.pacemaker
        self.factory = factory
        self.connections = [Connection(factory, self.clock) for _ in range(2)]

    def read(self) -> None:
        """
        Read the sockets of all connections.
        """
        for each in self.connections:
            each.read()

    def passed(self, least: float, most: float) -> None:
        """
        Record that time has passed; it does not count while reading is paused.
        """
        for each in self.connections:
            paused = bool(each.protocol._kaproto.reading.pauses)
            each.happenings.append(Passed(0, 0) if paused else Passed(least, most))

    @initialize(first=INTERVALS, second=INTERVALS, count=COUNTS)
    def begin(self, first: float, second: float, count: int) -> None:
        """
        Watch both connections.
        """
        self.start(0, first, count)
        self.start(1, second, count)

    def elapse(self, seconds: float) -> None:
        """
        Let time pass in a process that is not busy.
        """
        end = self.monotonic + seconds
        while self.monotonic < end:
            self.step()

    def step(self, *, late: Sequence[Connection] = ()) -> None:
        """
        Let one step of time pass.

        @param late: connections on which a byte arrives just before the reactor's turn, which runs
            what is due before it reads.
        """
        watching = len(self.pacemaker) > 0
        self.monotonic += STEP
        behind = not watching
        self.passed(0 if behind else STEP, STEP)
        for each in late:
            each.say(1)
        self.clock.advance(STEP)
        self.read()
        for each in self.connections:
            each.check()

    @rule(steps=st.integers(1, 20))
    def elapseShortly(self, steps: int) -> None:
        """
        Let a little time pass.
        """
        self.elapse(steps * STEP)

    @rule(who=WHO, intervals=st.integers(1, 5), more=st.integers(-2, 4))
    def elapseIntervals(self, who: int, intervals: int, more: int) -> None:
        """
        Let roughly C{intervals} intervals pass.
        """
        terms = Account.of(self.connections[who].happenings).terms
        interval = 0.5 if terms is None else terms.interval
        self.elapse(min(intervals * interval + more * STEP, 12))

    @rule(who=WHO)
    def speakAtTheLastMoment(self, who: int) -> None:
        """
        Just before a peer's time is up, a byte arrives that has not been read.
        """
        connection = self.connections[who]
        terms = Account.of(connection.happenings).terms
        if (
            terms is None
            or connection.tap.ending
            or bool(connection.protocol._kaproto.reading.pauses)
        ):
            return
        for _step in range(400):
            account = Account.of(connection.happenings)
            assert account.terms is not None
            left = account.terms.interval * (account.terms.count + 1) - account.silence[1]
            if left <= SLACK:
                break
            self.step()
        for _step in range(5):
            self.step(late=[connection])
        assert not connection.tap.ending, "it has said something"

    @rule(
        seconds=st.integers(1, 128).map(lambda each: each / 64) | st.integers(60, 10**5).map(float),
        times=st.integers(1, 4),
        how=st.sampled_from(("silent", "read late", "read first")),
    )
    def stall(self, seconds: float, times: int, how: str) -> None:
        """
        The process stalls, one or several times; its peers may send something meanwhile.
        """
        for _time in range(times):
            behind = not len(self.pacemaker)
            self.monotonic += seconds
            least = 0 if behind else max(0, min(seconds, STALL) - TICK)
            self.passed(least, min(seconds, STALL + TICK))
            if how != "silent":
                for each in self.connections:
                    each.say(3)
            self.clock.rightNow += seconds
            if how == "read first":
                self.read()
            self.clock.advance(0)
            self.read()

    @rule(who=WHO, size=st.sampled_from((0, 1, 1, 27, 28, 200)))
    def hear(self, who: int, size: int) -> None:
        """
        Bytes arrive that need not be a complete message, or a pong.
        """
        if size:
            self.connections[who].say(size)
        else:
            self.connections[who].pong()
        self.read()

    @rule(who=WHO, interval=INTERVALS, count=COUNTS)
    def start(self, who: int, interval: float, count: int) -> None:
        """
        Start keepalive, or change it.
        """
        connection = self.connections[who]
        if not connection.tap.ending:
            connection.protocol._kaproto.startKeepAlive(KeepAlive(interval, count))
            connection.happenings.append(Started(interval, count))

    @rule(who=WHO, zero=st.sampled_from(((0, 5), (5, 0))))
    def stop(self, who: int, zero: tuple[int, int]) -> None:
        """
        Stop keepalive.
        """
        connection = self.connections[who]
        if not connection.tap.ending:
            connection.protocol._kaproto.startKeepAlive(KeepAlive(*zero))
            connection.happenings.append(Stopped())

    @rule(who=WHO)
    def pauseOrResume(self, who: int) -> None:
        """
        Pause reading, or resume it.
        """
        connection = self.connections[who]
        if connection.tap.ending:
            return
        if bool(connection.protocol._kaproto.reading.pauses):
            connection.protocol._kaproto.reading.resume(Pause.CALLS)
            self.read()
        else:
            connection.protocol._kaproto.pauseReading(Pause.CALLS)

    @rule(who=WHO)
    def congest(self, who: int) -> None:
        """
        The peer stops reading and then reads everything, which is no proof of life: the kernel
        accepts bytes for a stopped program too.
        """
        connection = self.connections[who]
        if not connection.tap.ending:
            connection.tap.fill()
            connection.tap.drain()

    @invariant()
    def inOrder(self) -> None:
        """
        There are no violations, and no timer is scheduled twice.
        """
        for each in self.connections:
            each.observe()
            assert not each.tap.wrongs, each.tap.wrongs
        assert len(self.clock.getDelayedCalls()) <= 3, self.clock.getDelayedCalls()

    def teardown(self) -> None:
        """
        When both connections are gone, no timer is left.
        """
        for each in self.connections:
            each.tap.lose(ConnectionResetError())
        for left in self.clock.getDelayedCalls():
            assert left.getTime() <= self.clock.seconds(), f"a timer is left: {left}"
        assert len(self.pacemaker) == 0


class LivenessModelTests(SynchronousTestCase):
    """
    Tests for connections against the model.
    """

    def test_anything(self) -> None:
        """
        For any sequence of events: no ping is sent before an interval of silence, at most C{count}
        are unanswered, and no peer is declared dead before C{interval * (count + 1)} seconds of
        running time, while there are bytes to read, or later than it should be.
        """
        run_state_machine_as_test(Process, settings=machineSettings(60, 25))
