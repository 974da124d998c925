"""
Tests for L{kaproto.watch.endpoints}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from kaproto.errors import KeepAliveUnsupported
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.tcpkeepalive import TCPKeepAliveServerEndpoint
from kaproto.policies import Mandatory, Optional
from kaproto.watch.endpoints import TunnelClientEndpoint, TunnelServerEndpoint
from tests.unit.watch.test_tunnel import ADDRESS, MESSAGES, TERMS, Applications, TunnelTestCase


class EndpointTests(TunnelTestCase):
    """
    Tests for C{keepalive:} endpoint strings.
    """

    def test_server(self) -> None:
        """
        A server string has the policy's parameters; the others are the inner endpoint's.
        """
        endpoint: Any = serverFromString(
            MemoryReactorClock(),
            "keepalive:tcp:40:interface=\\:\\:1:policy=2:interval=0.5:count=3:wait=2",
        )
        verifyObject(IStreamServerEndpoint, endpoint)
        self.assertIsInstance(endpoint, TunnelServerEndpoint)
        self.assertEqual(endpoint.policy, Mandatory(KeepAlive(0.5, 3)))
        self.assertEqual(endpoint.wait, 2)
        self.assertIsInstance(endpoint._wrapped, TCP4ServerEndpoint)
        self.assertEqual(endpoint._wrapped._interface, "::1")

    def test_defaults(self) -> None:
        """
        By default the policy is mode 1, and clients need a tunnel.
        """
        endpoint: Any = serverFromString(MemoryReactorClock(), "keepalive:tcp:40")
        self.assertEqual((endpoint.policy, endpoint.wait), (Optional(KeepAlive(5, 5)), 1))
        client: Any = clientFromString(MemoryReactorClock(), "keepalive:tcp:192.0.2.1:40")
        self.assertEqual((client.keepAlive, client.wait), (KeepAlive(5, 5), 10))
        self.assertFalse(client.plain)

    def test_innerEndpoints(self) -> None:
        """
        Every endpoint can be the inner one, and escaped characters in its string are kept.
        """
        for string, kind in {
            "keepalive:unix:/run/a\\=b\\:c:mode=660:policy=2": UNIXServerEndpoint,
            "keepalive:tcpkeepalive:tcp:40:count=3": TCPKeepAliveServerEndpoint,
            "keepalive:tcp6:40:interface=\\:\\:1": TCP6ServerEndpoint,
        }.items():
            endpoint: Any = serverFromString(MemoryReactorClock(), string)
            self.assertIsInstance(endpoint._wrapped, kind)
        endpoint = serverFromString(MemoryReactorClock(), "keepalive:unix:/run/a\\=b\\:c")
        self.assertEqual(endpoint._wrapped._address, "/run/a=b:c")

    def test_listen(self) -> None:
        """
        Listening goes to the inner endpoint, and other wrappers can be put beneath the tunnel.
        """
        reactor = MemoryReactorClock()
        endpoint: Any = serverFromString(reactor, "keepalive:tcp:40")
        beneath = []

        def wrap(inner: Any) -> Any:
            beneath.append(inner)
            return inner

        self.successResultOf(endpoint.beneath(wrap).listen(Factory()))
        self.assertEqual(len(beneath), 1)
        self.assertEqual(reactor.tcpServers[0][0], 40)

    def test_client(self) -> None:
        """
        A client string has the keepalive parameters; the others are the inner endpoint's.
        """
        endpoint: Any = clientFromString(
            MemoryReactorClock(), "keepalive:tcp:host=192.0.2.1:port=40:count=2:plain=yes"
        )
        verifyObject(IStreamClientEndpoint, endpoint)
        self.assertIsInstance(endpoint, TunnelClientEndpoint)
        self.assertIsInstance(endpoint._wrapped, TCP4ClientEndpoint)
        self.assertEqual((endpoint.keepAlive, endpoint.plain), (KeepAlive(5, 2), True))

    def connecting(self, answers: list[bytes], *, plain: bool) -> tuple[Deferred[Any], list[Any]]:
        """
        Connect to fake servers, each of which sends one answer and closes.
        """
        built: list[Any] = []

        class Inner:
            def connect(self, factory: Any) -> Deferred[Any]:
                protocol = factory.buildProtocol(ADDRESS)
                built.append(protocol)
                protocol.makeConnection(StringTransport())
                answer = answers.pop(0)
                if answer:
                    protocol.dataReceived(answer)
                    if answer[0]:
                        protocol.connectionLost(Failure(ConnectionDone()))
                return succeed(protocol)

        inner: Any = Inner()
        endpoint = TunnelClientEndpoint(inner, TERMS, clock=self.clock, plain=plain)
        return endpoint.connect(Applications(self.client)), built

    def test_connect(self) -> None:
        """
        Connecting returns the application's protocol, through a tunnel or, with C{plain=yes}, over
        a second connection without one.
        """
        connecting, _built = self.connecting([MESSAGES.answer(1)], plain=False)
        self.assertIs(self.successResultOf(connecting), self.client)
        connecting, _built = self.connecting([b"HTTP"], plain=False)
        self.failureResultOf(connecting, KeepAliveUnsupported)
        connecting, built = self.connecting([b"HTTP", b""], plain=True)
        self.assertIs(self.successResultOf(connecting), self.client)
        self.assertIs(built[1], self.client)

    def test_mistakes(self) -> None:
        """
        Mistakes raise an error that says what is valid.
        """
        for rest, reason in {
            "": "not before ''",
            ":keepalive:tcp:1": "not before 'keepalive'",
            ":tcp:1:policy=3": "there is no policy '3'",
            ":tcp:1:interval=x": "interval= is a number of seconds, at most 2147483, not 'x'",
            ":tcp:1:interval=nan": "not 'nan'",
            ":tcp:1:interval=-1": "not '-1'",
            ":tcp:1:wait=inf": "not 'inf'",
            ":tcp:1:count=1.5": "count= is a whole number of pings, not '1.5'",
            ":tcp:1:intervall=5": "takes policy=, interval=, count=, wait=, and the rest",
            ":tcp:1:interface=::1": "interface=\\:\\:1",
            ":nothing:1": "there is no endpoint 'nothing'",
            ":tcp:1:interval=1e99": "not '1e99'",
            ":tcp:1:interval=1_0": "not '1_0'",
            ":tcp": "'tcp', is not an endpoint: it needs 'port'",
            ":tcp:1:mode=2": "is not an endpoint: it takes no mode=",
            ":unix:/x=y": "it takes no /x=",
            ":systemd:domain=INET:name=mine": "systemd has passed no socket named 'mine'",
            ":ssl:1:privateKey=/nonexistent": "No such file or directory: '/nonexistent'",
            ":tcp:1:policy=rules": "/etc/kaproto/rules.toml; here write \\: for the colon",
            ":tcp:1:policy=rules\\:/nonexistent": "No such file or directory: '/nonexistent'",
        }.items():
            error = self.assertRaises(
                ValueError, serverFromString, MemoryReactorClock(), f"keepalive{rest}"
            )
            self.assertIn(reason, str(error))
        for rest, reason in {
            "a:1:plain=1": "plain= is yes or no",
            "a:1:policy=2": "it takes no policy=",
            "::1:4040": "host=\\:\\:1",
            "[::1]:4040": "host=\\:\\:1",
        }.items():
            error = self.assertRaises(
                ValueError, clientFromString, MemoryReactorClock(), f"keepalive:tcp:{rest}"
            )
            self.assertIn(reason, str(error))

    def test_plugin(self) -> None:
        """
        Twisted finds the plugin for servers and clients.
        """
        for interface in (
            IStreamServerEndpointStringParser,
            IStreamClientEndpointStringParserWithReactor,
        ):
            plugins: Any = getPlugins(interface)
            found = [each for each in plugins if each.prefix == "keepalive"]
            self.assertEqual(len(found), 1)
            verifyObject(interface, found[0])
