"""
The memory of failed logins that all workers share, and its lock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from typing import Final

from kaproto.security.loginbooks import Books

__all__ = ["createBooks", "sharedBooks"]

_TRIES: Final = 20
_PAUSE: Final = 0.0001


def createBooks() -> int:
    """
    @return: the descriptor of a file in memory, to pass to workers.
    """
    descriptor = os.memfd_create("kaserver-logins")
    os.ftruncate(descriptor, Books.size())
    with mmap.mmap(descriptor, Books.size()) as memory:
        Books.prepare(memory)
    return descriptor


def sharedBooks(descriptor: int) -> Books:
    """
    @param descriptor: the result of L{createBooks}; it is closed.
    """
    memory = mmap.mmap(descriptor, Books.size())
    # Processes that inherit a descriptor share its lock.  So open the file again.
    own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    os.close(descriptor)
    return Books(memory, _FileLock(own))


class _FileLock:
    """
    A lock by C{flock(2)}: the kernel releases it when its process ends.  A process holds it for
    some 30 microseconds.  Others wait for at most a few milliseconds, in case the holder is stopped
    (SIGSTOP).
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    def acquire(self) -> bool:
        for _ in range(_TRIES):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE)
            else:
                return True
        return False

    def release(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
