"""
Runs attacks: chooses what is sent and how, and checks the outcome.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, Final

import attrs
from twisted.internet.error import ConnectionLost
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from zope.interface import implementer

from kaproto.wire.message import packMessage
from tests.harness.fuzz.frames import Frames
from tests.harness.fuzz.oracle import (
    CALL_WITH_FDS,
    RelayJudge,
    Violation,
    cutAll,
    cutOne,
    isOpen,
    judgeFor,
    require,
)
from tests.harness.fuzz.targets import TARGETS, Subject, Target, sameNonces
from tests.support import OPEN

__all__ = ["Attacker", "Case", "Drawn", "Growth", "Watcher", "shrink"]

FILL: Final = "full"
DRAIN: Final = "empty"
FAR: Final = "far:"
Step = bytes | float | str
"""
Bytes that the attacker sends, seconds that pass, L{FILL} to stop reading, L{DRAIN} to read
everything, or L{FAR} and bytes in hexadecimal for the other side of a gateway to send.
"""

_SETTLE: Final = (0.03125, 1.0, 1.0, 1.0, *(0.125,) * 9)
"""
Steps of the clock, in seconds, that are enough for everything delayed: three failing logins, one
after another.
"""

_CENSUS_SLACK: Final = 400


class Growth(Exception):
    """
    The number of objects keeps growing.
    """


@attrs.frozen
class Case:
    """
    One attack.
    """

    target: str
    state: str
    steps: tuple[Step, ...]

    @property
    def plain(self) -> bool:
        """
        Whether it only sends bytes.
        """
        return all(isinstance(step, bytes) for step in self.steps)

    def __str__(self) -> str:
        words = [step.hex() or "-" if isinstance(step, bytes) else str(step) for step in self.steps]
        return f"{self.target}|{self.state}|{' '.join(words)}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """
        @param text: an attack as C{str} formats it.
        """
        target, state, words = text.split("|")
        return cls(target, state, tuple(_step(word) for word in words.split()))


def _step(word: str) -> Step:
    if word in (FILL, DRAIN) or word.startswith(FAR):
        return word
    if "." in word:
        return float(word)
    return bytes.fromhex(word.replace("-", ""))


@attrs.define
class Drawn:
    """
    A random attack.

    @ivar mutated: for each step, whether it is a mutated frame.
    """

    case: Case
    mutated: Sequence[bool]


def draw(target: Target, subject: Subject, state: str, random: Random) -> Drawn:
    """
    Choose an attack on a connection at random.
    """
    frames = Frames(random, subject.script, subject.serial, subject.sasl)
    near = frames.fromClient if target.toServer else frames.fromServer
    far = frames.fromServer if target.toServer else frames.fromClient
    chaos = random.random() < 0.3
    steps: list[Step] = []
    mutated: list[bool] = []
    for _number in range(random.choice((2, 8, 16, 24, 32))):
        if chaos and random.random() < 0.4:
            step: Step = random.choice((FILL, DRAIN, 0.03125, 0.25, 0.5, 1.0, 11.0))
            if subject.far is not None and random.random() < 0.5:
                step = FAR + far().data.hex()
            steps.append(step)
            mutated.append(False)
        else:
            frame = near()
            steps.append(frame.data)
            mutated.append(frame.mutated)
    return Drawn(Case(target.name, state, tuple(steps)), mutated)


@implementer(ILogObserver)
class _LogWatch:
    """
    Checks that the log has no error, no traceback, and no character that cannot be shown.
    """

    def __init__(self) -> None:
        self.wrongs: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        text = formatEventAsClassicLogText(event) or ""
        if event.get("log_failure") is not None or event["log_level"] >= LogLevel.error:
            self.wrongs.append(text)
        if not text.replace("\n", "").replace("\t", "").isprintable():
            self.wrongs.append(f"a line that cannot be written or shown: {text!a}")


@attrs.define
class Tally:
    """
    Counts attacks and their outcomes.

    @ivar attacks: connections attacked.
    @ivar frames: frames sent before the connection ended.
    @ivar mutated: how many of them were mutated.
    @ivar deliveries: deliveries of attacks: whole, in pieces, or frame by frame.
    @ivar outcomes: how often each outcome followed a frame sent alone.
    """

    attacks: int = 0
    frames: int = 0
    mutated: int = 0
    deliveries: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)


def _inAnyOrder(written: bytes) -> bytes:
    """
    @return: the same frames, sorted.
    """
    frames, rest = cutAll(written)
    return b"".join(sorted(frame.raw for frame in frames)) + bytes(rest)


class Watcher:
    """
    Watches the log and the number of objects during attacks.

    @ivar tallies: the counts for each target, by its name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.tallies: dict[str, Tally] = {name: Tally() for name in names}
        self._log = _LogWatch()
        self._census: Counter[str] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """
        Watch during the C{with} block; attacks must run inside it.
        """
        globalLogPublisher.addObserver(self._log)
        try:
            with sameNonces():
                yield
        finally:
            globalLogPublisher.removeObserver(self._log)

    def drawn(self, seed: str) -> Drawn:
        """
        @return: the attack of a seed.
        """
        raise NotImplementedError

    def carryOut(self, case: Case, seed: str, outcomes: Counter[str]) -> int:
        """
        Run an attack, delivered in every way.

        @param seed: decides how it is split into pieces.
        @param outcomes: its outcomes are added to this.
        @return: the number of steps until the connection ended.
        @raise Violation: when an outcome is not allowed.
        """
        raise NotImplementedError

    def attack(self, seed: str) -> None:
        """
        Run the attack of a seed, and count it.

        @raise Violation: when an outcome is not allowed.
        """
        drawn = self.drawn(seed)
        tally = self.tallies[drawn.case.target]
        looked = self.carryOut(drawn.case, seed, tally.outcomes)
        tally.attacks += 1
        tally.deliveries += 1 if not drawn.case.plain else 3
        tally.frames += sum(isinstance(step, bytes) for step in drawn.case.steps[:looked])
        tally.mutated += sum(drawn.mutated[:looked])

    def requireCleanLog(self) -> None:
        """
        @raise Violation: when something was logged that is not allowed.
        """
        wrongs, self._log.wrongs = self._log.wrongs, []
        require(not wrongs, "in the log:\n" + "\n".join(wrongs))

    def takeCensus(self) -> int:
        """
        @return: how many more objects there are than the first time.
        @raise Growth: when there are too many.
        """
        gc.collect()
        census = Counter(type(each).__qualname__ for each in gc.get_objects())
        self.requireCleanLog()
        if self._census is None:
            self._census = census
        grown = census.total() - self._census.total()
        if grown >= _CENSUS_SLACK:
            raise Growth(
                f"{grown} objects more than at first: {(census - self._census).most_common(12)}"
            )
        return grown


class Attacker(Watcher):
    """
    Attacks RPC connections.
    """

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {target.name: target() for target in TARGETS}
        super().__init__(self.targets)
        self._subjects: dict[tuple[str, str], Subject] = {}

    def drawn(self, seed: str) -> Drawn:
        """
        @return: the attack of a seed.
        """
        random = Random(seed)
        target = self.targets[random.choice(list(self.targets))]
        state = random.choice(target.states)
        return draw(target, self._known(target, state), state, random)

    def _known(self, target: Target, state: str) -> Subject:
        """
        @return: a connection in that state, already closed; all of them are alike.
        """
        subject = self._subjects.get((target.name, state))
        if subject is None:
            subject = self._subjects[target.name, state] = target.connect(state)
            self._end(target, subject)
        return subject

    def carryOut(self, case: Case, seed: str, outcomes: Counter[str]) -> int:
        """
        Run an attack: one without pauses frame by frame, whole and in pieces, with the same outcome
        each time.

        @param seed: decides how it is split into pieces.
        @param outcomes: its outcomes are added to this.
        @return: the number of steps until the connection ended.
        @raise Violation: when an outcome is not allowed.
        """
        if not case.plain:
            return self._chaos(case, outcomes)
        data = b"".join(step for step in case.steps if isinstance(step, bytes))
        taken, framewise, blind = self._framewise(case, data, outcomes)
        for how, pieces in (("whole", [data]), ("in pieces", _pieces(data, Random(seed)))):
            result = self._deliver(case, pieces)
            # How much is read before reading stops depends on how the bytes arrive.
            require(
                result == framewise or blind, f"delivered {how}: {_difference(result, framewise)}"
            )
        looked, begin = 0, 0
        for step in case.steps:
            if begin >= taken:
                break
            begin += len(step) if isinstance(step, bytes) else 0
            looked += 1
        return looked

    def _framewise(
        self, case: Case, data: bytes, outcomes: Counter[str]
    ) -> tuple[int, tuple[object, ...], bool]:
        """
        Send one frame at a time, and judge the outcome of each.

        @return: the bytes sent until the connection ended, the result, and whether reading stopped
            meanwhile.
        """
        target = self.targets[case.target]
        subject = target.connect(case.state)
        judge = judgeFor(case.target, case.state, subject)
        blind = False
        begin = 0
        while begin < len(data) and not judge.over:
            frame = None
            length = int.from_bytes(data[begin : begin + 4], "big")
            if 28 <= length <= judge.limit:
                frame = cutOne(data, begin)
            piece = data[begin:] if frame is None else frame.raw
            begin += len(piece)
            subject.near.feed(piece)
            if subject.near.paused:
                # Too many calls are waiting, so nothing is read; the outcome is checked at the end.
                outcomes["not read for a while"] += 1
                blind = True
            elif blind:
                pass
            elif frame is None:
                judge.fragment(piece)
            else:
                judge.judge(frame)
                judge = judge.successor()
                if judge.dropping:
                    piece = data[begin : begin + judge.dropping]
                    begin += len(piece)
                    subject.near.feed(piece)
                    judge.dropped()
        self._settle(target)
        if not blind:
            judge.finish()
        if isinstance(judge, RelayJudge) and not judge.over and not len(data[begin:]):
            self._endFrame(case, judge)
        outcomes.update(judge.outcomes)
        if self._finishMid(case, subject):
            self._settle(target)
        return begin, self._result(target, subject), blind

    def _endFrame(self, case: Case, judge: RelayJudge) -> None:
        """
        Check that the frames waiting in the queue are complete.
        """
        for each in judge.queue:
            frames, rest = cutAll(each)
            require(len(frames) == 1 and not rest, "what waits is not one frame")

    def _finishMid(self, case: Case, subject: Subject) -> bool:
        """
        If the other side of a gateway is in the middle of a frame, send the rest of it.

        @return: whether it was.
        """
        far = subject.far
        if case.state != "mid" or far is None or subject.near.ending or far.ending:
            return False
        before = len(subject.near.written)
        sieve = subject.near.protocol._kaproto.outgoing.filter
        waiting = b"".join((sieve is not None and sieve._injected) or ())
        rest = bytes(68)
        far.feed(rest)
        require(
            subject.near.written[before:] == rest + waiting,
            "what had to wait comes after the frame that was under way",
        )
        return True

    def _deliver(self, case: Case, pieces: Sequence[bytes]) -> tuple[object, ...]:
        """
        Send the attack in other pieces.

        @return: the result.
        """
        target = self.targets[case.target]
        subject = target.connect(case.state)
        for piece in pieces:
            if subject.near.ending:
                break
            subject.near.feed(piece)
        self._settle(target)
        if self._finishMid(case, subject):
            self._settle(target)
        return self._result(target, subject)

    def _chaos(self, case: Case, outcomes: Counter[str]) -> int:
        """
        Send bytes, let time pass, stop and resume reading, and have the other side send: what is
        written must still be complete frames, with no more replies than calls.
        """
        target = self.targets[case.target]
        subject = target.connect(case.state)
        near, far = subject.near, subject.far
        before = len(near.written)
        looked = 0
        said = bytearray(packMessage(OPEN) if case.state == "opening" else b"")
        for step in case.steps:
            if near.ending:
                break
            looked += 1
            if isinstance(step, bytes):
                said += step
                near.feed(step)
            elif isinstance(step, float):
                self._pass(target, step)
            elif step == FILL:
                near.fill()
            elif step == DRAIN:
                near.drain()
            elif far is not None:
                far.feed(bytes.fromhex(step.removeprefix(FAR)))
        if far is None or not isOpen(near if target.toServer else far):
            written, rest = cutAll(bytes(near.written[before:]))
            require(not rest or near.ending, "half a frame was written")
            if target.toServer:
                self._checkReplies(written, bytes(said))
        reason = near.protocol._kaproto.closing.reason
        outcomes[f"ended with {type(reason).__name__}" if near.ending else "survived"] += 1
        self._result(target, subject)
        return looked

    def _checkReplies(self, written: Sequence[Any], said: bytes) -> None:
        try:
            frames = cutAll(said)[0]
        except Violation:
            return
        if any(frame.kind == CALL_WITH_FDS for frame in frames):
            # Bytes that come with file descriptors are not frames.
            return
        calls = Counter(frame.key for frame in frames)
        replies = Counter(frame.key for frame in written if frame.kind == 1)
        require(not replies - calls, f"replies to nothing: {replies - calls}")

    def _pass(self, target: Target, seconds: float) -> None:
        for _step in range(max(1, round(seconds / 0.25))):
            target.clock.advance(min(seconds, 0.25))

    def _settle(self, target: Target) -> None:
        for seconds in _SETTLE:
            target.clock.advance(seconds)

    def _result(self, target: Target, subject: Subject) -> tuple[object, ...]:
        """
        Close the connection, and check that nothing is left.

        @return: the reasons of the closes, and the bytes written.
        """
        reasons = [
            repr(tap.protocol._kaproto.closing.reason) if tap.ending else "open"
            for tap in subject.taps
        ]
        written = [bytes(tap.written) for tap in subject.taps]
        if target.name == "auth":
            # A failed login is answered late, and calls made meanwhile are not: the order of the
            # replies depends on when the calls arrive.
            written = [_inAnyOrder(each) for each in written]
        self._end(target, subject)
        return (*reasons, *written)

    def _end(self, target: Target, subject: Subject) -> None:
        """
        Disconnect the attacker, and check that nothing is left.
        """
        for tap in subject.taps:
            if tap.ending and not tap.lost:
                # It waits for the peer to read, but not for ever.
                self._pass(target, 6)
                require(tap.lost, "a connection does not end although it is to")
        subject.near.lose(ConnectionLost())
        target.clock.advance(0)
        if subject.far is not None and not isOpen(subject.near if target.toServer else subject.far):
            subject.far.lose(ConnectionLost())
            target.clock.advance(0)
        for tap in subject.taps:
            if not tap.lost and tap.full:
                tap.drain()
        target.clock.advance(0)
        for tap in subject.taps:
            require(not tap.wrongs, "\n".join(tap.wrongs))
            require(tap.lost, "the other side has not been closed")
            reason = tap.protocol._kaproto.closing.reason
            require(isinstance(reason, Exception), "closed without a reason")
        for waiting in subject.waiting:
            require(waiting.called, "somebody is waiting for ever")
            waiting.addErrback(lambda _: None)
        left = target.leftovers()
        require(not left, f"left behind: {left}")
        self.requireCleanLog()


def _difference(result: Sequence[object], expected: Sequence[object]) -> str:
    """
    @return: a description of the first difference.
    """
    for got, wanted in zip(result, expected, strict=True):
        if isinstance(got, bytes) and isinstance(wanted, bytes) and got != wanted:
            same = next(
                (
                    at
                    for at, pair in enumerate(zip(got, wanted, strict=False))
                    if pair[0] != pair[1]
                ),
                min(len(got), len(wanted)),
            )
            return (
                f"{len(got)} bytes were written instead of {len(wanted)}, from {same} on "
                f"{got[same : same + 80].hex()} instead of {wanted[same : same + 80].hex()}"
            )
        if got != wanted:
            return f"{got} instead of {wanted}"
    return "none"


def _pieces(data: bytes, random: Random) -> list[bytes]:
    """
    @return: the data in pieces: of one byte each, unless it is long.
    """
    if len(data) <= 1500:
        return [data[at : at + 1] for at in range(len(data))]
    pieces: list[bytes] = []
    begin = 0
    while begin < len(data):
        size = random.choice((1, 2, 3, 4, 27, 28, 29, 100, 5000))
        pieces.append(data[begin : begin + size])
        begin += size
    return pieces


def shrink(case: Case, seed: str, make: Callable[[], Watcher] = Attacker, tries: int = 600) -> Case:
    """
    Reduce an attack.

    @param make: creates what runs it.
    @return: the smallest attack found within C{tries} tries that still violates a rule.
    """

    def harmful(steps: Sequence[Step]) -> bool:
        nonlocal tries
        tries -= 1
        fresh = make()
        try:
            with fresh.watching():
                fresh.carryOut(attrs.evolve(case, steps=tuple(steps)), seed, Counter())
        except Exception:  # noqa: BLE001 - any harm will do
            return True
        return False

    steps = list(case.steps)
    size = max(1, len(steps) // 2)
    while size and tries > 0:
        at = 0
        while at < len(steps) and tries > 0:
            less = steps[:at] + steps[at + size :]
            if harmful(less):
                steps = less
            else:
                at += size
        size //= 2
    for number, step in enumerate(steps):
        data = step
        size = len(data) // 2 if isinstance(data, bytes) else 0
        at = 0
        while isinstance(data, bytes) and size and tries > 0:
            shorter = data[:at] + data[at + size :]
            if harmful([*steps[:number], shorter, *steps[number + 1 :]]):
                steps[number] = data = shorter
            else:
                at += size
            if at >= len(data):
                at, size = 0, size // 2
    return attrs.evolve(case, steps=tuple(steps))
