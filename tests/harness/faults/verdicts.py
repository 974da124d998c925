"""
Records the outcome of a fault, and judges whether it is right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Final

import attrs

from tests.harness.faults.ends import End, OurEnd
from tests.harness.faults.namespaces import Namespaces
from tests.interop.support import pause, waitUntil

__all__ = ["LATE", "Judge", "Record", "ofClient", "ofServer", "problems", "silence"]

LATE: Final = 0.5
"""
The most seconds by which a detection may be late, on a busy machine.
"""

_EARLY: Final = 0.05
_CROSSING: Final = 0.1
"""
The most seconds between the arrival of a byte and a close that it did not prevent: the two may
cross, and the close is noticed a little late.
"""

_RIGHTLY: Final = "dead, rightly"
_STALL_COUNTS: Final = 0.3
"""
The most seconds of a stall that a server counts as silence, with some tolerance.
"""


@attrs.frozen
class Record:
    """
    The outcome of a fault for one end of a connection.

    @ivar fault: the fault.
    @ivar view: the end that acted, such as C{"kaserver"} or C{"virsh of kaserver"}.
    @ivar who: the name of the client's end.
    @ivar outcome: what that end did.
    @ivar seconds: how long it took, or the longest silence it survived.
    @ivar problem: why that is wrong, or C{None}.
    """

    fault: str
    view: str
    who: str
    outcome: str
    seconds: float | None = None
    problem: str | None = None

    def __str__(self) -> str:
        """
        @return: the text for failure messages.
        """
        after = "" if self.seconds is None else f", {self.seconds:.2f} s"
        text = f"{self.fault}: {self.view} of {self.who}: {self.outcome}{after}"
        return text if self.problem is None else f"{text}: {self.problem}"


def ofServer(
    fault: str, end: End, outcome: str, seconds: float | None = None, problem: str | None = None
) -> Record:
    """
    @return: a record of what the server did.
    """
    return Record(fault, end.server.kind, end.name, outcome, seconds, problem)


def ofClient(
    fault: str, end: End, outcome: str, seconds: float | None = None, problem: str | None = None
) -> Record:
    """
    @return: a record of what the client did.
    """
    return Record(fault, f"{end.kind} of {end.server.kind}", end.name, outcome, seconds, problem)


class Judge:
    """
    Waits for outcomes and judges them.
    """

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces

    @staticmethod
    async def _deaths(end: End) -> list[tuple[float, str]]:
        """
        @return: when and why the log says that a client died.  The line is written when the
            connection has ended, a moment after the kernel shows it as closing.
        """
        with suppress(AssertionError):
            await waitUntil(lambda: bool(end.server.deaths(end.address)), "a death", 2)
        await pause(0.1)
        return end.server.deaths(end.address)

    async def serverFinds(self, fault: str, end: End, most: float | None = None) -> Record:
        """
        Check that the server disconnects a client it no longer hears, in time.

        @param most: the most seconds of silence that may take, if not the server's timeout.
        """
        server = end.server
        if most is None:
            most = server.death
        try:
            lost = await self._dropped(end, server.death + 6)
        except AssertionError:
            return ofServer(fault, end, "never", None, "it kept a client that was dead")
        seconds = await self.silenceAt(end, lost, atServer=True)
        problem = None
        if server.judged:
            deaths = await self._deaths(end)
            if len(deaths) != 1:
                problem = _accounts(end, f"{len(deaths)} deaths in the log")
            elif abs(deaths[0][0] - lost) > LATE:
                problem = f"log and kernel differ by {deaths[0][0] - lost:.2f} s"
            elif not server.death - _EARLY <= seconds <= most + LATE:
                problem = f"not after {server.death:g} s"
        return ofServer(fault, end, "dead", seconds, problem)

    async def _dropped(self, end: End, timeout: float) -> float:
        return await waitUntil(
            partial(end.server.lost.get, end.address), "the server to drop it", timeout
        )

    async def serverFindsAfterStall(
        self, fault: str, end: End, stopped: float, proceeded: float
    ) -> Record:
        """
        Check that the server disconnects a client that fell silent while the server stalled.

        @param stopped: when the stall began.
        @param proceeded: when it ended.
        @return: a record with the seconds since C{proceeded}.
        """
        server = end.server
        name = f"{fault}: cut off meanwhile"
        try:
            lost = await self._dropped(end, 3 * server.death + 6)
        except AssertionError:
            return ofServer(name, end, "never", None, "it kept a client that was dead")
        report = await self._namespaces.report(end.link)
        heard = report.heardByServer(end.port, server.port)
        # Bytes that arrived during the stall were read when it ended.
        last = max(each for each in heard if each <= lost)
        looked = lost - proceeded + max(0.0, stopped - last) + _STALL_COUNTS
        problem = None
        if server.judged:
            deaths = await self._deaths(end)
            if len(deaths) != 1:
                problem = _accounts(end, f"{len(deaths)} deaths in the log")
            elif lost - proceeded > server.death + LATE:
                problem = f"later than {server.death:g} s"
            elif looked < server.death:
                problem = f"sooner than {server.death:g} s"
        return ofServer(name, end, "dead", lost - proceeded, problem)

    async def clientFinds(self, fault: str, end: End) -> Record:
        """
        Check that a client closes a connection to a server it no longer hears, in time.
        """
        try:
            lost, reason = await waitUntil(end.lostAt, "it to drop the server", end.death + 6)
        except AssertionError:
            return ofClient(fault, end, "never", None, "it kept a server that was dead")
        seconds = await self.silenceAt(end, lost, atServer=False)
        problem = None
        if isinstance(end, OurEnd):
            if "KeepAliveTimeout" not in reason:
                problem = reason
            elif not end.death - _EARLY <= seconds <= end.death + LATE:
                problem = f"not after {end.death:g} s"
        return ofClient(fault, end, "dead", seconds, problem)

    async def clientLearns(self, fault: str, end: End) -> Record:
        """
        Record what a client notices that still hears the server, when the server no longer hears
        it.
        """
        limit = max(end.server.death, end.death) + 2
        try:
            lost, reason = await waitUntil(end.lostAt, "it to learn", limit)
        except AssertionError:
            problem = "it was not told" if end.death else None
            return ofClient(fault, end, "never told", None, problem)
        outcome = "dead" if "KeepAliveTimeout" in reason else "learns"
        seconds = await self.silenceAt(end, lost, atServer=False)
        problem = None
        if isinstance(end, OurEnd) and end.death and seconds > end.death + LATE:
            problem = f"later than {end.death:g} s"
        return ofClient(fault, end, outcome, seconds, problem)

    async def clientTold(self, fault: str, end: End, since: float, within: float) -> Record:
        """
        Check that a client notices in time that its connection has ended.

        @param since: when the time starts, on the monotonic clock.
        @param within: the most seconds it may take.
        """
        try:
            lost, _reason = await waitUntil(end.lostAt, "it to be told", within + 6)
        except AssertionError:
            return ofClient(fault, end, "never told", None, "it was not told")
        problem = f"later than {within:g} s" if lost - since > within else None
        return ofClient(fault, end, "told", lost - since, problem)

    async def serverSees(self, fault: str, end: End) -> Record:
        """
        Check that the server drops a client that has closed, and does not log it as dead.
        """
        server = end.server
        try:
            lost = await self._dropped(end, end.death + 6)
        except AssertionError:
            return ofServer(fault, end, "never", None, "it kept a client that had closed")
        at = end.lostAt()
        seconds = max(0.0, lost - at[0]) if at else None
        problem = None
        if server.judged and server.deaths(end.address):
            problem = f"a false death: {server.deaths(end.address)[0][1]}"
        return ofServer(fault, end, "told", seconds, problem)

    async def stays(self, fault: str, end: End) -> list[Record]:
        """
        Check that a connection has survived on both sides and is usable, or that it was closed
        after as long a silence as was agreed.

        The silence is measured from the bytes that arrived.
        """
        server = end.server
        if end.address not in server.lost and end.lostAt() is None:
            try:
                await end.call()
            except AssertionError as error:
                await pause(0.1)
                if end.address not in server.lost and end.lostAt() is None:
                    return [ofClient(fault, end, "unusable", None, str(error))]
        dropped, lost = server.lost.get(end.address), end.lostAt()
        if dropped is None and lost is None:
            problem = None if server.knows(end.address) else "another connection"
            return [ofServer(fault, end, "kept", await self.longestSilence(end), problem)]
        records = []
        if dropped is not None:
            records.append(await self._serverEnded(fault, end, dropped, lost))
        if lost is not None:
            records.append(await self._clientEnded(fault, end, dropped, *lost))
        return records

    async def _serverEnded(
        self, fault: str, end: End, dropped: float, lost: tuple[float, str] | None
    ) -> Record:
        server = end.server
        seconds = await self.silenceAt(end, dropped, atServer=True, but=_CROSSING)
        if _leftBefore(lost, dropped):
            return ofServer(fault, end, "left")
        if server.judged and not server.deaths(end.address):
            outcome = "dropped"
        else:
            outcome = _death(seconds, server.death)
        problem = None
        if server.judged and outcome != _RIGHTLY:
            problem = _accounts(end, "a false death")
        return ofServer(fault, end, outcome, seconds, problem)

    async def _clientEnded(
        self, fault: str, end: End, dropped: float | None, lost: float, reason: str
    ) -> Record:
        if dropped is not None and "KeepAliveTimeout" not in reason:
            return ofClient(fault, end, "told")
        seconds = await self.silenceAt(end, lost, atServer=False, but=_CROSSING)
        outcome = _death(seconds, end.death)
        judged = isinstance(end, OurEnd) and outcome != _RIGHTLY
        return ofClient(
            fault, end, outcome, seconds, f"a false death: {reason}" if judged else None
        )

    async def silenceAt(self, end: End, at: float, *, atServer: bool, but: float = 0.0) -> float:
        """
        @param but: bytes that arrived less than this many seconds before C{at} do not count.
        @return: the seconds from the last new byte that arrived on one side until C{at}.
        """
        report = await self._namespaces.report(end.link)
        hear = report.heardByServer if atServer else report.heardByClient
        return silence(hear(end.port, end.server.port), at - but) + but

    async def longestSilence(self, end: End) -> float:
        """
        @return: the longest time without a new byte from the client.
        """
        report = await self._namespaces.report(end.link)
        heard = report.heardByServer(end.port, end.server.port)
        return max((later - earlier for earlier, later in pairwise(heard)), default=0.0)


def _accounts(end: End, problem: str) -> str:
    """
    @return: the problem, with what the log and the client say about it.
    """
    log = [line for _at, line in end.server.program.lines if end.address in line]
    return f"{problem}; the log says {log}, the client {end.lostAt()}"


def _leftBefore(lost: tuple[float, str] | None, dropped: float) -> bool:
    """
    @return: whether the client had declared the server dead before the server disconnected it.
    """
    if lost is None or lost[0] > dropped + LATE:
        return False
    return re.search("KeepAliveTimeout|keepalive timeout", lost[1]) is not None


def _death(seconds: float, limit: float) -> str:
    return _RIGHTLY if limit and seconds >= limit - _EARLY else "dead, FALSELY"


def problems(records: Sequence[Record]) -> list[str]:
    """
    @return: the records with a problem, as text.
    """
    return [str(record) for record in records if record.problem is not None]


def silence(heard: Sequence[float], at: float) -> float:
    """
    @param heard: when bytes arrived.
    @return: the seconds since the last of them until C{at}.
    """
    return at - max((each for each in heard if each <= at), default=float("-inf"))
