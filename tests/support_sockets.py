"""
Helpers for tests with real sockets: pairs, short paths, and a way to wait for the kernel.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

__all__ = ["SHORT", "shortFolder", "tcpPair", "until"]

SHORT: Final = "/tmp"
"""
The parent of folders for UNIX sockets, whose paths are limited to 107 bytes.  Trial's folder and
TMPDIR can be longer than that.
"""

_PATIENCE: Final = 10.0


def tcpPair(test: SynchronousTestCase) -> tuple[socket.socket, socket.socket]:
    """
    Connect two sockets over the loopback interface, and close them at the end of the test.

    @return: the connecting end and the accepted end.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        test.addCleanup(near.close)
        far, _address = listener.accept()
    test.addCleanup(far.close)
    return near, far


def shortFolder(test: SynchronousTestCase) -> str:
    """
    @return: the absolute path of a new folder, which is removed at the end of the test.
    """
    return test.enterContext(TemporaryDirectory(prefix="kaproto-", dir=SHORT))


def until(condition: Callable[[], object]) -> None:
    """
    Wait for the kernel.  Even on the loopback interface, a busy kernel delivers segments,
    acknowledgements and resets after the system call has returned.

    @param condition: called until its result is true.
    @raise AssertionError: when that takes 10 seconds.
    """
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the kernel has not done it"
        time.sleep(0.001)
