"""
Reads the files that an administrator names: certificates, passwords, rules, settings.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["FILE_MAX", "readFile"]

FILE_MAX: Final = 64 * 1024 * 1024
"""
The largest file that is read.
"""


def readFile(path: Path) -> bytes:
    """
    Read a file, whatever is there by now: nobody may ever write to a pipe, and a device has no end,
    but a server that reads its files again must go on.

    @raise OSError: if it cannot be read, is no regular file, or is larger than L{FILE_MAX}.
    """
    with open(path, "rb", opener=_openAtOnce) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        data = file.read(FILE_MAX + 1)
    if len(data) > FILE_MAX:
        raise OSError(errno.EFBIG, f"it is larger than {FILE_MAX >> 20} MiB", str(path))
    return data


def _openAtOnce(path: str, flags: int) -> int:
    """
    Without C{O_NONBLOCK}, to open a pipe is to wait for somebody who writes to it.
    """
    return os.open(path, flags | os.O_NONBLOCK)
