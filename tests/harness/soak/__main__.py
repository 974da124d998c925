"""
The command line: C{python -m tests.harness.soak}.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import sys
import tempfile
from types import FrameType

from tests.harness.soak.mutants import MUTANTS
from tests.harness.soak.plan import Plan
from tests.harness.soak.soak import OutOfTime, Soak

__all__ = ["main"]

_MARGIN = 60


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.harness.soak", description=sys.modules["tests.harness.soak"].__doc__
    )
    parser.add_argument("--clients", type=int, default=5000, help="how many at any time")
    parser.add_argument("--minutes", type=float, default=20, help="for how long all are there")
    parser.add_argument("--interval", type=float, default=2, help="the server's, in seconds")
    parser.add_argument("--count", type=int, default=2, help="the server's count of pings")
    parser.add_argument(
        "--tolerance", type=float, default=0.3, help="seconds by which a death may be found late"
    )
    parser.add_argument(
        "--stall-every",
        type=float,
        default=0,
        help="seconds after which the server is stopped for longer than a client may be silent",
    )
    parser.add_argument(
        "--gateway",
        action="store_true",
        help="have a gateway in front of a libvirtd, and clients that are busy, slow, load much "
        "over TLS, make many calls at once, or die in the middle of that",
    )
    parser.add_argument("--report", type=float, default=60, help="seconds between reports")
    parser.add_argument(
        "--mutant", choices=sorted(MUTANTS), default="", help="give the server a defect"
    )
    return parser.parse_args(arguments)


def _outOfTime(_number: int, _frame: FrameType | None) -> None:
    raise OutOfTime("it hangs")


def _terminated(_number: int, _frame: FrameType | None) -> None:
    # Raise, so that the server is stopped as well.
    raise SystemExit(128 + signal.SIGTERM)


def main(arguments: list[str] | None = None) -> int:
    """
    Run the soak that the command line describes, and print its progress.

    @return: 0 if nothing was wrong, 1 if something was, 2 if it could not be completed.
    """
    options = _options(arguments)
    plan = Plan(
        clients=options.clients,
        seconds=60 * options.minutes,
        interval=options.interval,
        count=options.count,
        tolerance=options.tolerance,
        stallEvery=options.stall_every,
        behindGateway=options.gateway,
        mutant=options.mutant,
        reportEvery=options.report,
    )
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = tempfile.mkdtemp(prefix="kaproto-soak-")
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGALRM, _outOfTime)
    signal.alarm(int(plan.bound) + _MARGIN)
    print(f"{plan}\nat most {plan.bound:.0f} s; the server's log: {folder}/kaserver.log")
    try:
        result = Soak(plan, folder, lambda line: print(line, flush=True)).run()
    except (OutOfTime, RuntimeError) as error:
        print(f"FAILED: {error}")
        return 2
    finally:
        signal.alarm(0)
    if result.problems:
        print("FAILED:", *result.problems, sep="\n  ")
        return 1
    shutil.rmtree(folder)
    print(
        f"PASSED: {result.verdicts.found} dead clients found in time, 0 not; 0 live clients killed "
        f"of {result.connections}; nothing has leaked"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
