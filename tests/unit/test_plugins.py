"""
Tests for C{twisted/plugins/kaproto_plugins.py}.
"""

from __future__ import annotations

from twisted.application.service import IServiceMaker, ServiceMaker
from twisted.plugin import IPlugin, getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto.app.options import Options
from kaproto.app.service import makeService
from kaproto.interfaces import IKeepAlivePolicy
from kaproto.policies import MODES
from twisted.plugins import kaproto_plugins


class PluginTests(SynchronousTestCase):
    """
    Tests for kaproto's Twisted plugins.
    """

    def test_service(self) -> None:
        """
        C{twistd} finds C{kaserver} with this package's options and service.
        """
        found = [each for each in getPlugins(IServiceMaker) if each.tapname == "kaserver"]
        self.assertEqual(found, [kaproto_plugins.kaserver])
        (maker,) = found
        assert isinstance(maker, ServiceMaker)
        self.assertIs(maker.options, Options)
        self.assertIs(maker.makeService, makeService)
        self.assertIn("keepalive", maker.description)

    def test_policies(self) -> None:
        """
        The three modes are plugins, as policies of other packages are.
        """
        found = list(getPlugins(IKeepAlivePolicy))
        for mode in MODES:
            self.assertIn(mode, found)
            verifyObject(IKeepAlivePolicy, mode)
            verifyObject(IPlugin, mode)
        self.assertEqual(
            (kaproto_plugins.disable, kaproto_plugins.optional, kaproto_plugins.mandatory), MODES
        )
