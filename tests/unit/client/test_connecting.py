"""
Tests for L{kaproto.client.connecting}.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from socket import if_nametoindex
from typing import cast

from twisted.internet._resolver import HostResolution
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectingCancelledError, DNSLookupError, ReactorNotRunning
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorThreads,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer
from zope.interface.verify import verifyObject

from kaproto.client.connecting import HostEndpoint, connect, endpointFor
from kaproto.client.libvirt import Connection
from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import DeadlineMissed, RemoteError
from kaproto.keepalive.liveness import KeepAlive
from tests.support import ADDRESS, KEEPALIVE, Wire, opening
from tests.support_client import REFUSED, ClientTestCase


@implementer(IHostnameResolver)
class StaticResolver:
    """
    Resolves every name to the same addresses.

    @ivar addresses: the addresses, C{None} to never finish.
    @ivar asked: the names to resolve.
    """

    def __init__(self, addresses: list[str] | None) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """
        Resolve at once.
        """
        self.asked.append(hostName)
        resolution = HostResolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if self.addresses is not None:
            for address in self.addresses:
                kind = IPv6Address if ":" in address else IPv4Address
                resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
            resolutionReceiver.resolutionComplete()
        return resolution


class ThreadedReactor(MemoryReactorClock):
    """
    A reactor with a thread pool, which has not been started.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        alsoProvides(self, IReactorThreads)
        self.threadpool = ThreadPool()

    def getThreadPool(self) -> ThreadPool:
        """
        @return: the pool.
        """
        return self.threadpool


class AsyncioReactor(MemoryReactorClock):
    """
    A reactor that uses an asyncio event loop.
    """

    _asyncioEventloop: asyncio.AbstractEventLoop


class EndpointTests(SynchronousTestCase):
    """
    Tests for the endpoint of a URI or an endpoint string.
    """

    def setUp(self) -> None:
        """
        Create a reactor in memory.
        """
        self.reactor = MemoryReactorClock()

    def connectTo(self, uri: str, *, readOnly: bool = False) -> str:
        """
        Start to connect.

        @return: the name to open.
        """
        endpoint, name = endpointFor(self.reactor, uri, readOnly=readOnly)
        endpoint.connect(KeepAliveClientFactory(clock=self.reactor))
        self.reactor.advance(0)
        return name

    def test_tcp(self) -> None:
        """
        A URI with C{+tcp} is for a host and a port.
        """
        endpoint, name = endpointFor(self.reactor, "test+tcp://localhost:4040/default")
        self.assertEqual(endpoint, HostEndpoint(self.reactor, "localhost", 4040))
        self.assertTrue(verifyObject(IStreamClientEndpoint, endpoint))
        self.assertEqual(name, "test:///default")
        self.connectTo("test+tcp://127.0.0.1/default")
        self.assertEqual(self.reactor.tcpClients[0][:2], ("127.0.0.1", 16509))

    def test_unix(self) -> None:
        """
        A URI without a host, or with C{+unix}, is for a UNIX socket: libvirtd's, or another.
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
        Any other text is a Twisted endpoint string, with the server's default to open.
        """
        endpoint, _name = endpointFor(self.reactor, "tcp:host=192.0.2.1:port=7")
        self.assertIsInstance(endpoint, TCP4ClientEndpoint)
        self.assertEqual(self.connectTo("tcp:192.0.2.1:7"), "")
        self.assertEqual(self.reactor.tcpClients[0][:2], ("192.0.2.1", 7))

    def test_bad(self) -> None:
        """
        C{endpointFor} and C{connect} refuse other texts with a L{ValueError} that says why.
        """
        for uri, why in (
            ("test+tls://host/default?pkipath=/nothere", "/nothere/cacert.pem: there is no such"),
            ("test://host/default?pkipath=/nothere", "/nothere/cacert.pem: there is no such"),
            ("test+ssh://host/default", "ssh"),
            ("nonsense", "'nonsense' is neither a libvirt URI nor a Twisted client endpoint"),
            ("tcp:host", "'tcp:host' is neither"),
            ("tcp:host", "Twisted client endpoint string: it needs 'port'"),
        ):
            error = self.assertRaises(ValueError, endpointFor, self.reactor, uri)
            self.assertIn(why, str(error))
            self.failureResultOf(connect(self.reactor, uri), ValueError)


class HostEndpointTests(SynchronousTestCase):
    """
    Tests for host names, which are resolved, and addresses, which are not.
    """

    def setUp(self) -> None:
        """
        Create a reactor in memory.
        """
        self.reactor = MemoryReactorClock()

    def test_addresses(self) -> None:
        """
        An address in any notation is connected to at once.
        """
        for host, address in [
            ("192.0.2.1", "192.0.2.1"),
            ("127.1", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0300.0.2.1", "192.0.2.1"),
            ("::1", "::1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("::ffff:192.0.2.9", "::ffff:192.0.2.9"),
            ("fe80::1%lo", "fe80::1%lo"),
            (f"fe80::1%{if_nametoindex('lo')}", "fe80::1%lo"),
        ]:
            HostEndpoint(self.reactor, host, 7).connect(Factory())
            self.assertEqual(self.reactor.tcpClients.pop()[:2], (address, 7))

    def test_name(self) -> None:
        """
        A name is resolved, and all its addresses are tried.
        """
        resolver = StaticResolver(["192.0.2.1", "2001:db8::1"])
        self.reactor.nameResolver = resolver
        connecting = HostEndpoint(self.reactor, "host.test", 7).connect(Factory())
        self.reactor.advance(1)
        self.assertEqual(resolver.asked, ["host.test"])
        places = [client[:2] for client in self.reactor.tcpClients]
        self.assertEqual(places, [("192.0.2.1", 7), ("2001:db8::1", 7)])
        self.assertNoResult(connecting)

    def test_unresolvable(self) -> None:
        """
        A name without addresses, and an invalid name, are errors.
        """
        self.reactor.nameResolver = StaticResolver([])
        for host, error in [
            ("host.test", DNSLookupError),
            ("256.1.1.1", DNSLookupError),
            ("fe80::1%nosuch", DNSLookupError),
            ("[host]", ValueError),
        ]:
            self.failureResultOf(HostEndpoint(self.reactor, host, 7).connect(Factory()), error)

    def test_reactorNotStarted(self) -> None:
        """
        Names cannot be resolved in a reactor that has not been started, though its event loop runs,
        as may happen with asyncio.  That is an error, which says what to do.
        """
        reactor = ThreadedReactor()
        connecting = HostEndpoint(reactor, "host.test", 7).connect(Factory())
        self.assertNoResult(connecting)
        reactor.advance(0)
        error = self.failureResultOf(connecting, ReactorNotRunning).value
        self.assertIn("host.test", str(error))
        self.assertIn("reactor.startRunning(installSignalHandlers=False)", str(error))
        HostEndpoint(reactor, "192.0.2.1", 7).connect(Factory())
        self.assertEqual(reactor.tcpClients.pop()[:2], ("192.0.2.1", 7))

    def test_reactorStartedLater(self) -> None:
        """
        The reactor may be started after C{connect} was called.
        """
        reactor = ThreadedReactor()
        reactor.nameResolver = StaticResolver(["192.0.2.1"])
        HostEndpoint(reactor, "host.test", 7).connect(Factory())
        reactor.threadpool.started = True
        reactor.advance(0)
        self.assertEqual(reactor.tcpClients.pop()[:2], ("192.0.2.1", 7))


class EventLoopTests(SynchronousTestCase):
    """
    Tests for connecting in an asyncio program.
    """

    def connecting(self, reactor: MemoryReactorClock) -> Deferred[Connection]:
        """
        Start to connect in asyncio's event loop.
        """

        async def main() -> Deferred[Connection]:
            if isinstance(reactor, AsyncioReactor):
                reactor._asyncioEventloop = asyncio.get_running_loop()
            return connect(reactor, "test+tcp://127.0.0.1/default")

        return asyncio.run(main())

    def test_another(self) -> None:
        """
        A reactor that does not use the running event loop is an error, which says what to do.
        """
        connecting = self.connecting(MemoryReactorClock())
        error = self.failureResultOf(connecting, ReactorNotRunning).value
        self.assertIn("asyncioreactor.install(asyncio.get_running_loop())", str(error))

    def test_running(self) -> None:
        """
        A reactor that is running, perhaps in another thread, is no error.
        """
        reactor = MemoryReactorClock()
        reactor.running = True
        self.assertNoResult(self.connecting(reactor))

    def test_theOne(self) -> None:
        """
        A reactor that uses the running event loop is no error.
        """
        self.assertNoResult(self.connecting(AsyncioReactor()))


class ConnectTests(ClientTestCase):
    """
    Tests for L{connect}.
    """

    def begin(
        self, uri: str, **arguments: object
    ) -> tuple[Deferred[Connection], Wire[KeepAliveClientProtocol]]:
        """
        Connect to a server that has not answered yet.
        """
        reactor = MemoryReactorClock()
        self.clock = reactor
        connecting = connect(reactor, uri, **arguments)  # type: ignore[arg-type]
        reactor.advance(0)
        built = reactor.tcpClients[0][2].buildProtocol(ADDRESS)
        # The endpoint wraps the connection in a protocol that only forwards.
        wire = self.wire(cast(KeepAliveClientProtocol, built))
        return connecting, wire

    def test_connect(self) -> None:
        """
        C{connect} opens what the URI names, and fires with the connection.
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
        The name, the read-only flag and keepalive can be passed as arguments.
        """
        connecting, wire = self.begin(
            "tcp:127.0.0.1:16509", name="test:///default", readOnly=True, keepAlive=KEEPALIVE
        )
        self.assertIn(opening("test:///default", 1, 2), self.answerAll(wire))
        self.assertEqual(self.successResultOf(connecting).keepAlive, KEEPALIVE)

    def test_refused(self) -> None:
        """
        C{connect} fails with the server's error.
        """
        connecting, wire = self.begin("test+tcp://127.0.0.1/default")
        self.answerAll(wire, {opening("test:///default"): REFUSED})
        wire.lose()
        self.assertEqual(str(self.failureResultOf(connecting, RemoteError).value), str(REFUSED))

    def test_noConnection(self) -> None:
        """
        When resolving and connecting take longer than the timeout, the error says what did not
        happen in time.
        """
        for resolver in (StaticResolver(["192.0.2.1"]), StaticResolver(None)):
            reactor = MemoryReactorClock()
            reactor.nameResolver = resolver
            connecting = connect(reactor, "test+tcp://host/default", timeout=8)
            reactor.pump([1] * 7)
            self.assertNoResult(connecting)
            reactor.pump([1, 0])
            error = self.failureResultOf(connecting, DeadlineMissed).value
            self.assertEqual(str(error), "no connection to test+tcp://host/default within 8 s")
            self.assertEqual(reactor.getDelayedCalls(), [])

    def test_notOpened(self) -> None:
        """
        The timeout includes opening.
        """
        connecting, wire = self.begin("test+tcp://127.0.0.1/default", timeout=8)
        self.clock.pump([1] * 8)
        self.clock.advance(0)
        error = self.failureResultOf(connecting, DeadlineMissed).value
        self.assertIn("did not let this client open within 8 s", str(error))
        wire.lose()
        self.assertTrue(wire.closing)

    def test_cancelledEarly(self) -> None:
        """
        Cancelling while connecting fails with L{ConnectingCancelledError}.
        """
        reactor = MemoryReactorClock()
        connecting = connect(reactor, "test+tcp://127.0.0.1/default")
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """
        Cancelling while opening closes the connection.
        """
        connecting, wire = self.begin("test+tcp://127.0.0.1/default")
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.answerAll(wire)
        self.assertTrue(wire.closing)
