"""
Attack for a while, and print the outcomes.

The command::

    python -m tests.harness.fuzz --frames 1000000 --seed 1 --seconds 170

sends at least that many mutated frames, unless the time is over first.  C{--what streams} attacks
codecs, tunnels and WebSockets instead of RPC connections.  Each attack has its own seed, made of
the run's seed and a number.  When one violates a rule, the run ends, and prints that seed and the
smallest attack with a violation, which C{--repeat} sends again.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable

from twisted.logger import globalLogBeginner

from tests.harness.fuzz.attack import Attacker, Case, Growth, Watcher, shrink
from tests.harness.fuzz.streamattack import StreamAttacker

_CENSUS_EVERY = 2000
_ATTACKERS: dict[str, Callable[[], Watcher]] = {"rpc": Attacker, "streams": StreamAttacker}


def _table(attacker: Watcher) -> str:
    lines = [f"{'target':<22}{'attacks':>9}{'deliveries':>12}{'frames':>10}{'mutated':>10}"]
    for name, tally in attacker.tallies.items():
        lines.append(
            f"{name:<22}{tally.attacks:>9}{tally.deliveries:>12}{tally.frames:>10}"
            f"{tally.mutated:>10}"
        )
    lines.append("")
    for name, tally in attacker.tallies.items():
        lines.append(f"{name}:")
        lines.extend(f"  {count:>9}  {what}" for what, count in tally.outcomes.most_common())
    return "\n".join(lines)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(make: Callable[[], Watcher], frames: int, seed: int, seconds: float) -> int:
    attacker = make()
    begun = time.monotonic()
    mutated = number = grown = 0
    memory = 0.0
    # Until logging begins, Twisted keeps every event, and the objects in it.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    with attacker.watching():
        while mutated < frames and time.monotonic() - begun < seconds:
            name = f"{seed}:{number}"
            try:
                attacker.attack(name)
                number += 1
                if number % _CENSUS_EVERY == 0:
                    grown = attacker.takeCensus()
                    memory = memory or _memory()
            except Growth as error:
                print(f"after attack {name}: {error}")
                return 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                print(f"attack {name}: {type(error).__name__}: {error}")
                case = attacker.drawn(name).case
                print(f"all of it: {str(case)[:2000]}")
                print(f"the least: {shrink(case, name, make)}")
                return 1
            mutated = sum(tally.mutated for tally in attacker.tallies.values())
            if number % (5 * _CENSUS_EVERY) == 0:
                print(f"{time.monotonic() - begun:6.0f} s  {mutated} mutated frames", flush=True)
    print(_table(attacker))
    print(
        f"\nseed {seed}: {number} attacks, {mutated} mutated frames in "
        f"{time.monotonic() - begun:.0f} s; {grown} objects more than after the first "
        f"{_CENSUS_EVERY} attacks, {_memory() - memory:.1f} MiB more memory; no violation"
    )
    return 0


def _repeat(make: Callable[[], Watcher], text: str) -> int:
    attacker = make()
    outcomes: Counter[str] = Counter()
    with attacker.watching():
        case = attacker.drawn(text).case if "|" not in text else Case.parse(text)
        print(case)
        attacker.carryOut(case, text, outcomes)
    print(dict(outcomes))
    return 0


def main() -> int:
    """
    @return: the exit status, 1 after a violation.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000, help="mutated frames to send")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600, help="when to stop all the same")
    parser.add_argument("--repeat", help="an attack, or the seed of one, to send again")
    parser.add_argument("--what", choices=list(_ATTACKERS), default="rpc", help="what to attack")
    arguments = parser.parse_args()
    make = _ATTACKERS[arguments.what]
    if arguments.repeat is not None:
        return _repeat(make, arguments.repeat)
    return _run(make, arguments.frames, arguments.seed, arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
