"""
Repeats every fault and prints the outcomes, libvirtd's beside kaproto's.

Usage: C{python -m tests.harness.faults [--seconds SECONDS] [--rounds ROUNDS] [--each]}.  The exit
status is 0 only if every outcome was right.

Each row is one outcome.  For connections that died, its seconds are from the last new byte that
arrived until the connection was gone or, after a stall, from when the process continued.  For
connections that survived, they are the longest time without a new byte.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from inspect import isawaitable
from statistics import median
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.trial.unittest import SkipTest

from tests.harness.faults import network, stalls
from tests.harness.faults.bench import Bench
from tests.harness.faults.daemon import NamespacedDaemon
from tests.harness.faults.ends import Server
from tests.harness.faults.verdicts import Record
from tests.interop.support import InteropTestCase, missingTools, together, unavailable

__all__ = ["main"]


class _Stage(InteropTestCase):
    """
    Takes the place of a test case in a round.
    """

    def runTest(self) -> None:
        """
        Never called.
        """

    def __init__(self) -> None:
        super().__init__("runTest")  # type: ignore[no-untyped-call]
        self._todo: list[Callable[[], Any]] = []

    def addCleanup(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """
        Schedule a call for the end of the round.
        """
        self._todo.append(lambda: f(*args, **kwargs))

    async def clear(self) -> None:
        """
        Make the scheduled calls.
        """
        while self._todo:
            result = self._todo.pop()()
            if isawaitable(result):
                await result


async def _network(stage: _Stage) -> list[Record]:
    """
    Run every network fault, with kaserver and with libvirtd, on different links.
    """
    bench = await Bench.make(stage, 2 * network.LINKS)
    kaservers: dict[tuple[int, int], Server] = {}
    daemons: dict[tuple[int, int], Server] = {}
    for terms in (network.BRISK, network.PATIENT):
        kaservers[terms] = await bench.kaserver(*terms)
        daemon = await NamespacedDaemon.inNamespace(stage, bench.namespaces, *terms)
        daemons[terms] = daemon.server()
        bench.servers.append(daemons[terms])
    found = await together(
        network.run(bench, kaservers), network.run(bench, daemons, network.LINKS)
    )
    return found[0] + found[1]


async def _stalls(stage: _Stage) -> list[Record]:
    """
    Run every stall, and one with a stopped libvirtd for comparison.
    """
    bench = await Bench.make(stage, stalls.LINKS + stalls.COMPARISON_LINKS)
    found = await together(stalls.run(bench), stalls.comparison(bench, stalls.LINKS))
    return found[0] + found[1]


async def _round() -> list[Record]:
    records = []
    for part in (_network, _stalls):
        stage = _Stage()
        try:
            records += await part(stage)
        finally:
            await stage.clear()
    return records


def _rows(records: Sequence[Record], *, each: bool) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        view = f"{record.view}, of {record.who}" if each else record.view
        groups.setdefault((record.fault, view, record.outcome), []).append(record)
    rows: list[tuple[str, ...]] = []
    for group, found in groups.items():
        seconds = [record.seconds for record in found if record.seconds is not None]
        times = ["", "", ""]
        if seconds:
            times = [f"{value:.2f}" for value in (min(seconds), median(seconds), max(seconds))]
        wrong = sum(record.problem is not None for record in found)
        rows.append((*group, str(len(found)), *times, str(wrong)))
    return rows


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    titles = ("fault", "who", "outcome", "times", "min s", "median", "max", "wrong")
    everything = [titles, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(titles))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in everything
    ]
    return "\n".join(lines)


async def _run(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    records: list[Record] = []
    longest = 0.0
    rounds = 0
    try:
        missing = missingTools(("virsh", "libvirtd", "nsenter"))
        if missing:
            unavailable(f"not installed or not working here: {', '.join(missing)}")
        while rounds < arguments.rounds:
            start = time.monotonic()
            if start + longest > began + arguments.seconds:
                break
            found = await _round()
            records += found
            rounds += 1
            longest = max(longest, time.monotonic() - start)
            wrong = [str(record) for record in found if record.problem is not None]
            print(f"round {rounds}: {len(found)} outcomes, {len(wrong)} wrong", flush=True)
            for line in wrong:
                print(f"  {line}", flush=True)
    except SkipTest as reason:
        raise SystemExit(f"skipped: {reason}") from None
    print(f"\n{rounds} rounds in {time.monotonic() - began:.0f} s\n")
    print(_table(_rows(records, each=arguments.each)))
    if any(record.problem is not None for record in records):
        raise SystemExit(1)


def main() -> None:
    """
    Run as the command line says.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.harness.faults",
        description="Repeat every fault and print what came of it.",
    )
    parser.add_argument(
        "--seconds", type=float, default=300, help="begin no round that would end later"
    )
    parser.add_argument("--rounds", type=int, default=1000, help="have no more rounds than these")
    parser.add_argument("--each", action="store_true", help="a row for each kind of client")
    arguments = parser.parse_args()
    react(lambda _reactor: Deferred.fromCoroutine(_run(arguments)), [], reactor)


if __name__ == "__main__":
    main()
