"""
Tests for L{kaproto.app.settings}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.settings import GROUPS, SETTINGS


class SettingsTests(SynchronousTestCase):
    """
    The settings.
    """

    def test_groups(self) -> None:
        """
        Every setting is in one of the groups, and every group has some.
        """
        self.assertEqual({each.group for each in SETTINGS.values()}, set(GROUPS))

    def test_defaults(self) -> None:
        """
        Every default is a value that the setting takes, and not set where that means something
        else.
        """
        for each in SETTINGS.values():
            if each.default is not None:
                self.assertEqual(each.kind.fromValue(each.default), each.default)

    def test_shorts(self) -> None:
        """
        No letter stands for two settings.
        """
        shorts = [each.short for each in SETTINGS.values() if each.short]
        self.assertEqual(len(shorts), len(set(shorts)))
