"""
Missing tools are a reason to skip, except where they may not be missing.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.interop import support
from tests.interop.support import REQUIRE_VARIABLE, missingTools, requireInterop


class RequireInteropTests(SynchronousTestCase):
    """
    L{requireInterop}.
    """

    def _missing(self, required: str) -> None:
        """
        Have every tool missing.

        @param required: the value of the environment variable.
        """
        self.patch(support, "missingTools", list)
        self.patch(os, "environ", {REQUIRE_VARIABLE: required})

    def test_skip(self) -> None:
        """
        Without the variable, or with a 0 in it, a test is skipped, and the reason names the
        missing tools.
        """
        for value in ("", "0"):
            self._missing(value)
            skipped = self.assertRaises(SkipTest, requireInterop, "virsh", "libvirtd")
            self.assertIn("virsh, libvirtd", str(skipped))

    def test_fail(self) -> None:
        """
        With a 1 in the variable the test fails instead.
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
        A program that is not there, and one that ends with an error, count as missing.
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
