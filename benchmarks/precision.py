"""
C{python -m benchmarks.precision}: measures how punctual servers are, and for how long their loops
stall.

There are five phases: many clients in steady state; all of them fall silent at once, and die; as
many connect at once; all of these leave while as many others connect; the server is stopped.  A
probe calls all the time, and waits while the loop is busy.  For servers in Twisted, the reactor's
turns are measured too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.generator import Generator, Load
from benchmarks.measure import DISTURBED
from benchmarks.probe import Probe
from benchmarks.processes import Others, raiseFileLimit
from benchmarks.report import machine, table
from benchmarks.servers import SERVERS, Server
from benchmarks.turns import longestTurn

USUAL = ["floor", "kaserver", "kaserver-intervals", "libvirtd"]


@dataclass
class Punctuality:
    """
    The results of one server.

    @ivar server: its name.
    @ivar ping: how late pings were, in seconds: C{p50}, C{p99}, C{max}.
    @ivar died: the number of silent clients that it closed.
    @ivar death: how late it closed them, in seconds.
    @ivar reopened: the numbers of clients that opened when all connected at once, the first and the
        second time.
    @ivar others: the share of one processor used outside the measurement.
    @ivar stalls: how long the probe waited in each phase, in seconds: C{p50}, C{p99}, C{max}.
    @ivar turns: the longest turn of the reactor in each phase, in seconds, if it is known.
    """

    server: str
    ping: dict[str, float] = field(default_factory=dict)
    died: int = 0
    death: dict[str, float] = field(default_factory=dict)
    reopened: list[int] = field(default_factory=list)
    others: float = 0.0
    stalls: dict[str, dict[str, float]] = field(default_factory=dict)
    turns: dict[str, float | None] = field(default_factory=dict)


def observe(server: Server, options: argparse.Namespace) -> Punctuality:
    """
    Take one server through all phases.

    @param server: the server.
    @param options: the command line.
    @return: its results.
    """
    found = Punctuality(server.name)
    clients, interval, count = options.clients, options.interval, options.count
    turns = options.out / f"{server.name}.turns"
    turns.unlink(missing_ok=True)
    calm = Load(0, clients, interval, count, rate=clients / interval, spread=server.spread)
    crowd = Load(0, clients, interval, count, inflight=clients, spread=server.spread)

    with (
        server.running(interval, count, options.out, turns) as running,
        Probe(running.port) as probe,
        ExitStack() as stack,
    ):
        calm, crowd = (replace(load, port=running.port) for load in (calm, crowd))

        @contextmanager
        def phase(name: str) -> Iterator[None]:
            probe.take()
            begun = time.monotonic()
            yield
            found.stalls[name] = _summary(probe.take())
            found.turns[name] = longestTurn(turns, begun, time.monotonic())

        with Generator(calm) as generator:
            opened = generator.opened()
            if opened["opened"] < clients:
                raise RuntimeError(f"opened {opened['opened']:,} of {clients:,}")
            time.sleep(2 * interval)
            with phase("steady"):
                generator.mark()
                measured = (running.process.cpu, generator.cpu, time.process_time)
                before, others = sum(one() for one in measured), Others()
                time.sleep(options.seconds)
                found.others = others.processor(sum(one() for one in measured) - before)
                found.ping = generator.report().get("ping", {})
            with phase("dying"):
                generator.mute()
                time.sleep(interval * 1.25 * (count + 1) + 3)
                report = generator.report()
                found.died = report["lost"]
                found.death = report.get("death", {})
        with phase("arriving"):
            leaving = Generator(crowd)
            stack.callback(leaving.end)
            found.reopened.append(leaving.opened()["opened"])
            time.sleep(interval)
        with phase("returning"):
            leaving.end()
            generator = stack.enter_context(Generator(crowd))
            found.reopened.append(generator.opened()["opened"])
            time.sleep(interval)
        begun = time.monotonic()
        running.process.stop()
        found.turns["stopping"] = longestTurn(turns, begun, time.monotonic())
    return found


def main(arguments: list[str] | None = None) -> int:
    """
    Run the benchmark.

    @param arguments: the command line; by default this process's.
    @return: the exit status, 1 if nothing could be measured.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--clients", type=int, default=10000, help="how many (default 10000)")
    parser.add_argument(
        "--interval", type=float, default=2.0, help="seconds between pings (default 2)"
    )
    parser.add_argument(
        "--count", type=int, default=2, help="pings unanswered until death (default 2)"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="seconds of steady state (default 10)"
    )
    parser.add_argument(
        "--servers",
        type=lambda text: text.split(","),
        default=USUAL,
        help="which servers, of those that speak libvirt's protocol and ping: "
        + ", ".join(name for name, server in SERVERS.items() if _suits(server)),
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmark-results"),
        help="the folder for the results (default benchmark-results)",
    )
    options = parser.parse_args(arguments)
    wrong = [name for name in options.servers if name not in SERVERS or not _suits(SERVERS[name])]
    if wrong:
        parser.error(f"no such server, or it cannot be probed: {', '.join(wrong)}")
    options.out.mkdir(parents=True, exist_ok=True)
    raiseFileLimit(options.clients + 500)
    found, skipped = [], {}
    for name in options.servers:
        reason = SERVERS[name].missing()
        if reason is None:
            print(f"{name}: {options.clients:,} clients", file=sys.stderr, flush=True)
            try:
                found.append(observe(SERVERS[name], options))
            except (RuntimeError, OSError) as error:
                reason = str(error)
        if reason is not None:
            skipped[name] = reason
            print(f"{name}: left out: {reason}", file=sys.stderr, flush=True)
    text = _report(found, skipped, options)
    (options.out / "precision.md").write_text(text)
    figures = {"machine": machine(), "skipped": skipped, "found": [vars(one) for one in found]}
    (options.out / "precision.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(text)
    return 0 if found else 1


def _suits(server: Server) -> bool:
    return server.pings and server.protocol == "libvirt" and not server.tls


def _summary(delays: list[float]) -> dict[str, float]:
    if not delays:
        return {}
    last = len(delays) - 1
    return {"p50": delays[last // 2], "p99": delays[last * 99 // 100], "max": delays[-1]}


def _report(found: list[Punctuality], skipped: dict[str, str], options: argparse.Namespace) -> str:
    def milli(figures: dict[str, float], *keys: str) -> list[str]:
        return [f"{1000 * figures[key]:.1f}" if key in figures else "" for key in keys]

    late = [
        [
            one.server,
            *milli(one.ping, "p50", "p99", "max"),
            f"{one.died:,}",
            *milli(one.death, "p50", "p99", "max"),
            f"{100 * one.others:.0f}",
            "disturbed" if one.others > DISTURBED else "",
        ]
        for one in found
    ]
    lateHeading = [
        "server",
        "ping p50",
        "p99",
        "max",
        "died",
        "death p50",
        "p99",
        "max",
        "others CPU %",
        "remarks",
    ]
    stalls = [
        [
            one.server,
            *milli(one.stalls.get("steady", {}), "p50", "p99", "max"),
            *milli(one.stalls.get("dying", {}), "p99", "max"),
            *milli(one.stalls.get("arriving", {}), "p99", "max"),
            *milli(one.stalls.get("returning", {}), "p99", "max"),
            " and ".join(f"{number:,}" for number in one.reopened),
        ]
        for one in found
    ]
    stallHeading = [
        "server",
        "steady p50",
        "p99",
        "max",
        "dying p99",
        "max",
        "arriving p99",
        "max",
        "returning p99",
        "max",
        "arrived",
    ]
    phases = ["steady", "dying", "arriving", "returning", "stopping"]
    turns = [
        [one.server, *(f"{1000 * (one.turns[phase] or 0):.1f}" for phase in phases)]
        for one in found
        if one.turns["steady"] is not None
    ]
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    parts = [
        f"# Punctuality with {options.clients:,} clients",
        f"{where}. Pings every {options.interval:g} s, death after {options.count} unanswered. "
        "All times in milliseconds.",
        "## How late",
        table(lateHeading, late),
        "## How long a call waits",
        table(stallHeading, stalls),
        "## The reactor's longest turn",
        table(["server", *phases], turns),
    ]
    if skipped:
        parts.append("\n".join(f"- {name} left out: {why}" for name, why in skipped.items()))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
