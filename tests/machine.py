"""
A lock that lets tests run in parallel, as with C{trial -j 2}, and those that measure times run
alone.
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
    Wait until the machine is free, and hold its lock until the end of the test.

    The lock is a file's, shared or exclusive.  A test that waits for it also holds a second lock,
    so that no others can start while one waits to run alone.

    @param alone: whether no other test may run at the same time.
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
