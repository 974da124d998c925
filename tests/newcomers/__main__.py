"""
Run with C{python -m tests.newcomers [DOOR ...]}: clone the repository into a new folder, install
kaproto into a new virtual environment, and type what the pages tell newcomers to type.  Prints the
seconds of each step, and exits with 1 when something is not as the pages show it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.interop.support import missingTools
from tests.newcomers.doors import DOORS, INSTALL, TOOLS, TUTORIAL
from tests.newcomers.walk import Walk, WentAstray
from tests.pages import PROJECT


def main() -> None:
    """
    Walk through the doors that are named, or all of them.
    """
    names = sys.argv[1:] or list(DOORS)
    if set(names) - set(DOORS):
        sys.exit(f"usage: python -m tests.newcomers [{' | '.join(DOORS)}] ...")
    for name in names:
        print(f"{name}: {' '.join((DOORS[name].__doc__ or '').split())}")
        if missing := missingTools(TOOLS.get(name, ())):
            print(f"left out: {', '.join(missing)} not installed\n")
            continue
        began = time.monotonic()
        try:
            _walk(name)
        except WentAstray as error:
            sys.exit(str(error))
        print(f"{time.monotonic() - began:6.2f} s  in all\n")


def _walk(name: str) -> None:
    with TemporaryDirectory(prefix="kaproto-newcomer-") as folder:
        began = time.monotonic()
        checkout = Path(folder) / "kaproto"
        subprocess.run(["git", "clone", "--quiet", PROJECT, checkout], check=True)
        print(f"{time.monotonic() - began:6.2f} s  git clone")
        with Walk(checkout, 300.0, print) as walk:
            walk.run(TUTORIAL, INSTALL)
            DOORS[name](walk)


if __name__ == "__main__":
    main()
