"""
The tests of the registry with thousands of clients, and with repeated faults.

C{python -m tests.harness.registry --clients=1000 --stall=20 --minutes=10} prints the table of
C{docs/howto/fleet.rst}.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.harness.atlength import runAtLength

__all__ = ["main", "rows"]


def rows(outcomes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """
    @param outcomes: one L{tests.interop.fleet.Outcome} for each fault and round.
    @return: the lines of a table in reStructuredText, with one row for each fault.
    """
    faults: dict[str, list[Mapping[str, Any]]] = {}
    for each in outcomes:
        faults.setdefault(each["fault"], []).append(each)
    yield ".. list-table::\n   :header-rows: 1\n   :widths: 18 10 18 18 36\n"
    yield "   * - Redis\n     - lost\n     - slowest new client\n     - list right after"
    yield "     - first line of the log"
    for fault, found in faults.items():
        yield f"   * - {fault}\n     - {sum(each['lost'] for each in found)}"
        yield f"     - {max(each['slowest'] for each in found) * 1000:.0f} ms"
        yield f"     - {max(each['stale'] for each in found):.1f} s"
        yield f"     - {found[0]['log'][0].partition('... ')[2].partition('. No client')[0]}"


def main() -> int:
    """
    Run the tests.

    @return: the exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.harness.registry")
    parser.add_argument("--clients", type=int, default=1000, help="of each of three kaservers")
    parser.add_argument("--stall", type=float, default=20, help="seconds that Redis hangs")
    parser.add_argument("--minutes", type=float, default=0, help="to repeat all faults for")
    options = parser.parse_args()
    code, outcomes = runAtLength(
        "tests.interop.test_registry.RegistryTests",
        "KAPROTO_FLEET",
        {
            "CLIENTS": options.clients,
            "STALL": options.stall,
            "SECONDS": options.minutes * 60,
        },
    )
    if outcomes:
        print(f"{len(outcomes)} faults, {3 * options.clients} clients")
        print("\n".join(rows(outcomes)))
    return code


if __name__ == "__main__":
    sys.exit(main())
