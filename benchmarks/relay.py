"""
C{python -m benchmarks.relay}: compares the gateway and the tunnel with relays that parse nothing.

The same calls and streams go to an upstream in C: directly, through C{kaserver --upstream}, through
C{twisted.protocols.portforward}, through haproxy in TCP mode, and through two port forwarders, with
and without a tunnel between them.  With C{--tls} they go over TLS, through C{kaserver --upstream},
haproxy and stunnel.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.build import BuildError
from benchmarks.generator import Generator
from benchmarks.measure import DISTURBED
from benchmarks.processes import Others, raiseFileLimit
from benchmarks.relays import COMPARED, RELAYS, TLS_RELAYS, Relay
from benchmarks.report import VERDICTS, machine, table

Work = tuple[str, int, int]
"""
What is done, over how many connections, and how many calls each has outstanding.
"""

LOADS: dict[str, Work] = {
    "1 connection, 1 call at a time": ("calls", 1, 1),
    "50 connections, 1 call at a time": ("calls", 50, 1),
    "50 connections, 16 calls at a time": ("calls", 50, 16),
    "download": ("download", 1, 1),
    "upload": ("upload", 1, 1),
}
"""
The usual loads, by name.
"""


def loadsOf(connections: int | None) -> dict[str, Work]:
    """
    @param connections: the number from the command line, C{None} without one.
    @return: the loads to measure.
    """
    if connections is None:
        return LOADS
    return {
        f"{connections} connections, {depth} call{'s' * (depth > 1)} at a time": (
            "calls",
            connections,
            depth,
        )
        for depth in (1, 16)
    }


TARGETS = [
    *(("kaserver", "portforward", load, "cost", 1.0) for load in LOADS),
    ("kaserver", "haproxy", "1 connection, 1 call at a time", "cost", 1.7),
    ("kaserver", "haproxy", "1 connection, 1 call at a time", "p50", 1.4),
    ("kaserver", "haproxy", "50 connections, 1 call at a time", "cost", 1.5),
    ("kaserver", "haproxy", "50 connections, 16 calls at a time", "cost", 1.1),
    *(("kaserver", "haproxy", load, "rate", 1.15) for load in ("download", "upload")),
    *(("kaserver", "haproxy", load, "cost", 1.0) for load in ("download", "upload")),
    *(("tunnel", "portforward-twice", load, "cost", 1.5) for load in list(LOADS)[:3]),
    *(("tunnel", "portforward-twice", load, "rate", 0.8) for load in ("download", "upload")),
    *(("kaserver-tls", "haproxy-tls", load, "cost", 2.0) for load in list(LOADS)[:3]),
    *(("kaserver-tls", "haproxy-tls", load, "cost", 1.3) for load in ("download", "upload")),
]
"""
The project's targets: two relays, a load, a figure, and the limit for the first relay's figure
divided by the second's.  The limit is a maximum; for a rate, a minimum.
"""

FIGURES = {"cost": "processor time", "p50": "median latency", "rate": "rate"}


@dataclass
class Found:
    """
    The figures of one relay under one load.

    @ivar relay: its name.
    @ivar load: the load's name.
    @ivar rate: calls, or MB, per second.
    @ivar cost: the relay's processor time per call, or per MB, in microseconds.
    @ivar p50: seconds from a call to its reply, the median.
    @ivar p99: seconds from a call to its reply, the 99th percentile.
    @ivar generatorProcessor: the share of one processor that the generator used.
    @ivar others: the share of one processor used outside the measurement.
    """

    relay: str
    load: str
    rate: float
    cost: float
    p50: float | None
    p99: float | None
    generatorProcessor: float
    others: float


def measure(relay: Relay, load: str, doing: Work, seconds: float, logs: Path) -> Found:
    """
    Measure one relay under one load.

    @param relay: the relay.
    @param load: the name of the load.
    @param doing: the load.
    @param seconds: the duration.
    @param logs: the folder for the processes' output.
    @return: the figures.
    """
    work, connections, depth = doing
    with (
        relay.running(logs) as (processes, calls),
        Generator(replace(calls, work=work, connections=connections, depth=depth)) as generator,
    ):
        hops = processes[1:] or processes
        generator.opened()
        time.sleep(0.5)
        generator.mark()
        cpu, others = sum(one.cpu() for one in hops), Others()
        measured = [generator.cpu, *(one.cpu for one in processes)]
        before = sum(one() for one in measured)
        time.sleep(seconds)
        used = sum(one.cpu() for one in hops) - cpu
        other = others.processor(sum(one() for one in measured) - before)
        report = generator.report()
    amount = report["calls"] if work == "calls" else report["bytes"] / 1e6
    if not amount:
        raise RuntimeError(f"nothing came through{processes[-1].tail()}")
    return Found(
        relay.name,
        load,
        amount / report["seconds"],
        used / amount * 1e6,
        report.get("p50"),
        report.get("p99"),
        report["generatorCpu"],
        other,
    )


def main(arguments: list[str] | None = None) -> int:
    """
    Run the benchmark.

    @param arguments: the command line; by default this process's.
    @return: the exit status, 1 if a target was missed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="seconds for each measurement (default 2)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, whose medians are reported (default 3)"
    )
    parser.add_argument(
        "--relays",
        type=lambda text: text.split(","),
        help=f"which relays, of: {', '.join(RELAYS)}; with --tls of: {', '.join(TLS_RELAYS)}",
    )
    parser.add_argument(
        "--tls", action="store_true", help="relays whose clients speak TLS, into relay-tls.md"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmark-results"),
        help="the folder for the results (default benchmark-results)",
    )
    parser.add_argument(
        "--connections",
        type=int,
        help="only calls, over this many connections, 1 and 16 at a time",
    )
    parser.add_argument("--quick", action="store_true", help="one round of half a second each")
    options = parser.parse_args(arguments)
    known = TLS_RELAYS if options.tls else RELAYS
    options.relays = options.relays or list(known)
    unknown = [name for name in options.relays if name not in known]
    if unknown:
        parser.error(f"no relay {', '.join(unknown)}; there are {', '.join(known)}")
    options.known = known
    options.loads = loadsOf(options.connections)
    name = "relay-tls" if options.tls else "relay"
    if options.quick:
        options.seconds, options.rounds = 0.5, 1
    options.out.mkdir(parents=True, exist_ok=True)
    raiseFileLimit(4096)
    found, skipped = _measureAll(options)
    targets = _targets(found)
    report = _report(options.loads, found, skipped, targets)
    (options.out / f"{name}.md").write_text(report)
    (options.out / f"{name}.json").write_text(
        json.dumps(
            {
                "machine": machine(),
                "skipped": skipped,
                "found": [vars(one) for one in found],
                "targets": [{"target": text, "met": met} for text, met in targets],
            },
            indent=1,
        )
        + "\n"
    )
    print(report)
    return 1 if any(met is False for _, met in targets) else 0


def _measureAll(options: argparse.Namespace) -> tuple[list[Found], dict[str, str]]:
    """
    Measure all relays in each round, so that other activity on the machine affects all of them
    alike.
    """
    skipped: dict[str, str] = {}
    rounds: dict[tuple[str, str], list[Found]] = {}
    for name in options.relays:
        reason = options.known[name].missing()
        if reason is not None:
            skipped[name] = reason
    for number in range(options.rounds):
        for load, doing in options.loads.items():
            for name in options.relays:
                if name in skipped:
                    continue
                print(f"round {number + 1}: {load}: {name}", file=sys.stderr, flush=True)
                try:
                    one = measure(options.known[name], load, doing, options.seconds, options.out)
                except BuildError:
                    raise
                except RuntimeError as error:
                    skipped[name] = f"{load}: {error}"
                    print(f"{name}: {skipped[name]}", file=sys.stderr, flush=True)
                else:
                    rounds.setdefault((load, name), []).append(one)
    return [_median(several) for several in rounds.values()], skipped


def _median(several: list[Found]) -> Found:
    def middle(name: str) -> float | None:
        values = [getattr(one, name) for one in several]
        return None if None in values else median(values)

    return Found(
        several[0].relay,
        several[0].load,
        median(one.rate for one in several),
        median(one.cost for one in several),
        middle("p50"),
        middle("p99"),
        median(one.generatorProcessor for one in several),
        median(one.others for one in several),
    )


def _report(
    loads: dict[str, Work],
    found: list[Found],
    skipped: dict[str, str],
    targets: list[tuple[str, bool | None]],
) -> str:
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    parts = ["# Relays side by side", f"{where}. All figures are of one run; compare ratios."]
    for load, (work, _connections, _depth) in loads.items():
        ones = [one for one in found if one.load == load]
        if not ones:
            continue
        what = "calls" if work == "calls" else "MB"
        by = {one.relay: one for one in ones}
        rows = [
            [
                one.relay,
                f"{one.rate:,.0f}",
                f"{one.cost:.1f}",
                *_compared(one, by.get(COMPARED.get(one.relay, "portforward"))),
                "" if one.p50 is None else f"{one.p50 * 1e6:.0f}",
                "" if one.p99 is None else f"{one.p99 * 1e6:.0f}",
                f"{100 * one.generatorProcessor:.0f}",
                f"{100 * one.others:.0f}",
                "disturbed" if one.others > DISTURBED else "",
            ]
            for one in ones
        ]
        heading = [
            "relay",
            f"{what} per second",
            f"CPU us per {what.rstrip('s')}",
            "rate over compared",
            "CPU over compared",
            "p50 us",
            "p99 us",
            "generator CPU %",
            "others CPU %",
            "remarks",
        ]
        parts += [f"## {load.capitalize()}", table(heading, rows)]
    parts.append(
        "The processor time of `direct` is the upstream's own. `tunnel` is compared with "
        "`portforward-twice`, what speaks TLS with `haproxy-tls`, the rest with `portforward`."
    )
    if targets:
        lines = [f"- {VERDICTS[met]}: {text}" for text, met in targets]
        parts += ["## Targets", "\n".join(lines)]
    if skipped:
        lines = [f"- {name}: {reason}" for name, reason in skipped.items()]
        parts += ["## Left out", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _compared(one: Found, other: Found | None) -> list[str]:
    if other is None:
        return ["", ""]
    return [f"{one.rate / other.rate:.2f}", f"{one.cost / other.cost:.2f}"]


def _targets(found: list[Found]) -> list[tuple[str, bool | None]]:
    by = {(one.relay, one.load): one for one in found}
    targets: list[tuple[str, bool | None]] = []
    for name, other, load, figure, limit in TARGETS:
        ours, theirs = by.get((name, load)), by.get((other, load))
        if ours is None or theirs is None:
            continue
        ratio = getattr(ours, figure) / getattr(theirs, figure)
        least = figure == "rate"
        met = ratio >= limit if least else ratio <= limit
        disturbed = figure != "cost" and max(ours.others, theirs.others) > DISTURBED
        text = (
            f"{name}: {load}: {FIGURES[figure]} at {'least' if least else 'most'} {limit:g} of "
            f"{other}: {ratio:.2f}"
        )
        targets.append((text, None if disturbed else met))
    return targets


if __name__ == "__main__":
    sys.exit(main())
