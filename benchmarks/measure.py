"""
Measures the cost of a server with a number of clients, and how fast it opens them.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.generator import Generator, Load
from benchmarks.processes import Measured, Others
from benchmarks.servers import Running, Server

__all__ = ["Held", "Opened", "hold", "loadOf", "middle", "openMany", "warmUp"]

WARM_UP = 20
"""
Connections opened and closed before the measurement, so that the clients' memory and time do not
include what the server loads and allocates only once.
"""


DISTURBED = 0.1
"""
The share of one processor that other processes may use before figures count as disturbed.
"""

OPENINGS = 3
"""
The number of times that the opening of clients is measured, for the median; fewer if it takes long.
"""

LONG_OPENING = 10.0
"""
A measurement that takes this many seconds is not repeated.
"""


@dataclass
class Held:
    """
    A server in steady state.

    @ivar server: its name.
    @ivar clients: the number of clients that it had to hold.
    @ivar held: the number of clients that it held at the end.
    @ivar lost: the number of clients that it dropped after they had opened.
    @ivar problem: why there are no figures, or why they are for fewer clients.
    @ivar microseconds: processor time per round trip, in microseconds; the median of the windows.
    @ivar windows: processor time per round trip in each window, in microseconds.
    @ivar rounds: C{microseconds} of each repetition; this one is the median.
    @ivar bytesPerClient: growth of the resident memory, per client.
    @ivar files: the number of open files of each of its processes, starting with the first process.
    @ivar processor: the share of one processor that it used.
    @ivar generatorProcessor: the share of one processor that the generator used.
    @ivar others: the share of one processor used outside the measurement.
    @ivar pingLate: how late pings were, in seconds: C{p50} and C{p99}, each the median over the
        windows, and C{min} and C{max} over all windows.
    @ivar pongLate: seconds from the time a ping was due to the time its pong was sent.
    """

    server: str
    clients: int
    held: int = 0
    lost: int = 0
    problem: str = ""
    microseconds: float | None = None
    windows: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)
    bytesPerClient: float | None = None
    files: list[int] = field(default_factory=list)
    processor: float | None = None
    generatorProcessor: float | None = None
    others: float | None = None
    pingLate: dict[str, float] = field(default_factory=dict)
    pongLate: dict[str, float] = field(default_factory=dict)

    @property
    def disturbed(self) -> bool:
        """
        Whether other processes used so much that the figures cannot be trusted.
        """
        return self.others is not None and self.others > DISTURBED

    def asJson(self) -> dict[str, Any]:
        """
        @return: the figures, for C{json.dumps}.
        """
        return {**asdict(self), "disturbed": self.disturbed}


@dataclass
class Opened:
    """
    The figures of a server while its clients connect.

    @ivar server: its name.
    @ivar perSecond: connections opened per second, with a limited number opening at once.
    @ivar microseconds: processor time for each connection opened, in microseconds.
    @ivar storm: the results for clients that all connect at once: C{clients}, C{opened},
        C{refused}, C{timedOut}, C{seconds}, C{firstError}.
    @ivar others: the share of one processor used outside the measurement.
    @ivar problem: why there are no figures.
    """

    server: str
    perSecond: float | None = None
    microseconds: float | None = None
    others: float | None = None
    storm: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def disturbed(self) -> bool:
        """
        Whether other processes used so much that the figures cannot be trusted.
        """
        return self.others is not None and self.others > DISTURBED

    def asJson(self) -> dict[str, Any]:
        """
        @return: the figures, for C{json.dumps}.
        """
        return {**asdict(self), "disturbed": self.disturbed}


def hold(
    server: Server,
    clients: int,
    interval: float,
    count: int,
    seconds: float,
    logs: Path,
    windows: int = 4,
) -> Held:
    """
    Hold clients, and measure a server in steady state.

    Clients are opened at a rate that spreads their pings evenly over the interval.

    @param server: the server.
    @param clients: the number of clients.
    @param interval: seconds between pings.
    @param count: unanswered pings after which a client is dead.
    @param seconds: how long to measure.
    @param logs: the folder for the server's output.
    @param windows: the number of windows that the time is divided into.
    @return: the figures.
    """
    held = Held(server.name, clients)
    with server.running(interval, count, logs) as running:
        process = running.process
        warmUp(server, running, interval)
        before = process.memory()
        load = loadOf(server, running, clients, interval, count, rate=clients / interval)
        with Generator(load) as generator:
            opened = generator.opened()
            if opened["opened"] < clients:
                held.problem = _shortfall(opened)
            if not opened["opened"]:
                return held
            time.sleep(2 * interval)
            reports = [_window(process, generator, seconds / windows, held) for _ in range(windows)]
            held.held = reports[-1]["held"]
            held.lost = reports[-1]["lost"]
            if held.lost and not held.problem:
                held.problem = f"lost {held.lost} clients"
            held.files = process.files()
            held.bytesPerClient = (process.memory() - before) / max(1, held.held)
    if held.windows:
        held.microseconds = median(held.windows)
    held.generatorProcessor = median(report["generatorCpu"] for report in reports)
    held.others = median(report["others"] for report in reports)
    held.pingLate = _together(reports, "ping")
    held.pongLate = _together(reports, "pong")
    return held


def middle(rounds: list[Held]) -> Held:
    """
    Choose one of several measurements of a server with the same number of clients.

    @param rounds: the measurements, at least one.
    @return: the measurement with the median cost; the last one if it has a problem.
    """
    if rounds[-1].problem:
        return rounds[-1]
    inOrder = sorted(rounds, key=lambda held: held.microseconds or 0.0)
    chosen = inOrder[(len(inOrder) - 1) // 2]
    chosen.rounds = [held.microseconds for held in rounds if held.microseconds is not None]
    return chosen


def openMany(
    server: Server, clients: int, storm: int, interval: float, count: int, logs: Path
) -> Opened:
    """
    Open clients as fast as a server can, first with 256 opening at once, then all at once.

    @param server: the server.
    @param clients: the number of clients of the first measurement.
    @param storm: the number of clients that connect at once.
    @param interval: seconds between pings.
    @param count: unanswered pings after which a client is dead.
    @param logs: the folder for the server's output.
    @return: the figures.
    """
    result = Opened(server.name)
    rates, costs, others = [], [], []
    for _ in range(OPENINGS):
        with server.running(interval, count, logs) as running:
            process = running.process
            warmUp(server, running, interval)
            before, other = process.cpu(), Others()
            with Generator(loadOf(server, running, clients, interval, count)) as generator:
                opened = generator.opened()
                used = process.cpu() - before
                others.append(other.processor(used + generator.cpu()))
        if opened["opened"] < clients:
            result.problem = _shortfall(opened)
        if not opened["opened"]:
            break
        rates.append(opened["opensPerSecond"])
        costs.append(used / opened["opened"] * 1e6)
        if opened["seconds"] > LONG_OPENING:
            break
    if rates:
        result.perSecond, result.microseconds = median(rates), median(costs)
        result.others = median(others)
    with server.running(interval, count, logs) as running:
        warmUp(server, running, interval)
        load = loadOf(server, running, storm, interval, count, inflight=storm)
        with Generator(load) as generator:
            result.storm = generator.opened()
    return result


def loadOf(
    server: Server,
    running: Running,
    clients: int,
    interval: float,
    count: int,
    *,
    rate: float = 0,
    inflight: int = 256,
) -> Load:
    """
    Describe the load on a running server.

    @return: the load, for L{Generator}.
    """
    return Load(
        running.port,
        clients,
        interval,
        count,
        server.protocol,
        rate,
        inflight,
        tls=server.tls,
        credentials=running.credentials,
        spread=server.spread,
    )


def warmUp(server: Server, running: Running, interval: float) -> None:
    """
    Open and close some clients, see L{WARM_UP}.

    @raise RuntimeError: if the server opens none.
    """
    with Generator(loadOf(server, running, WARM_UP, interval, 5)) as generator:
        opened = generator.opened()
        if not opened["opened"]:
            raise RuntimeError(f"opens no client: {opened['firstError']}{running.process.tail()}")
    time.sleep(0.5)


def _window(process: Measured, generator: Generator, seconds: float, held: Held) -> dict[str, Any]:
    generator.mark()
    cpu, begun, others = process.cpu(), time.monotonic(), Others()
    time.sleep(seconds)
    used, elapsed = process.cpu() - cpu, time.monotonic() - begun
    report = generator.report()
    report["others"] = others.processor(used + report["generatorCpu"] * elapsed)
    held.processor = used / elapsed
    if report["roundTrips"]:
        held.windows.append(used / report["roundTrips"] * 1e6)
    return report


def _together(reports: list[dict[str, Any]], name: str) -> dict[str, float]:
    parts = [report[name] for report in reports if name in report]
    if not parts:
        return {}
    return {
        "min": min(part["min"] for part in parts),
        "p50": median(part["p50"] for part in parts),
        "p99": median(part["p99"] for part in parts),
        "max": max(part["max"] for part in parts),
    }


def _shortfall(opened: dict[str, Any]) -> str:
    parts = [
        f"{opened[key]:,} {text}"
        for key, text in (
            ("refused", "refused"),
            ("timedOut", "timed out"),
            ("notTried", "not tried in time"),
        )
        if opened[key]
    ]
    return (
        f"opened {opened['opened']:,} of {opened['clients']:,} in {opened['seconds']:.0f} s: "
        f"{', '.join(parts)} ({opened['firstError']})"
    )
