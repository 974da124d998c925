"""
The trial of workers at length: C{kill -9} of one after another.

C{python -m tests.harness.workers --clients=1000 --every=6 --minutes=10} prints what happened.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["main"]


def main() -> int:
    """
    Run the trial.

    @return: the exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.harness.workers")
    parser.add_argument("--clients", type=int, default=1000, help="how many at any time")
    parser.add_argument("--every", type=float, default=6, help="seconds between two kills")
    parser.add_argument("--minutes", type=float, default=10, help="for how long")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        environment = {
            **os.environ,
            "KAPROTO_KILLS_CLIENTS": str(options.clients),
            "KAPROTO_KILLS_EVERY": str(options.every),
            "KAPROTO_KILLS_SECONDS": str(options.minutes * 60),
            "KAPROTO_KILLS_REPORT": str(report),
        }
        command = [sys.executable, "-m", "twisted.trial", f"--temp-directory={folder}/trial"]
        command.append("tests.interop.test_workerkills")
        code = subprocess.run(command, env=environment, check=False).returncode
        kills = []
        if report.exists():
            kills = [json.loads(line) for line in report.read_text("utf-8").splitlines()]
    if kills:
        first, last = kills[0], kills[-1]
        print(f"{len(kills)} workers killed; {sum(each['lost'] for each in kills)} clients lost")
        print(f"another one served within {max(each['seconds'] for each in kills):.1f} s")
        print(f"the parent's files: {first['files']} and {last['files']} in the end")
        print(f"the parent's memory: {first['memory']} KiB and {last['memory']} KiB in the end")
    return code


if __name__ == "__main__":
    sys.exit(main())
