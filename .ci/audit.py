"""
Look for known vulnerabilities in the dependencies of kaproto and its extras.

pip-audit asks the advisory service.  If that cannot be reached, or a mirror has no advisories,
the last line says NOT AUDITED, and the exit status is 0, because being offline is no fault of
kaproto's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = frozenset({"metrics", "redis", "scram", "websocket"})


def needed(name: str = "kaproto", extras: frozenset[str] = EXTRAS) -> set[str]:
    """
    @return: the names of the installed packages that a package depends on, directly or not.
    """
    found: set[str] = set()
    waiting = [(name, extras)]
    seen = set()
    while waiting:
        package, wanted = each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        try:
            requires = distribution(package).requires or []
        except PackageNotFoundError:
            continue
        found.add(canonicalize_name(package))
        for requirement in map(Requirement, requires):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return found - {name}


def judge(packages: set[str], report: dict[str, Any] | None, problem: str = "") -> tuple[str, int]:
    """
    @param packages: the names of the packages to audit.
    @param report: pip-audit's report; C{None} if it failed.
    @param problem: why it failed.
    @return: the text to print, and the exit status.
    """
    audited: set[str] = set()
    known = []
    for each in report["dependencies"] if report else []:
        name = canonicalize_name(each["name"])
        if name in packages and "skip_reason" not in each:
            audited.add(name)
            known += [f"{name} {each['version']}: {v['id']}" for v in each["vulns"]]
        elif name in packages:
            problem = problem or each["skip_reason"]
    missing = sorted(packages - audited)
    lines = [f"VULNERABLE: {each}" for each in known]
    if missing:
        shown = "all" if not audited else ", ".join(missing)
        lines.append(f"NOT AUDITED: {shown} of {len(packages)} packages: {problem}")
    elif not known:
        lines.append(f"audited {len(packages)} packages: no known vulnerability")
    return "\n".join(lines), int(bool(known))


def main() -> int:
    """
    @return: the exit status.
    """
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    try:
        report, problem = json.loads(done.stdout), ""
    except ValueError:
        report, problem = None, (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
    said, status = judge(needed(), report, problem)
    print(said)
    return status


if __name__ == "__main__":
    sys.exit(main())
