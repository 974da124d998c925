"""
Runs a soak from beginning to end, and collects the problems.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import attrs

from tests.harness.soak.clients import KINDS
from tests.harness.soak.crowd import Crowd
from tests.harness.soak.gateway import gateway
from tests.harness.soak.judge import Judge, Verdict
from tests.harness.soak.plan import PER_SECOND, SETTLE, Plan, Result
from tests.harness.soak.scene import Scene
from tests.harness.soak.server import Inside, Server

__all__ = ["OutOfTime", "Soak"]

_SAMPLE_EVERY: Final = 0.25
_PER_CONNECTION: Final = 0.02
_ENTRIES: Final = 50
_OBJECTS: Final = 400
_MEMORY: Final = 8192
_MEMORY_PART: Final = 0.15
_STALL: Final = 1.5
_VAGUE_PART: Final = 0.02
_OPENING_PART: Final = 0.02
_FACTORY: Final = "kaproto.server.KeepAliveServerFactory"
_CANCELLED: Final = "twisted.internet.base.DelayedCall"
_CANCELLED_MAX: Final = 64


class OutOfTime(Exception):
    """
    The soak takes longer than allowed.
    """


class Soak:
    """
    A server and its crowd, for a limited time.
    """

    def __init__(self, plan: Plan, folder: str, report: Callable[[str], None]) -> None:
        """
        @param folder: the folder for the server's log.
        @param report: called with lines about the progress.
        """
        self._plan = plan
        self._folder = folder
        self._report = report
        self._begun = time.monotonic()
        self._problems: list[str] = []
        self._told = 0

    def run(self) -> Result:
        """
        Run the soak.

        @raise OutOfTime: when it takes longer than the plan allows.
        @raise RuntimeError: when the server cannot be started, or has ended.
        """
        plan = self._plan
        with ExitStack() as stack:
            scene = Scene(KINDS)
            if plan.behindGateway:
                scene = stack.enter_context(gateway(plan.interval, plan.count))
            self.server = Server(
                self._folder, plan.interval, plan.count, scene.arguments, plan.mutant
            )
            stack.callback(self.server.end)
            judge = Judge(plan.interval, plan.count, plan.tolerance, self.server.excuses)
            self.crowd = Crowd(attrs.evolve(scene, ports=self.server.ports), judge)
            stack.callback(self.crowd.close)
            self._rehearse()
            before = self.server.look(thorough=True)
            self._tell("nobody is connected", before)
            full, end = self._fill()
            self._empty()
            after = self._settled(before)
            self._tell("nobody is connected", after)
            self._compareMemory(full, end)
            self._compareInside(before, after)
            self._judge()
            return Result(
                self.crowd.verdicts, self.crowd.connections, self.crowd.calls, self._problems
            )

    def _tell(self, what: str, inside: Inside) -> None:
        crowd, verdicts = self.crowd, self.crowd.verdicts
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(crowd.kinds.items()))
        elapsed = time.monotonic() - self._begun
        self._report(
            f"{elapsed:7.1f} s  {what}: {len(crowd)} clients ({kinds or 'none'}; "
            f"{len(crowd.silent)} silent), {crowd.connections} connections so far, "
            f"{crowd.calls} calls; dead: {verdicts.found} found in time, "
            f"{sum(verdicts[each] for each in (Verdict.EARLY, Verdict.LATE, Verdict.NEVER))} not; "
            f"live: {verdicts[Verdict.KILLED]} killed; kaserver: {inside.memory} KiB, "
            f"{inside.descriptors} descriptors, {inside.timers} timers, "
            f"{inside.connected} connections, {self.server.processorTime():.1f} s of "
            f"processor; longest time without a look: {crowd.longestGap:.3f} s"
        )
        for detail in crowd.details[self._told :]:
            self._report(f"    {detail}")
        self._told = len(crowd.details)

    def _turnUntil(self, done: Callable[[], object], what: str, seconds: float) -> None:
        """
        Run the crowd until a condition is true.

        @raise OutOfTime: when it is not true within C{seconds}.
        """
        deadline = time.monotonic() + seconds
        while not done():
            self._turn()
            if time.monotonic() > deadline:
                raise OutOfTime(f"not within {seconds:.0f} s: {what}")

    def _turn(self) -> None:
        self.crowd.turn()
        now = self.crowd.looked
        if now - self.server.sampled >= _SAMPLE_EVERY:
            self.server.sample(now)
            if not self.server.running:
                raise RuntimeError(f"kaserver has ended, see {self.server.logPath}")
        if now - self._begun > self._plan.bound:
            raise OutOfTime(f"all of it may take {self._plan.bound:.0f} s")

    def _rehearse(self) -> None:
        """
        Make everything happen once, so that what a process keeps after its first connection, call
        and death exists before anything is counted.
        """
        self.crowd.populate(40, 400)
        death = self.crowd.judge.death
        until = time.monotonic() + 1.5 * death
        self._turnUntil(
            lambda: time.monotonic() > until and self.crowd.verdicts.total(),
            "the first death is found, or not found in time",
            6 * death + SETTLE,
        )
        self._empty()
        self._turnUntil(lambda: not self._ask().connected, "the first clients have gone", SETTLE)

    def _ask(self, *, thorough: bool = False) -> Inside:
        """
        Request a report from the server, while the crowd runs.
        """
        self.server.ask(thorough=thorough)
        answers: list[Inside] = []

        def answered() -> bool:
            answer = self.server.answer()
            if answer is not None:
                answers.append(answer)
            return bool(answers)

        self._turnUntil(answered, "kaserver tells what there is in it", 2 * SETTLE)
        return answers[0]

    def _fill(self) -> tuple[Inside, Inside]:
        """
        Connect all clients, and run the crowd for the planned time.

        @return: the server's reports after a while, and at the end.
        """
        plan, crowd = self._plan, self.crowd
        crowd.mayDie = crowd.replacing = True
        expected = crowd.connections + plan.clients
        crowd.populate(plan.clients, PER_SECOND)
        allCome = time.monotonic() + plan.clients / PER_SECOND
        self._turnUntil(
            lambda: (
                time.monotonic() > allCome
                and crowd.connections >= expected
                and crowd.opening <= _OPENING_PART * plan.clients
            ),
            f"{plan.clients} clients have come, and all but a few are open",
            4 * plan.clients / PER_SECOND + SETTLE,
        )
        begun = time.monotonic()
        full: Inside | None = None
        nextStall = begun + (plan.stallEvery or 2 * plan.seconds)
        nextReport = begun + plan.reportEvery
        warm = begun + min(60, plan.seconds / 2)
        while (now := time.monotonic()) < begun + plan.seconds:
            self._turn()
            if full is None and now >= warm:
                full = self._ask()
                self._tell("warm", full)
            if now >= nextReport:
                nextReport += plan.reportEvery
                self._tell("going on", self._ask())
            if now >= nextStall:
                nextStall += plan.stallEvery
                self._stall()
        end = self._ask()
        self._tell("full", end)
        return full or end, end

    def _stall(self) -> None:
        self.server.stop()
        until = time.monotonic() + _STALL * self.crowd.judge.death
        try:
            while time.monotonic() < until:
                self._turn()
        finally:
            self.server.go()

    def _empty(self) -> None:
        """
        Let no more clients die, wait until all dead ones have been found, and close the others.
        """
        self.crowd.mayDie = self.crowd.replacing = False
        self._turnUntil(
            lambda: not self.crowd.silent,
            "all dead clients are found or given up",
            8 * self.crowd.judge.death + SETTLE,
        )
        self.crowd.leave()

    def _settled(self, before: Inside) -> Inside:
        """
        @return: the server's report once it has freed all connections, or has not in time.
        """
        deadline = time.monotonic() + SETTLE
        while True:
            after = self._ask(thorough=True)
            gone = after.descriptors <= before.descriptors and after.timers <= before.timers
            if (gone and not after.connected) or time.monotonic() > deadline:
                return after
            time.sleep(0.5)

    def _compareMemory(self, full: Inside, end: Inside) -> None:
        # Resident memory is that of the worst moment so far: it grows a little with each stall, and
        # with what waits for the garbage collector. Leaks show in the entries.
        allowed = max(_MEMORY, _MEMORY_PART * full.memory)
        grown = end.memory - full.memory
        self._report(f"memory with all clients: grown by {grown} KiB, {allowed:.0f} are allowed")
        if grown > allowed:
            self._problems.append(f"memory has grown by {grown} KiB, {allowed:.0f} are allowed")

    def _compareInside(self, before: Inside, after: Inside) -> None:
        for name in ("connected", "watching", "descriptors", "selectables", "timers"):
            old, new = getattr(before, name), getattr(after, name)
            self._report(f"{name} without clients: {old} before, {new} after")
            if old != new:
                self._problems.append(f"{name} were {old} before and are {new} after")
        if not before.types[_FACTORY]:
            self._problems.append("objects were not counted rightly: the server's own are missing")
        more = after.types - before.types
        # Twisted removes cancelled calls only when there are more than fifty.
        if more[_CANCELLED] <= _CANCELLED_MAX:
            del more[_CANCELLED]
        self._report(f"objects of kaproto's and Twisted's types: {sum(more.values())} more")
        if more:
            self._problems.append(f"more objects than before: {dict(more.most_common(10))}")
        for name, some in (("entries", _ENTRIES), ("objects", _OBJECTS)):
            allowed = some + _PER_CONNECTION * self.crowd.connections
            grown = getattr(after, name) - getattr(before, name)
            self._report(f"{name}: {grown} more, {allowed:.0f} are allowed")
            if grown > allowed:
                self._problems.append(f"{name}: {grown} more, {allowed:.0f} are allowed")

    def _judge(self) -> None:
        verdicts = self.crowd.verdicts
        for verdict in Verdict:
            self._report(f"{verdict.value}: {verdicts[verdict]}")
        self._problems += [f"{verdict.value}: {n}" for verdict, n in verdicts.wrong.items()]
        self._problems += self.crowd.details
        if not verdicts.found:
            self._problems.append("no dead client was found")
        if verdicts[Verdict.VAGUE] > _VAGUE_PART * verdicts.found + 1:
            self._problems.append("nobody was looking when too many of the dead were found")
        died = verdicts.found + verdicts[Verdict.EARLY] + verdicts[Verdict.LATE]
        killed = verdicts[Verdict.KILLED] + verdicts[Verdict.UNKNOWN]
        logged = self.server.deaths()
        self._report(f"deaths in the server's log: {logged}, seen by the clients: {died}")
        if logged != died + killed:
            self._problems.append(f"{logged} deaths were logged, {died + killed} were seen")
        complaints = self.server.complaints()
        self._problems += [f"in the log: {line}" for line in complaints[:10]]
        if len(complaints) > 10:
            self._problems.append(f"in the log: {len(complaints)} such lines")
