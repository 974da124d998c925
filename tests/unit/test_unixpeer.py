"""
Tests for L{kaproto.unixpeer}.
"""

from __future__ import annotations

import os
import socket

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kaproto.peer import UnixCredentials
from kaproto.unixpeer import unixCredentials


class Transport:
    """
    A transport with a socket.
    """

    def __init__(self, handle: object) -> None:
        self.handle = handle

    def getHandle(self) -> object:
        """
        See L{twisted.internet.interfaces.ISystemHandle}.
        """
        return self.handle


class UnixCredentialsTests(SynchronousTestCase):
    """
    Tests for L{unixCredentials}.
    """

    def test_known(self) -> None:
        """
        The kernel says who is at the other end.
        """
        here, there = socket.socketpair()
        with here, there:
            self.assertEqual(
                unixCredentials(Transport(here)),
                UnixCredentials(os.getpid(), os.getuid(), os.getgid()),
            )

    def test_nobody(self) -> None:
        """
        There is nobody to speak of on a UNIX user id that is not in this name space.
        """

        class Strange(socket.socket):
            def getsockopt(self, *arguments: object) -> bytes:  # type: ignore[override]
                """
                Answer as the kernel does for a process that it cannot name.
                """
                return bytes(4) + b"\xff" * 8

        with Strange(socket.AF_UNIX) as handle:
            self.assertEqual(
                unixCredentials(Transport(handle)), UnixCredentials(0, 2**32 - 1, 2**32 - 1)
            )

    def test_otherSockets(self) -> None:
        """
        Other sockets have no such credentials.
        """
        with socket.socket(socket.AF_INET) as handle:
            self.assertIsNone(unixCredentials(Transport(handle)))
        self.assertIsNone(unixCredentials(Transport(object())))

    def test_noSocket(self) -> None:
        """
        Nor have transports without a socket, or with one that is closed.
        """
        self.assertIsNone(unixCredentials(StringTransport()))
        handle = socket.socket(socket.AF_UNIX)
        handle.close()
        self.assertIsNone(unixCredentials(Transport(handle)))
