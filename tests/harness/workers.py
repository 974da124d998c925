"""
The tests of killed workers with more clients, and for longer.

C{python -m tests.harness.workers --clients=1000 --every=6 --minutes=10} prints what happened.
"""

from __future__ import annotations

import argparse
import sys

from tests.harness.atlength import runAtLength

__all__ = ["main"]


def main() -> int:
    """
    Run the tests.

    @return: the exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.harness.workers")
    parser.add_argument("--clients", type=int, default=1000, help="how many at any time")
    parser.add_argument("--every", type=float, default=6, help="seconds between two kills")
    parser.add_argument("--minutes", type=float, default=10, help="for how long")
    options = parser.parse_args()
    code, kills = runAtLength(
        "tests.interop.test_workerkills",
        "KAPROTO_KILLS",
        {
            "CLIENTS": options.clients,
            "EVERY": options.every,
            "SECONDS": options.minutes * 60,
        },
    )
    if kills:
        first, last = kills[0], kills[-1]
        print(f"{len(kills)} workers killed; {sum(each['lost'] for each in kills)} clients lost")
        print(f"another one served within {max(each['seconds'] for each in kills):.1f} s")
        print(f"the parent's files: {first['files']} and {last['files']} in the end")
        print(f"the parent's memory: {first['memory']} KiB and {last['memory']} KiB in the end")
    return code


if __name__ == "__main__":
    sys.exit(main())
