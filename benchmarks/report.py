"""
Formats one run's figures as tables and as JSON.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.checkout import fingerprint
from benchmarks.measure import DISTURBED, Held, Opened

__all__ = ["VERDICTS", "Run", "machine", "table"]

PEERS_TO_BEAT = (
    # name, allowed multiple of its cost, numbers of clients
    ("floor", 2.5, (2000, 10000)),
    ("autobahn", 1 / 2, (2000, 10000)),
    ("libvirtd", 1 / 15, (2000,)),
)
MEMORY_OVER_BARE = 2500
OPENS_OVER_LIBVIRTD = 3
GROWTH = 1.15

VERDICTS = {True: "met", False: "MISSED", None: "undecided, disturbed"}
"""
The texts for a target's result.
"""


@dataclass
class Run:
    """
    All results of one run.

    @ivar options: the options of the run.
    @ivar machine: the machine that it ran on.
    @ivar skipped: the reasons why servers were left out, by name.
    @ivar held: the figures of each server with each number of clients.
    @ivar opened: the figures of each server while its clients connect.
    """

    options: dict[str, Any]
    machine: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)

    def asJson(self) -> dict[str, Any]:
        """
        @return: the results, for C{json.dumps}.
        """
        return {
            "options": self.options,
            "machine": self.machine,
            "skipped": self.skipped,
            "held": [held.asJson() for held in self.held],
            "opened": [opened.asJson() for opened in self.opened],
            "targets": [{"target": text, "met": met} for text, met in self.targets()],
        }

    def asMarkdown(self) -> str:
        """
        @return: the tables, as Markdown.
        """
        where = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        parts = [
            "# Keepalive servers side by side",
            f"{where}. Pings every "
            f"{self.options['interval']:g} s. All figures are of one run; compare ratios.",
        ]
        parts += [self._steady(clients) for clients in self._counts()]
        if self.opened:
            parts.append(self._arriving())
        parts += [self._matrices(clients) for clients in self._counts()]
        targets = [f"- {VERDICTS[met]}: {text}" for text, met in self.targets()]
        if targets:
            parts += ["## Targets", "\n".join(targets)]
        everything: list[Held | Opened] = [*self.held, *self.opened]
        disturbed = sum(figures.disturbed for figures in everything)
        if disturbed:
            parts.append(
                f"**{disturbed} of {len(everything)} measurements were "
                f"disturbed**: other processes used more than {100 * DISTURBED:.0f} % of a "
                "processor meanwhile. Their rates and delays say little, and their cost may be "
                "too high. Targets on cost and rates that rest on them are undecided."
            )
        if self.skipped:
            lines = [f"- {name}: {reason}" for name, reason in self.skipped.items()]
            parts += ["## Left out", "\n".join(lines)]
        return "\n\n".join(parts) + "\n"

    def _counts(self) -> list[int]:
        return sorted({held.clients for held in self.held})

    def _at(self, clients: int) -> list[Held]:
        return [held for held in self.held if held.clients == clients]

    def find(self, server: str, clients: int) -> Held | None:
        """
        Find the figures of a server.

        @param server: its name.
        @param clients: the number of clients.
        @return: the figures; L{None} if they were not measured with all of these clients.
        """
        for held in self.held:
            if (held.server, held.clients, held.problem) == (server, clients, ""):
                return held
        return None

    def _steady(self, clients: int) -> str:
        floor, bare = self.find("floor", clients), self.find("bare", clients)
        rows = [self._steadyRow(held, floor, bare) for held in self._at(clients)]
        heading = [
            "server",
            "us per round trip",
            "x floor",
            "kB per client",
            "over bare Twisted",
            "pong late p50 ms",
            "p99",
            "ping late p99 ms",
            "max",
            "server CPU %",
            "generator CPU %",
            "others CPU %",
            "remarks",
        ]
        return f"## {clients:,} clients\n\n{table(heading, rows)}"

    def _steadyRow(self, held: Held, floor: Held | None, bare: Held | None) -> list[str]:
        return [
            held.server,
            _number(held.microseconds, "{:.1f}"),
            _ratio(held.microseconds, floor.microseconds if floor else None),
            _number(_kilo(held.bytesPerClient), "{:.2f}"),
            _number(_difference(held, bare), "{:+.2f}"),
            *(_number(_milli(held.pongLate.get(key)), "{:.1f}") for key in ("p50", "p99")),
            *(_number(_milli(held.pingLate.get(key)), "{:.1f}") for key in ("p99", "max")),
            _number(held.processor and 100 * held.processor, "{:.1f}"),
            _number(held.generatorProcessor and 100 * held.generatorProcessor, "{:.1f}"),
            *_remarks(held),
        ]

    def _arriving(self) -> str:
        rows = []
        floor = next((opened for opened in self.opened if opened.server == "floor"), None)
        for opened in self.opened:
            storm = opened.storm
            rows.append(
                [
                    opened.server,
                    _number(opened.perSecond, "{:,.0f}"),
                    _ratio(opened.perSecond, floor.perSecond if floor else None),
                    _number(opened.microseconds, "{:.0f}"),
                    *(_number(storm.get(key), "{:,}") for key in ("opened", "refused", "timedOut")),
                    _number(storm.get("seconds"), "{:.2f}"),
                    *_remarks(opened, storm.get("firstError", "")),
                ]
            )
        heading = [
            "server",
            "opens per second",
            "x floor",
            "us per open",
            f"of {self.options['storm']:,} at once: opened",
            "refused",
            "timed out",
            "seconds",
            "others CPU %",
            "remarks",
        ]
        return f"## Opening\n\n{table(heading, rows)}"

    def _matrices(self, clients: int) -> str:
        present = [held for held in self._at(clients) if not held.problem]
        measures: list[tuple[str, Callable[[Held], float | None]]] = [
            ("processor time per round trip", lambda held: held.microseconds),
            ("memory per client", lambda held: held.bytesPerClient),
            ("pong late, p50", lambda held: held.pongLate.get("p50")),
            ("pong late, p99", lambda held: held.pongLate.get("p99")),
        ]
        if clients == self._counts()[-1] and self.opened:
            rates = {opened.server: opened.perSecond for opened in self.opened}
            measures.append(("opens per second", lambda held: rates.get(held.server)))
        parts = [f"## Row over column, {clients:,} clients"]
        for name, measure in measures:
            figures = [(held.server, measure(held)) for held in present]
            known = [(server, figure) for server, figure in figures if figure]
            rows = [
                [server, *(_ratio(figure, other) for _, other in known)] for server, figure in known
            ]
            if rows:
                parts.append(table([name, *(server for server, _ in known)], rows))
        return "\n\n".join(parts)

    def targets(self) -> list[tuple[str, bool | None]]:
        """
        Check the project's own targets, as far as this run measured them.

        @return: for each target a text with the target and the result, and whether it was met;
            L{None} if a measurement was disturbed.
        """
        found: list[tuple[str, bool | None]] = []
        for peer, limit, counts in PEERS_TO_BEAT:
            for clients in counts:
                ours, theirs = self.find("kaserver", clients), self.find(peer, clients)
                if ours and theirs and ours.microseconds and theirs.microseconds:
                    ratio = ours.microseconds / theirs.microseconds
                    text = f"cost at {clients:,} clients at most {limit:.3g} of {peer}: {ratio:.3g}"
                    found.append((text, _decided(ratio <= limit, ours, theirs)))
        few, many = self.find("kaserver", 2000), self.find("kaserver", 10000)
        if few and many and few.microseconds and many.microseconds:
            growth = many.microseconds / few.microseconds
            text = f"cost at 10,000 clients at most {GROWTH:.3g} of that at 2,000: {growth:.3g}"
            floors = self.find("floor", 2000), self.find("floor", 10000)
            if floors[0] and floors[1] and floors[0].microseconds and floors[1].microseconds:
                text += f" (the floor's: {floors[1].microseconds / floors[0].microseconds:.3g})"
            found.append((text, _decided(growth <= GROWTH, few, many)))
        for clients in self._counts():
            over = _difference(self.find("kaserver", clients), self.find("bare", clients))
            if over is not None:
                text = f"memory over a bare Protocol at most {MEMORY_OVER_BARE / 1000} kB with "
                text += f"{clients:,} clients: {over:.2f} kB"
                found.append((text, over * 1000 <= MEMORY_OVER_BARE))
        arrivals = {opened.server: opened for opened in self.opened}
        arriving, libvirtd = arrivals.get("kaserver"), arrivals.get("libvirtd")
        if arriving and libvirtd and arriving.perSecond and libvirtd.perSecond:
            ratio = arriving.perSecond / libvirtd.perSecond
            text = f"opens per second at least {OPENS_OVER_LIBVIRTD} times libvirtd's: {ratio:.3g}"
            met = ratio >= OPENS_OVER_LIBVIRTD
            found.append((text, _decided(met, arriving, libvirtd)))
        if arriving and arriving.storm:
            clients, came = arriving.storm["clients"], arriving.storm["opened"]
            found.append((f"a storm all opened: {came:,} of {clients:,}", came == clients))
        return found


def _decided(met: bool, *figures: Held | Opened) -> bool | None:
    return None if any(one.disturbed for one in figures) else met


def _remarks(figures: Held | Opened, more: str = "") -> list[str]:
    marks = [figures.problem or more, "disturbed" if figures.disturbed else ""]
    others = None if figures.others is None else 100 * figures.others
    return [_number(others, "{:.0f}"), "; ".join(filter(None, marks))]


def machine() -> dict[str, Any]:
    """
    Describe the machine.

    @return: kernel, processor, and versions of the compared programs.
    """
    found: dict[str, Any] = {
        "kaproto": f"source {fingerprint()}",
        "system": f"{platform.system()} {platform.release()}",
        "processors": f"{_cores()} x {_model()}",
        "Python": sys.version.split()[0],
    }
    for package in ("twisted", "autobahn", "websockets"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """
    Format a table that is readable as text and as Markdown.

    @param heading: the names of the columns.
    @param rows: the cells; the first column is aligned to the left, the others to the right.
    @return: its lines.
    """
    lines = [list(heading), *map(list, rows)]
    kept = [i for i, name in enumerate(heading) if any(line[i] for line in lines[1:])]
    lines = [[line[i] for i in kept] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(kept))]
    left = {0, *(i for i, name in enumerate(lines[0]) if name == "remarks")}

    def joined(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if i in left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([joined(lines[0]), joined(rule), *map(joined, lines[1:])])


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _ratio(value: float | None, other: float | None) -> str:
    return "" if not value or not other or min(value, other) < 0 else f"{value / other:.3g}"


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _kilo(count: float | None) -> float | None:
    return None if count is None else count / 1000


def _difference(held: Held | None, bare: Held | None) -> float | None:
    if not held or not bare or held.bytesPerClient is None or bare.bytesPerClient is None:
        return None
    return (held.bytesPerClient - bare.bytesPerClient) / 1000
