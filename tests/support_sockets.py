"""
Real sockets without a reactor, waiting for the kernel, and short paths.
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
Where folders for UNIX sockets are made.  Their paths may have 107 bytes; trial's folder and TMPDIR
can be longer than that.
"""

_PATIENCE: Final = 10.0


def tcpPair(test: SynchronousTestCase) -> tuple[socket.socket, socket.socket]:
    """
    Connect over the loopback interface, until the test is over.

    @return: the end that connected, and the end that was accepted.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        test.addCleanup(near.close)
        far, _address = listener.accept()
    test.addCleanup(far.close)
    return near, far


def shortFolder(test: SynchronousTestCase) -> str:
    """
    @return: the absolute path of a new folder, which is removed when the test is over.
    """
    return test.enterContext(TemporaryDirectory(prefix="kaproto-", dir=SHORT))


def until(condition: Callable[[], object]) -> None:
    """
    Wait for the kernel.  A busy one delivers a segment, its acknowledgement or a reset after the
    call that sent it has returned, even on the loopback interface.

    @param condition: called until its result is true.
    @raise AssertionError: when that takes 10 seconds.
    """
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the kernel has not done it"
        time.sleep(0.001)
