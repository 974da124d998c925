"""
C{python -m benchmarks.many}: measures a server with workers, and more clients than one process may
have open files.

Several generators open the clients, each from its own loopback address, because one address has
too few local ports.  For each number of clients it measures the processor time in steady state, how
late pings are, and how late clients are closed when all of them fall silent at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.generator import Generator, Load
from benchmarks.measure import DISTURBED, warmUp
from benchmarks.processes import Others, raiseFileLimit
from benchmarks.report import table
from benchmarks.servers import SERVERS, Server

__all__ = ["main", "observe"]

PER_GENERATOR: Final = 17_000
"""
The most clients of one generator.
"""

PER_SECOND: Final = 2000
"""
The most clients that open in a second.
"""

_HEADING: Final = (
    "clients",
    "workers",
    "files of each",
    "processors",
    "us per ping",
    "memory",
    "per client",
    "pings late, p50",
    "p99",
    "max",
    "lost",
    "died",
    "deaths late, p99",
    "max",
    "remarks",
)


def observe(server: Server, clients: int, options: argparse.Namespace) -> list[str]:
    """
    Measure a server with one number of clients.

    @return: the cells of a row of the table.
    @raise RuntimeError: if not all clients could be opened.
    """
    interval, count = options.interval, options.count
    generators = -(-clients // PER_GENERATOR)
    rate = min(clients / interval, PER_SECOND) / generators
    with server.running(interval, count, options.out) as running, ExitStack() as stack:
        process = running.process
        warmUp(server, running, interval)
        empty = process.memory()
        loads = []
        for number in range(generators):
            some = clients * (number + 1) // generators - clients * number // generators
            load = Load(running.port, some, interval, count, rate=rate, source=number)
            loads.append(stack.enter_context(Generator(load)))
        opened = [each.opened() for each in loads]
        if sum(each["opened"] for each in opened) < clients:
            raise RuntimeError(f"{clients:,} clients: {opened}{process.tail()}")
        time.sleep(2 * interval)
        for each in loads:
            each.mark()
        cpu, begun, others = process.cpu(), time.monotonic(), Others()
        time.sleep(options.seconds)
        used, elapsed = process.cpu() - cpu, time.monotonic() - begun
        reports = [each.report() for each in loads]
        generated = sum(each["generatorCpu"] for each in reports) * elapsed
        busy = others.processor(used + generated)
        memory, files = process.memory(), process.files()[1:]
        for each in loads:
            each.mute()
        time.sleep(interval * (count + 1) + options.patience)
        dead = [each.report() for each in loads]
    trips = sum(each["roundTrips"] for each in reports)
    return [
        f"{clients:,}",
        str(len(files)),
        f"{min(files):,} to {max(files):,}",
        f"{used / elapsed:.2f}",
        f"{used / trips * 1e6:.1f}",
        f"{memory / 1e6:.0f} MB",
        f"{(memory - empty) / clients:.0f} B",
        *_milliseconds(reports, "ping", "p50", "p99", "max"),
        str(sum(each["lost"] for each in reports)),
        f"{sum(each['lost'] for each in dead):,}",
        *_milliseconds(dead, "death", "p99", "max"),
        f"disturbed ({busy:.2f} processors)" if busy > DISTURBED else "",
    ]


def _milliseconds(reports: list[dict[str, Any]], what: str, *names: str) -> list[str]:
    """
    @return: the median of all generators' medians; of other figures the worst.
    """
    cells = []
    for name in names:
        found = [each[what][name] for each in reports if what in each]
        value = (median if name == "p50" else max)(found) if found else None
        cells.append("" if value is None else f"{value * 1000:.1f} ms")
    return cells


def main(arguments: list[str] | None = None) -> int:
    """
    Run the benchmark.

    @param arguments: the command line; by default this process's.
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument(
        "--clients",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[10_000, 100_000],
        help="numbers of clients (default 10000,100000)",
    )
    parser.add_argument("--server", default="kaserver-many", help="a server with workers")
    parser.add_argument(
        "--interval", type=float, default=5.0, help="seconds between pings (default 5)"
    )
    parser.add_argument(
        "--count", type=int, default=5, help="pings unanswered until death (default 5)"
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="seconds of steady state (default 20)"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=10.0,
        help="seconds by which the last of the silent may be closed late (default 10)",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    raiseFileLimit(PER_GENERATOR + 1000)
    server = SERVERS[options.server]
    rows = [observe(server, clients, options) for clients in options.clients]
    print(table(_HEADING, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
