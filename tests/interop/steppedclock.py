"""
Runs twistd, or a script, with a wall clock that the test can step.  Other clocks are unchanged.

Stepping the machine's own clock would affect every program on it.  So the functions that read the
wall clock are replaced before anything else is imported, and add an offset which another process
can change at any time.

Usage: C{python steppedclock.py OFFSETFILE TWISTD-ARGUMENTS...} or C{python steppedclock.py
OFFSETFILE SCRIPT.py ARGUMENTS...}
"""

import mmap
import runpy
import struct
import sys
import time
from collections.abc import Callable

__all__ = ["SIZE", "main", "pack"]

_OFFSET = struct.Struct("=q")

SIZE = _OFFSET.size
"""
The size in bytes of the file with the offset.
"""


def pack(seconds: int) -> bytes:
    """
    @return: the contents of the file for a wall clock that is C{seconds} fast.
    """
    return _OFFSET.pack(seconds)


def main() -> None:
    """
    Replace the clock, then run the program.
    """
    with open(sys.argv.pop(1), "rb") as file:
        shared = mmap.mmap(file.fileno(), SIZE, prot=mmap.PROT_READ)
    trueTime: Callable[[], float] = time.time
    trueNanoseconds: Callable[[], int] = time.time_ns

    def offset() -> int:
        seconds: int = _OFFSET.unpack_from(shared)[0]
        return seconds

    time.time = lambda: trueTime() + offset()
    time.time_ns = lambda: trueNanoseconds() + offset() * 10**9

    if sys.argv[1].endswith(".py"):
        del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        from twisted.scripts.twistd import run

        run()


if __name__ == "__main__":
    main()
