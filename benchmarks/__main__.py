"""
C{python -m benchmarks}: measure every server, and write the results.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.measure import Held, hold, middle, openMany
from benchmarks.plot import plot
from benchmarks.processes import raiseFileLimit
from benchmarks.report import Run, machine
from benchmarks.servers import SERVERS, Server

SPARE_FILES = 500


def main(arguments: list[str] | None = None) -> int:
    """
    Run the benchmark.

    @param arguments: the command line; by default this process's.
    @return: the exit status: 1 if nothing could be measured.
    """
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    allowed = raiseFileLimit(max(*options.clients, options.storm) + SPARE_FILES)
    given = {**vars(options), "out": str(options.out)}
    run = Run(given, machine())
    counts = sorted({min(clients, allowed - SPARE_FILES) for clients in options.clients})
    if counts[-1] < max(options.clients):
        _say(f"only {allowed:,} files may be open here: going up to {counts[-1]:,} clients")
    servers = _chosen(options.servers, run)
    for clients in counts:
        _holdAll(servers, clients, options, run)
        _write(run, options.out)
    if not options.no_opening:
        _openAll(servers, options, run)
        _write(run, options.out)
    print((options.out / "report.md").read_text())
    _say(f"written to {options.out}: report.md, report.json, cost.svg, and what servers printed")
    return 0 if run.held else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Compare keepalive servers, in one run."
    )
    parser.add_argument(
        "--clients",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[500, 2000, 10000],
        help="numbers of clients to hold, as in 500,2000,10000 (the default)",
    )
    parser.add_argument(
        "--interval", type=float, default=2.0, help="seconds between pings (default 2)"
    )
    parser.add_argument(
        "--count", type=int, default=5, help="pings unanswered until death (default 5)"
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="seconds to measure each for (default 20)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        help="how often to measure all servers, one after the other; each server's median counts, "
        "of two the lower (default 1)",
    )
    parser.add_argument(
        "--servers",
        type=lambda text: text.split(","),
        default=[name for name, server in SERVERS.items() if server.usual],
        help=f"which servers, of: {', '.join(SERVERS)}",
    )
    parser.add_argument(
        "--storm", type=int, default=5000, help="clients that connect at once (default 5000)"
    )
    parser.add_argument("--no-opening", action="store_true", help="only measure steady state")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmark-results"),
        help="the folder for the results (default benchmark-results)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="200 clients for 4 seconds: does everything work?"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.servers if name not in SERVERS]
    if unknown:
        parser.error(f"no server {', '.join(unknown)}; there are {', '.join(SERVERS)}")
    if options.quick:
        options.clients, options.seconds, options.storm = [200], 4.0, 200
    return options


def _chosen(names: list[str], run: Run) -> list[Server]:
    chosen = []
    for name in names:
        reason = SERVERS[name].missing()
        if reason is None:
            chosen.append(SERVERS[name])
        else:
            run.skipped[name] = reason
            _say(f"{name}: left out: {reason}")
    return chosen


def _holdAll(servers: list[Server], clients: int, options: argparse.Namespace, run: Run) -> None:
    """
    Measure all servers with the same number of clients, close together in time, because the speed
    of a machine drifts.
    """
    rounds: dict[str, list[Held]] = {}
    for _ in range(options.rounds):
        for server in servers:
            found = rounds.setdefault(server.name, [])
            if server.name in run.skipped:
                continue
            if found and (found[-1].problem or not server.pings):
                # Do not repeat a measurement that had a problem: it takes long.  Nor one without
                # pings: it has no cost to compare.
                continue
            _say(f"{server.name}: holding {clients:,} clients for {options.seconds:g} s")
            try:
                held = hold(
                    server, clients, options.interval, options.count, options.seconds, options.out
                )
            except RuntimeError as error:
                _skip(server, error, run)
                continue
            found.append(held)
            cost = held.microseconds
            said = "no round trips" if cost is None else f"{cost:.1f} us per round trip"
            _say(f"{server.name}: {said}{f'; {held.problem}' if held.problem else ''}")
    run.held += [middle(found) for found in rounds.values() if found]


def _openAll(servers: list[Server], options: argparse.Namespace, run: Run) -> None:
    for server in servers:
        if server.name in run.skipped:
            continue
        _say(f"{server.name}: opening {options.storm:,} clients, in turn and at once")
        numbers = (options.storm, options.storm, options.interval, options.count)
        try:
            run.opened.append(openMany(server, *numbers, options.out))
        except RuntimeError as error:
            _skip(server, error, run)


def _skip(server: Server, error: RuntimeError, run: Run) -> None:
    run.skipped[server.name] = str(error)
    _say(f"{server.name}: {error}")


def _write(run: Run, folder: Path) -> None:
    (folder / "report.json").write_text(json.dumps(run.asJson(), indent=1) + "\n")
    (folder / "report.md").write_text(run.asMarkdown())
    lines: dict[str, list[tuple[int, float]]] = {}
    for held in run.held:
        if held.microseconds is not None and not held.problem:
            lines.setdefault(held.server, []).append((held.clients, held.microseconds))
    if lines:
        drawing = plot("Server processor time per keepalive round trip", "microseconds", lines)
        (folder / "cost.svg").write_text(drawing)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
