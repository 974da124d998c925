"""
Real sockets without a reactor, and waiting for the kernel.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

__all__ = ["tcpPair", "until"]

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
