"""
Tests for L{kaproto.client.connecting}.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.client.connecting import connect, endpointFor
from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import RemoteError
from kaproto.keepalive.liveness import KeepAlive
from tests.support import ADDRESS, KEEPALIVE, Wire, opening
from tests.unit.client.test_protocol import REFUSED, ClientTestCase


class EndpointTests(SynchronousTestCase):
    """
    Where to connect, by URI or endpoint string.
    """

    def setUp(self) -> None:
        """
        Have a reactor that connects nowhere.
        """
        self.reactor = MemoryReactorClock()

    def connectTo(self, uri: str, *, readOnly: bool = False) -> str:
        """
        Begin to connect.

        @return: the name to open.
        """
        endpoint, name = endpointFor(self.reactor, uri, readOnly=readOnly)
        endpoint.connect(KeepAliveClientFactory(clock=self.reactor))
        self.reactor.advance(0)
        return name

    def test_tcp(self) -> None:
        """
        A URI with C{+tcp} names a host, whose name is looked up, and a port.
        """
        endpoint, name = endpointFor(self.reactor, "test+tcp://localhost:4040/default")
        self.assertIsInstance(endpoint, HostnameEndpoint)
        self.assertEqual(name, "test:///default")
        self.connectTo("test+tcp://127.0.0.1/default")
        self.assertEqual(self.reactor.tcpClients[0][:2], ("127.0.0.1", 16509))

    def test_unix(self) -> None:
        """
        A URI without a host, or with C{+unix}, is a UNIX socket: libvirtd's, or another.
        """
        for uri, readOnly, path in (
            ("qemu:///system", False, "/run/libvirt/libvirt-sock"),
            ("qemu:///system", True, "/run/libvirt/libvirt-sock-ro"),
            ("qemu+unix:///system?socket=/x/y", False, "/x/y"),
        ):
            endpoint, _name = endpointFor(self.reactor, uri, readOnly=readOnly)
            self.assertIsInstance(endpoint, UNIXClientEndpoint)
            self.reactor.unixClients.clear()
            self.assertEqual(self.connectTo(uri, readOnly=readOnly), "qemu:///system")
            self.assertEqual(self.reactor.unixClients[0][0], path)

    def test_endpointString(self) -> None:
        """
        Anything else is a Twisted endpoint string, with which the server's default is opened.
        """
        endpoint, _name = endpointFor(self.reactor, "tcp:host=192.0.2.1:port=7")
        self.assertIsInstance(endpoint, TCP4ClientEndpoint)
        self.assertEqual(self.connectTo("tcp:192.0.2.1:7"), "")
        self.assertEqual(self.reactor.tcpClients[0][:2], ("192.0.2.1", 7))

    def test_bad(self) -> None:
        """
        What cannot be used is a L{ValueError}, now and from C{connect}, which says why.
        """
        for uri, why in (
            ("test+tls://host/default?pkipath=/nothere", "/nothere/cacert.pem: there is no such"),
            ("test://host/default?pkipath=/nothere", "/nothere/cacert.pem: there is no such"),
            ("test+ssh://host/default", "ssh"),
            ("nonsense", "nonsense"),
        ):
            error = self.assertRaises(ValueError, endpointFor, self.reactor, uri)
            self.assertIn(why, str(error))
            self.failureResultOf(connect(self.reactor, uri), ValueError)


class ConnectTests(ClientTestCase):
    """
    L{connect}.
    """

    def begin(
        self, uri: str, **arguments: object
    ) -> tuple[Deferred[KeepAliveClientProtocol], Wire[KeepAliveClientProtocol]]:
        """
        Have the network connect, but not the server answer yet.
        """
        reactor = MemoryReactorClock()
        self.clock = reactor
        connecting = connect(reactor, uri, **arguments)  # type: ignore[arg-type]
        reactor.advance(0)
        built = reactor.tcpClients[0][2].buildProtocol(ADDRESS)
        # The endpoint wraps the connection in a protocol that does nothing but pass on.
        wire = self.wire(cast(KeepAliveClientProtocol, built))
        return connecting, wire

    def test_connect(self) -> None:
        """
        It connects, opens what the URI names, and fires with the connection.
        """
        connecting, wire = self.begin("test+tcp://127.0.0.1/default")
        self.assertNoResult(connecting)
        calls = self.answerAll(wire)
        self.assertIn(opening("test:///default", serial=2), calls)
        connection = self.successResultOf(connecting)
        self.assertTrue(connection.isAlive())
        self.assertEqual(connection.keepAlive, KeepAlive(0, 0))

    def test_arguments(self) -> None:
        """
        The name, read-only and the keepalive to start with may be given.
        """
        connecting, wire = self.begin(
            "tcp:127.0.0.1:16509", name="test:///default", readOnly=True, keepAlive=KEEPALIVE
        )
        self.assertIn(opening("test:///default", 1, 2), self.answerAll(wire))
        self.assertEqual(self.successResultOf(connecting).keepAlive, KEEPALIVE)

    def test_refused(self) -> None:
        """
        It fails with the server's error.
        """
        connecting, wire = self.begin("test+tcp://127.0.0.1/default")
        self.answerAll(wire, {opening("test:///default"): REFUSED})
        wire.lose()
        self.assertEqual(str(self.failureResultOf(connecting, RemoteError).value), str(REFUSED))

    def test_cancelled(self) -> None:
        """
        Who gives up waiting leaves no connection behind.
        """
        connecting, wire = self.begin("test+tcp://127.0.0.1/default")
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.answerAll(wire)
        self.assertTrue(wire.closing)
