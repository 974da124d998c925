"""
Runs a test of C{tests.interop} with larger sizes, in its own process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["runAtLength"]


def runAtLength(
    test: str, prefix: str, settings: Mapping[str, object]
) -> tuple[int, list[dict[str, Any]]]:
    """
    Run a test that reads its settings from the environment, and writes a line of JSON for each
    event.

    @param test: the name of a test module or class.
    @param prefix: the prefix of its environment variables.
    @param settings: each variable's value, by the rest of its name.  C{REPORT} is added: the file
        for the events.
    @return: the exit code, and the events.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        given = {**settings, "REPORT": report}
        environment = os.environ | {f"{prefix}_{name}": str(value) for name, value in given.items()}
        command = [sys.executable, "-m", "twisted.trial", f"--temp-directory={folder}/trial", test]
        code = subprocess.run(command, env=environment, check=False).returncode
        lines = report.read_text("utf-8").splitlines() if report.exists() else []
        return code, [json.loads(line) for line in lines]
