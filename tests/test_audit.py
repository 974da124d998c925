"""
Tests for C{.ci/audit.py}.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

PATH = Path(__file__).resolve().parent.parent / ".ci" / "audit.py"


class AuditTests(SynchronousTestCase):
    """
    Tests for the report about the packages that kaproto depends on.
    """

    def setUp(self) -> None:
        """
        Load the program.
        """
        spec = importlib.util.spec_from_file_location("audit", PATH)
        assert spec is not None
        assert spec.loader is not None
        self.audit: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.audit)

    def test_needed(self) -> None:
        """
        Direct and indirect dependencies of kaproto and its extras are found, but no test tools.
        """
        found = self.audit.needed()
        self.assertLessEqual({"twisted", "cryptography", "automat", "scramp", "wsproto"}, found)
        self.assertFalse({"kaproto", "hypothesis", "hatchling", "ruff"} & found)

    def test_judge(self) -> None:
        """
        Vulnerabilities fail the audit.  When a package cannot be audited, the report says so, and
        the audit does not fail.
        """
        clean = {"name": "A", "version": "1", "vulns": []}
        bad = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1"}]}
        skipped = {"name": "b", "skip_reason": "not found"}
        gone = {"name": "a", "skip_reason": "gone"}
        other = {"name": "c", "version": "3", "vulns": [{"id": "CVE-2"}]}
        for dependencies, words, status in (
            ([clean, {**bad, "vulns": []}, other], "audited 2 packages: no known", 0),
            ([clean, bad], "VULNERABLE: b 2: CVE-1", 1),
            ([clean, skipped], "NOT AUDITED: b of 2 packages: not found", 0),
            (
                [gone, skipped],
                "NOT AUDITED: all of 2 packages: gone",
                0,
            ),
            (None, "NOT AUDITED: all of 2 packages: offline", 0),
        ):
            report = None if dependencies is None else {"dependencies": dependencies}
            said, found = self.audit.judge({"a", "b"}, report, "" if report else "offline")
            self.assertIn(words, said)
            self.assertEqual(found, status)
