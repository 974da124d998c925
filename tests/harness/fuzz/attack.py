"""
One attack after the other: what is sent, how it is sent, and what is looked at afterwards.
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
Bytes that the attacker sends, seconds that pass, the attacker stops reading or reads everything,
or bytes in hexadecimal that the other side of a gateway sends.
"""

_SETTLE: Final = (0.03125, 1.0, 1.0, 1.0, *(0.125,) * 9)
"""
Seconds in which what takes time is done: three logins that fail, one after another.
"""

_CENSUS_SLACK: Final = 400


class Growth(Exception):
    """
    There are more and more objects.
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
        Whether nothing happens but that bytes are sent.
        """
        return all(isinstance(step, bytes) for step in self.steps)

    def __str__(self) -> str:
        words = [step.hex() or "-" if isinstance(step, bytes) else str(step) for step in self.steps]
        return f"{self.target}|{self.state}|{' '.join(words)}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """
        @param text: as C{str} makes it.
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
    An attack that was drawn.

    @ivar mutated: how many of the steps are frames that were mutated.
    """

    case: Case
    mutated: Sequence[bool]


def draw(target: Target, subject: Subject, state: str, random: Random) -> Drawn:
    """
    Think up an attack on a connection.
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
    Sees to it that the log is in order: no error, no traceback, nothing that no file takes.
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
    What was done, and what came of it.

    @ivar attacks: how many connections were attacked.
    @ivar frames: how many frames were sent before the connection ended.
    @ivar mutated: how many of them were mutated.
    @ivar deliveries: how many times an attack was delivered: whole, in pieces, frame by frame.
    @ivar outcomes: what came of the frames that were sent one by one.
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
    Looks at the log and at the number of objects while others attack.

    @ivar tallies: by the name of the target.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.tallies: dict[str, Tally] = {name: Tally() for name in names}
        self._log = _LogWatch()
        self._census: Counter[str] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """
        Attack only within this.
        """
        globalLogPublisher.addObserver(self._log)
        try:
            with sameNonces():
                yield
        finally:
            globalLogPublisher.removeObserver(self._log)

    def drawn(self, seed: str) -> Drawn:
        """
        @return: the attack that belongs to a seed.
        """
        raise NotImplementedError

    def carryOut(self, case: Case, seed: str, outcomes: Counter[str]) -> int:
        """
        Carry out an attack, in all the ways there are.

        @param seed: how to cut it in pieces.
        @param outcomes: is added to.
        @return: how many steps it took until the connection ended.
        @raise Violation: when something comes of it that may not.
        """
        raise NotImplementedError

    def attack(self, seed: str) -> None:
        """
        Carry out the attack that belongs to a seed.

        @raise Violation: when something comes of it that may not.
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
        @raise Violation: when something was logged that may not be.
        """
        wrongs, self._log.wrongs = self._log.wrongs, []
        require(not wrongs, "in the log:\n" + "\n".join(wrongs))

    def takeCensus(self) -> int:
        """
        @return: how many objects there are more than the first time.
        @raise Growth: when there are many.
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
        @return: the attack that belongs to a seed.
        """
        random = Random(seed)
        target = self.targets[random.choice(list(self.targets))]
        state = random.choice(target.states)
        return draw(target, self._known(target, state), state, random)

    def _known(self, target: Target, state: str) -> Subject:
        """
        @return: a connection in that state, which is gone by now: they are all alike.
        """
        subject = self._subjects.get((target.name, state))
        if subject is None:
            subject = self._subjects[target.name, state] = target.connect(state)
            self._end(target, subject)
        return subject

    def carryOut(self, case: Case, seed: str, outcomes: Counter[str]) -> int:
        """
        Carry out an attack, in all the ways there are.

        @param seed: how to cut it in pieces.
        @param outcomes: is added to.
        @return: how many steps it took until the connection ended.
        @raise Violation: when something comes of it that may not.
        """
        if not case.plain:
            return self._chaos(case, outcomes)
        data = b"".join(step for step in case.steps if isinstance(step, bytes))
        taken, framewise, blind = self._framewise(case, data, outcomes)
        for how, pieces in (("whole", [data]), ("in pieces", _pieces(data, Random(seed)))):
            result = self._deliver(case, pieces)
            # How much is read before reading stops depends on how it arrives.
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
        Send one frame at a time, and have a judge look at each.

        @return: how many bytes were sent until the connection ended, what came of them, and whether
            reading stopped meanwhile.
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
                # So much is waiting that nothing is read; what comes of it shows in the end.
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
        Nothing is lost of what has to wait: it is there, whole, in the queue.
        """
        for each in judge.queue:
            frames, rest = cutAll(each)
            require(len(frames) == 1 and not rest, "what waits is not one frame")

    def _finishMid(self, case: Case, subject: Subject) -> bool:
        """
        Have the other side end its frame, if it has one under way.
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
        Send the same in other pieces.

        @return: what came of it.
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
        Send, let time pass, read or do not, have the other side send: what is written must be
        whole frames all the same, and no more replies than calls.
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
            # Bytes that come with file descriptors are no frames.
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
        @return: all that came of an attack, once the connection is gone and nothing is left.
        """
        reasons = [
            repr(tap.protocol._kaproto.closing.reason) if tap.ending else "open"
            for tap in subject.taps
        ]
        written = [bytes(tap.written) for tap in subject.taps]
        if target.name == "auth":
            # A failed login is answered late, and what was called meanwhile is not: the order of
            # the replies depends on when the calls arrive.
            written = [_inAnyOrder(each) for each in written]
        self._end(target, subject)
        return (*reasons, *written)

    def _end(self, target: Target, subject: Subject) -> None:
        """
        Have the attacker go, and see that nothing of it stays.
        """
        for tap in subject.taps:
            if tap.ending and not tap.lost:
                # It is waiting for somebody to read, and not for ever.
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
    @return: where the first difference is.
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
    @return: the same, one byte at a time unless it is long.
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
    @param make: what attacks.
    @return: the least of an attack that does the same harm, as far as that is found in so many
        tries.
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
