"""
Tests for the handling of missing tools, and for reserved ports.
"""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.interop import support
from tests.interop.servers import reservePort
from tests.interop.support import (
    REQUIRE_VARIABLE,
    InteropTestCase,
    missingTools,
    requireInterop,
)


class RequireInteropTests(SynchronousTestCase):
    """
    Tests for L{requireInterop}.
    """

    def _missing(self, required: str) -> None:
        """
        Make every tool missing.

        @param required: the value of the environment variable.
        """
        self.patch(support, "missingTools", list)
        self.patch(os, "environ", {REQUIRE_VARIABLE: required})

    def test_skip(self) -> None:
        """
        Without the variable, or if it is 0, a test is skipped with a reason that names the missing
        tools.
        """
        for value in ("", "0"):
            self._missing(value)
            skipped = self.assertRaises(SkipTest, requireInterop, "virsh", "libvirtd")
            self.assertIn("virsh, libvirtd", str(skipped))

    def test_fail(self) -> None:
        """
        If the variable is 1, the test fails instead.
        """
        self._missing("1")
        failed = self.assertRaises(AssertionError, requireInterop, "virsh")
        self.assertNotIsInstance(failed, SkipTest)
        self.assertIn(REQUIRE_VARIABLE, str(failed))

    def test_nothingMissing(self) -> None:
        """
        A test that needs no tools is never skipped.
        """
        self.assertEqual(missingTools([]), [])
        self.patch(os, "environ", {REQUIRE_VARIABLE: "1"})
        requireInterop()

    def test_noSuchProgram(self) -> None:
        """
        A program that does not exist, or exits with an error, is missing.
        """
        self.patch(
            support,
            "_CHECKS",
            {
                "absent": ("/nonexistent/program",),
                "broken": ("/bin/false",),
                "there": ("/bin/true",),
            },
        )
        self.assertEqual(missingTools(["absent", "broken", "there"]), ["absent", "broken"])


class ReservedPortTests(InteropTestCase):
    """
    Tests for L{reservePort}.
    """

    tools = ()

    def listen(self, port: int, *, reuse: bool) -> socket.socket:
        """
        Listen on a loopback port.

        @param reuse: whether to set C{SO_REUSEADDR}, as libvirtd does.
        """
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        return listener

    def test_program(self) -> None:
        """
        The program can listen on the reserved port, and be reached there.
        """
        port = reservePort(self)
        self.listen(port, reuse=True)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass

    def test_others(self) -> None:
        """
        Other programs cannot bind it, before that program listens and after it has ended.
        """
        port = reservePort(self)
        self.assertRaises(OSError, self.listen, port, reuse=False)
        self.listen(port, reuse=True).close()
        self.assertRaises(OSError, self.listen, port, reuse=False)
