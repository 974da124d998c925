"""
One machine for tests that run side by side, as with C{trial -j 2}, and for those that have to be
alone because they measure times.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

__all__ = ["useMachine"]

_FOLDER = Path(tempfile.gettempdir())


def useMachine(test: SynchronousTestCase, *, alone: bool = False) -> None:
    """
    Wait until the machine is free, and use it until the end of the test.

    Tests hold a lock on a file, shared or alone.  Whoever wants it alone also holds a second one
    while it waits, so that no others begin and it is not overtaken for ever.

    @param alone: whether no other test may use it meanwhile.
    """
    name = f"kaproto-tests-{os.getuid()}"
    gate = _opened(test, f"{name}-gate.lock")
    lock = _opened(test, f"{name}.lock")
    fcntl.flock(gate, fcntl.LOCK_EX)
    fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    fcntl.flock(gate, fcntl.LOCK_UN)


def _opened(test: SynchronousTestCase, name: str) -> Any:
    file = (_FOLDER / name).open("a")
    test.addCleanup(file.close)
    return file
