"""
Tests for L{kaproto.security.proxystring}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.interfaces import (
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto.security.endpoints import TLSServerEndpoint
from kaproto.security.proxy import ProxyEndpoint, ProxyFactory
from tests.pki import Authority, distinguished


class StringTests(SynchronousTestCase):
    """
    Tests for the C{proxy:} endpoint string.
    """

    def parse(self, description: str) -> Any:
        """
        Parse an endpoint string.
        """
        return serverFromString(MemoryReactorClock(), description)

    def test_plugin(self) -> None:
        """
        Twisted finds the plugin.
        """
        found = [
            each for each in getPlugins(IStreamServerEndpointStringParser) if each.prefix == "proxy"
        ]
        self.assertEqual(len(found), 1)
        verifyObject(IStreamServerEndpointStringParser, found[0])

    def test_inner(self) -> None:
        """
        The inner endpoint gets its own arguments, with their quoting.
        """
        endpoint = self.parse("proxy:tcp:16509:interface=\\:\\:1:backlog=7:from=192.0.2.10")
        verifyObject(IStreamServerEndpoint, endpoint)
        self.assertIsInstance(endpoint, ProxyEndpoint)
        inner = endpoint.wrapped
        self.assertIsInstance(inner, TCP4ServerEndpoint)
        self.assertEqual((inner._port, inner._interface, inner._backlog), (16509, "::1", 7))

    def test_beneathTLS(self) -> None:
        """
        With TLS the header is read below the TLS layer.
        """
        directory = Path(self.mktemp()).absolute()
        authority = Authority()
        authority.write(str(directory), authority.issue(distinguished("server")))
        reactor = MemoryReactorClock()
        endpoint: Any = serverFromString(
            reactor, f"proxy:libvirttls:16514:pki={directory}:from=192.0.2.10"
        )
        self.assertIsInstance(endpoint, TLSServerEndpoint)
        self.successResultOf(endpoint.listen(Factory()))
        bottom: Any = reactor.tcpServers[-1][1]
        self.assertIsInstance(bottom, ProxyFactory)
        self.assertIsInstance(bottom.wrapped, TLSMemoryBIOFactory)

    def test_mistakes(self) -> None:
        """
        Errors name the argument that is wrong and what is allowed.
        """
        expected = {
            "proxy:tcp:1": "needs from=NETWORK",
            "proxy": "goes before one of",
            "proxy:ssl:1:from=192.0.2.1": "'ssl' is none of them",
            "proxy:proxy:tcp:1:from=192.0.2.1": "'proxy' is none of them",
            "proxy:haproxy:tcp:1:from=192.0.2.1": "'haproxy' is none of them",
            "proxy:tcp:1:from=192.0.2.1/24": "the network is 192.0.2.0/24",
            "proxy:tcp:1:from=192.0.2.0/255.255.255.0": "write the number of bits",
            "proxy:tcp:1:from=": "from=",
            "proxy:tcp:1:from=all": "from=all",
            "proxy:tcp:1:from=2001:db8::/32": "write \\: for each colon",
            "proxy:tcp:1:from=192.0.2.1:uid=0": "uid= is for UNIX sockets",
            "proxy:unix:x:from=192.0.2.1": "from= is for TCP",
            "proxy:systemd:domain=UNIX:index=0:from=192.0.2.1": "from= is for TCP",
            "proxy:unix:x:uid=root": "not 'root'",
            "proxy:tcp:1:from=192.0.2.1:tls=yes": "tls= takes only terminated",
            "proxy:tcp:1:from=192.0.2.1:dn=0xE1": "dn= goes with tls=terminated",
            "proxy:tcp:1:from=192.0.2.1:certificate=optional": "certificate= goes with",
            "proxy:tcp:1:from=192.0.2.1:tls=terminated:certificate=no": "required or optional",
            "proxy:tcp:1:from=192.0.2.1:tls=terminated:dn=0x22": "a private field is from 0xe0",
            "proxy:tcp:1:from=192.0.2.1:tls=terminated:dn=x": "dn=x: ",
            "proxy:libvirttls:1:from=192.0.2.1:tls=terminated": "leave tls= out",
        }
        for description, reason in expected.items():
            error = self.assertRaises(ValueError, self.parse, description)
            self.assertIn(reason, str(error), description)
