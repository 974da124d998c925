"""
C{python -m benchmarks.paired A B}: compares two servers that hold their clients at the same time.

Within a minute, the speed of a machine drifts by more than two versions of a server differ.  Two
servers measured one after the other run at different speeds; side by side, they share all changes
of speed.  Each window gives one ratio of their costs per round trip.

Both servers run on the first processor and both generators on the second, where there are two: a
server that shares a processor's caches with its own generator would have an advantage.  Loops of
the lowest priority keep these processors awake.  Without them, one server would pay for waking the
processor in each turn, and the other would find it awake.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

from benchmarks.generator import Generator
from benchmarks.measure import loadOf, warmUp
from benchmarks.processes import Measured, raiseFileLimit
from benchmarks.servers import SERVERS, Server

SPARE_FILES = 200


class Holding:
    """
    A server that holds clients.

    @ivar bytesPerClient: growth of the resident memory, per client.
    """

    def __init__(self, process: Measured, generator: Generator, bytesPerClient: float) -> None:
        self._process = process
        self._generator = generator
        self.bytesPerClient = bytesPerClient
        self._before = 0.0

    def mark(self) -> None:
        """
        Begin a window.
        """
        self._generator.mark()
        self._before = self._process.cpu()

    def cost(self) -> float:
        """
        End the window.

        @return: microseconds of processor time per round trip.
        @raise RuntimeError: if clients were lost, or there was no round trip.
        """
        used = self._process.cpu() - self._before
        report = self._generator.report()
        if report["lost"] or not report["roundTrips"]:
            raise RuntimeError(f"{report['lost']} clients lost, {report['roundTrips']} round trips")
        return float(used / report["roundTrips"] * 1e6)


@contextmanager
def holding(server: Server, options: argparse.Namespace) -> Iterator[Holding]:
    """
    Start a server, and hold its clients.
    """
    interval, count, clients = options.interval, options.count, options.clients
    with server.running(interval, count, options.out) as running:
        warmUp(server, running, interval)
        before = running.process.memory()
        load = loadOf(server, running, clients, interval, count, rate=clients / interval)
        with Generator(load) as generator:
            _place(running.process.pid, generator.pid)
            opened = generator.opened()
            if opened["opened"] < clients:
                raise RuntimeError(f"{server.name} opened {opened['opened']} of {clients} clients")
            time.sleep(2 * interval)
            gained = running.process.memory() - before
            yield Holding(running.process, generator, gained / clients)


def _place(server: int, generator: int) -> None:
    first, *others = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(server, {first})
        os.sched_setaffinity(generator, {others[0]})


@contextmanager
def _awake() -> Iterator[None]:
    processes = []
    for processor in sorted(os.sched_getaffinity(0))[:2]:
        each = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        processes.append(each)
        os.sched_setaffinity(each.pid, {processor})
        os.sched_setscheduler(each.pid, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        for each in processes:
            each.kill()
            each.wait()


def main() -> None:
    """
    Print the costs of both and their ratio.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired", description=__doc__)
    parser.add_argument("servers", nargs=2, choices=sorted(SERVERS), metavar="SERVER")
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--interval", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a window (default 4)")
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    raiseFileLimit(2 * options.clients + SPARE_FILES)
    servers = [SERVERS[name] for name in options.servers]
    for server in servers:
        reason = server.missing()
        if reason is not None:
            parser.error(f"{server.name}: {reason}")
    with _awake(), ExitStack() as stack:
        held = [stack.enter_context(holding(server, options)) for server in servers]
        costs = []
        for _ in range(options.windows):
            for each in held:
                each.mark()
            time.sleep(options.seconds)
            costs.append([each.cost() for each in held])
    for index, server in enumerate(servers):
        print(
            f"{server.name}: {median(pair[index] for pair in costs):.2f} us per round trip, "
            f"{held[index].bytesPerClient / 1000:.1f} kB per client"
        )
    ratios = [first / second for first, second in costs]
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    print(
        f"{options.servers[0]} over {options.servers[1]}, {options.clients:,} clients each: "
        f"{middle:.3f} (half of {len(ratios)} windows between {low:.3f} and {high:.3f})"
    )


if __name__ == "__main__":
    main()
