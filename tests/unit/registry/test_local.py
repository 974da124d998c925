"""
Tests for L{kaproto.registry.local}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.registry.interfaces import RegistryStatus
from kaproto.registry.local import LocalRegistry
from tests.support_registry import FakeNode


class LocalRegistryTests(SynchronousTestCase):
    """
    Tests for the registry of a server without Redis.
    """

    def test_nothing(self) -> None:
        """
        The local registry does not use its node, and has no problems.
        """
        registry, node = LocalRegistry("host1"), FakeNode()
        registry.start(node)
        self.assertFalse(hasattr(node, "changed"))
        self.assertEqual(registry.status(), RegistryStatus("memory", None, 0.0))
        self.assertIsNone(self.successResultOf(registry.stop()))
