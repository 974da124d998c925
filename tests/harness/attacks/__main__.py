"""
C{python -m tests.harness.attacks [--seconds N] [NAME...]}: runs every attack, or the named ones, at
full size on kaserver and on libvirtd, and prints a table of the results.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial

from tests.harness.attacks.catalogue import ATTACKS, KEEPALIVE, SETTINGS, Attack, Make
from tests.harness.attacks.honest import quantile
from tests.harness.attacks.kills import Kill, killOnce
from tests.harness.attacks.scene import Result, play
from tests.harness.attacks.targets import KaTarget, LibvirtTarget

_HEAD = (
    "attack",
    "server",
    "times",
    "what it did",
    "after",
    "memory",
    "CPU",
    "latency p50 / p99 / max",
    "newcomers p50 / max",
    "honest",
)
_KILLS = {"kill": "TCP", "kill-unix": "UNIX socket", "kill-gateway": "gateway"}
_CLIENTS = 50
_REASON = re.compile(
    r"#warn\] (?:\w+ )?(?:tcp \S+?:\d+|unix [^:]*)(?: is dead| could not open)?: (.*)"
)
_LONGEST = 90


def _reason(log: str) -> str:
    reasons = Counter(
        re.sub(r": nothing heard for.*", "", found[1]) for found in _REASON.finditer(log)
    )
    return reasons.most_common(1)[0][0][:_LONGEST] if reasons else ""


def _milliseconds(*values: float) -> str:
    return " / ".join(f"{value * 1000:.1f}" for value in values) + " ms"


def row(attack: Attack, name: str, result: Result) -> tuple[str, ...]:
    """
    @return: the table's row for an attack on one server.
    """
    (outcome,), meter, honest = result.outcomes, result.meter, result.honest
    ends = ", ".join(f"{count} {end}" for end, count in outcome.ends.most_common(4))
    if len(outcome.ends) > 4:
        ends = "came through all states"
    if outcome.note:
        ends += f" ({outcome.note})"
    reason = _reason(result.log)
    alive = "alive" if not honest.dropped else f"dropped {honest.dropped} times"
    if honest.keptOut:
        alive += f", {honest.keptOut} of {honest.keptOut + len(honest.newcomers)} kept out"
    if result.virsh is not None:
        alive += ", virsh stayed" if result.virsh else ", virsh lost"
    if result.leftFiles and name != "libvirtd":
        alive += f"; {result.leftFiles} files left open"
    came = honest.newcomers
    return (
        attack.what,
        name,
        f"{outcome.times:,}",
        ends + (f": {reason}" if reason else ""),
        f"{statistics.median(outcome.seconds):.2f} s" if outcome.seconds else "-",
        f"+{meter.growth / 1024:.1f} MiB",
        f"{meter.share:.0%}",
        _milliseconds(*(quantile(honest.latencies, part) for part in (0.5, 0.99, 1))),
        _milliseconds(quantile(came, 0.5), max(came)) if came else "-",
        alive,
    )


def _one(attack: Attack, make: Make) -> tuple[str, ...]:
    with ExitStack() as stack:
        target = make(stack)
        address = target.anonymous if attack.early else target.address
        result = play(
            target,
            [partial(attack.run, address)],
            attack.seconds,
            virsh=isinstance(target.address, int) and not attack.alone,
            newcomers=not attack.alone,
        )
        name = target.name
        try:
            target.check()
        except AssertionError as problem:
            if name == "libvirtd":
                name = "libvirtd, which ended"
            else:
                raise SystemExit(str(problem)) from problem
        return row(attack, name, result)


def _kill(kind: str, times: int) -> tuple[str, ...]:
    chance = random.Random(6)
    with ExitStack() as stack:
        upstream = None
        if kind == "kill-gateway":
            upstream = stack.enter_context(LibvirtTarget(SETTINGS + "max_anonymous_clients = 0\n"))
        target = KaTarget(*KEEPALIVE, upstream=upstream, unix=kind == "kill-unix")
        stack.enter_context(target)
        kills: list[Kill] = [killOnce(target, _CLIENTS, chance, upstream) for _ in range(times)]
        target.check()
    clients = sum(kill.clients for kill in kills)
    told = sum(kill.told for kill in kills)
    said = f"{told:,} of {clients:,} clients saw the end"
    if upstream is not None:
        said += f", libvirtd rid of all after {max(kill.released for kill in kills):.3f} s"
    said += f"; served {max(kill.served for kill in kills):.3f} s after it listened again"
    return (
        f"SIGKILL, {_CLIENTS} clients in all states, {_KILLS[kind]}",
        target.name,
        str(times),
        said,
        f"{max(kill.seen for kill in kills):.3f} s",
        *["-"] * 5,
    )


def main(arguments: list[str]) -> None:
    """
    Run the attacks that the command line names.
    """
    names = [attack.name for attack in ATTACKS] + [*_KILLS]
    parser = argparse.ArgumentParser(prog="python -m tests.harness.attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=900, help="begin none after this")
    parser.add_argument("--kills", type=int, default=20, help="how often to kill each")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    options = parser.parse_args(arguments)
    chosen = options.names or names
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(names)}")
    deadline = time.monotonic() + options.seconds
    _write(_HEAD)
    _write(["---"] * len(_HEAD))
    for name in chosen:
        if time.monotonic() > deadline:
            sys.stderr.write(f"no time left for {name}\n")
        elif name in _KILLS:
            _write(_kill(name, options.kills))
        else:
            (attack,) = [attack for attack in ATTACKS if attack.name == name]
            for make in (attack.ours, attack.theirs):
                if make is not None:
                    _write(_one(attack, make))


def _write(cells: tuple[str, ...] | list[str]) -> None:
    sys.stdout.write("| " + " | ".join(cells) + " |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
