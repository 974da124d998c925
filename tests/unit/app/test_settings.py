"""
Tests for L{kaproto.app.settings}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.settings import GROUPS, SETTINGS


class SettingsTests(SynchronousTestCase):
    """
    Tests for the table of settings.
    """

    def test_groups(self) -> None:
        """
        Every setting is in one group.
        """
        self.assertEqual(sum(map(len, GROUPS.values())), len(SETTINGS))

    def test_limits(self) -> None:
        """
        No two settings set the same limit.
        """
        limits = [each.limit for each in SETTINGS.values() if each.limit]
        self.assertEqual(len(limits), len(set(limits)))

    def test_defaults(self) -> None:
        """
        Every default is a valid value, or C{None} if an unset setting has its own meaning.
        """
        for each in SETTINGS.values():
            if each.default is not None:
                self.assertEqual(each.kind.fromValue(each.default), each.default)

    def test_shorts(self) -> None:
        """
        No two settings have the same short flag.
        """
        shorts = [each.short for each in SETTINGS.values() if each.short]
        self.assertEqual(len(shorts), len(set(shorts)))
