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
The largest file that is read, in bytes.
"""


def readFile(path: Path) -> bytes:
    """
    Read a regular file.  Refuse anything else: a pipe without a writer, or an endless device, would
    block a server that reloads its files.

    @raise OSError: if it cannot be read, is not a regular file, or is larger than L{FILE_MAX}.
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
    Without C{O_NONBLOCK}, opening a pipe would wait for a writer.
    """
    return os.open(path, flags | os.O_NONBLOCK)
