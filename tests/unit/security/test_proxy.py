"""
Tests for L{kaproto.security.proxy}.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.policies import ProtocolWrapper
from twisted.trial.unittest import SynchronousTestCase

from kaproto.endpointstring import quoted
from kaproto.peer import UnixCredentials
from kaproto.security import proxy
from kaproto.security.admission import AccessControl
from kaproto.security.proxy import HEADER_TIMEOUT, ProxyFactory, Trust, headerOf
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.message import Message, packMessage
from kaproto.wire.programs import REMOTE_PROGRAM

BALANCER = IPv4Address("TCP", "192.0.2.10", 40000)
CLIENT = IPv4Address("TCP", "203.0.113.5", 1234)
LINE = b"PROXY TCP4 203.0.113.5 198.51.100.1 1234 16509\r\n"


class Recorder(Protocol):
    """
    A protocol that records the bytes received and its peer's address.
    """

    address: IAddress | None = None
    heard = b""

    def connectionMade(self) -> None:
        """
        Record the peer's address at this moment.
        """
        assert self.transport is not None
        self.address = self.transport.getPeer()

    def dataReceived(self, data: bytes) -> None:
        """
        Record the bytes.
        """
        self.heard += data


class RecorderFactory(Factory):
    """
    Builds one given protocol, or none.

    @ivar addresses: the addresses that protocols were asked for.
    @ivar running: starts minus stops.
    """

    def __init__(self, built: Protocol | None) -> None:
        self.built = built
        self.addresses: list[IAddress] = []
        self.running = 0

    def startFactory(self) -> None:
        """
        Count the start.
        """
        self.running += 1

    def stopFactory(self) -> None:
        """
        Count the stop.
        """
        self.running -= 1

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        Record the address.
        """
        assert addr is not None
        self.addresses.append(addr)
        return self.built


class ConnectionTestCase(SynchronousTestCase):
    """
    A test case with connections to a C{proxy:} endpoint.
    """

    def connect(
        self, endpoint: str, peer: IAddress = BALANCER, built: Protocol | None = None
    ) -> Any:
        """
        Listen, and connect a peer.

        @param built: the protocol above the endpoint, by default a recorder.
        @return: the transport.
        """
        self.reactor = MemoryReactorClock()
        self.recorder = Recorder()
        self.factory = RecorderFactory(self.recorder if built is None else built)
        server: Any = serverFromString(self.reactor, endpoint)
        self.successResultOf(server.listen(self.factory))
        servers = self.reactor.tcpServers or self.reactor.unixServers
        listening: Any = servers[-1][1]
        listening.doStart()
        protocol = listening.buildProtocol(peer)
        transport: Any = StringTransport(peerAddress=peer)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def setUp(self) -> None:
        """
        Capture log events.
        """
        self._events = self.enterContext(capturedLogs())
        self._seen = 0

    def logged(self) -> list[str]:
        """
        @return: the refusals logged since the last call.
        """
        lines = [formatEvent(event) for event in self._events[self._seen :]]
        self._seen = len(self._events)
        return [line for line in lines if line.startswith("refused")]


class HeaderTests(ConnectionTestCase):
    """
    Tests for a connection before and after its header.
    """

    def test_client(self) -> None:
        """
        After the header, the protocol is built and connected with the client's address, and
        receives the bytes that follow.
        """
        transport = self.connect("proxy:tcp:16509:from=192.0.2.0/24")
        for start, end in ((0, 10), (10, len(LINE) - 1)):
            transport.protocol.dataReceived(LINE[start:end])
            self.assertEqual(self.factory.addresses, [])
        transport.protocol.dataReceived(b"\nhello")
        self.assertEqual(self.factory.addresses, [CLIENT])
        self.assertEqual((self.recorder.address, self.recorder.heard), (CLIENT, b"hello"))
        self.assertIs(transport.protocol, self.recorder)
        self.assertEqual(transport.getHost(), IPv4Address("TCP", "198.51.100.1", 16509))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_balancersOwn(self) -> None:
        """
        A connection of the balancer itself keeps the balancer's address.
        """
        transport = self.connect("proxy:tcp:16509:from=192.0.2.10")
        transport.protocol.dataReceived(b"PROXY UNKNOWN\r\n")
        self.assertEqual((self.recorder.address, self.recorder.heard), (BALANCER, b""))

    def test_found(self) -> None:
        """
        The header is found through other protocols; a connection without one has none.
        """
        transport = self.connect("proxy:tcp:16509:from=192.0.2.10")
        transport.protocol.dataReceived(LINE)
        wrapper = ProtocolWrapper(Factory(), Protocol())  # type: ignore[arg-type]
        wrapper.transport = transport
        header = headerOf(wrapper)
        assert header is not None
        self.assertEqual(header.source, CLIENT)
        self.assertIsNone(headerOf(StringTransport()))

    def test_refused(self) -> None:
        """
        Bytes that are not a header, and a header that is not complete in time, end the connection
        with a line in the log. Later bytes are ignored.
        """
        transport = self.connect("proxy:tcp:16509:from=192.0.2.10")
        transport.protocol.dataReceived(b"\x16\x03\x01")
        self.assertTrue(transport.disconnecting)
        transport.protocol.dataReceived(LINE)
        self.assertEqual(self.factory.addresses, [])
        (line,) = self.logged()
        self.assertIn("instead of a PROXY header", line)
        transport = self.connect("proxy:tcp:16509:from=192.0.2.10")
        transport.protocol.dataReceived(LINE[:5])
        self.reactor.advance(HEADER_TIMEOUT)
        self.assertTrue(transport.disconnecting)
        self.assertIn("no PROXY header within 5 s", self.logged()[0])

    def test_lost(self) -> None:
        """
        A connection that ends before its header leaves no timer behind and is not logged.
        """
        transport = self.connect("proxy:tcp:16509:from=192.0.2.10")
        transport.protocol.connectionLost()
        self.assertEqual((self.reactor.getDelayedCalls(), self.logged()), ([], []))

    def test_notBuilt(self) -> None:
        """
        If the factory builds no protocol, the connection is closed.
        """
        transport = self.connect("proxy:tcp:16509:from=192.0.2.10")
        self.factory.built = None
        transport.protocol.dataReceived(LINE)
        self.assertTrue(transport.disconnecting)

    def test_startAndStop(self) -> None:
        """
        The wrapped factory is started and stopped with its listener.
        """
        factory = RecorderFactory(None)
        proxy: Any = ProxyFactory(factory, Trust(), MemoryReactorClock())
        proxy.doStart()
        self.assertEqual(factory.running, 1)
        proxy.doStop()
        self.assertEqual(factory.running, 0)


class TerminatedTests(ConnectionTestCase):
    """
    Tests for a server behind a balancer that ends TLS.
    """

    def serve(self, header: bytes, options: str = "", names: Sequence[str] | None = None) -> Any:
        """
        Connect to a server and send a header.

        @param names: the DN patterns that the server allows.
        @return: the transport.
        """
        self.reactor = MemoryReactorClock()
        factory = KeepAliveServerFactory(
            clock=self.reactor, accessControl=AccessControl(tlsAllowedDNs=names)
        )
        server: Any = serverFromString(
            self.reactor, f"proxy:tcp:1:from=192.0.2.10:tls=terminated{options}"
        )
        self.successResultOf(server.listen(factory))
        listening: Any = self.reactor.tcpServers[-1][1]
        protocol = listening.buildProtocol(BALANCER)
        transport: Any = StringTransport(peerAddress=BALANCER)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        transport.protocol.dataReceived(header)
        return transport

    def test_identified(self) -> None:
        """
        The client gets libvirt's confirmation, and the server has its name and address.
        """
        transport = self.serve(terminatedHeader(b"CN=alice,O=x"), names=["O=x,CN=al*"])
        self.assertEqual(transport.value(), b"\1")
        peer = transport.protocol.peer
        self.assertEqual((peer.tlsDN, peer.commonName), ("O=x,CN=alice", "al"))
        self.assertEqual((peer.address, peer.transport), (CLIENT, "tls"))
        self.assertIn("cn='al'", str(peer))

    def test_refused(self) -> None:
        """
        A client whose name is not allowed, or that was not verified, is refused without the
        confirmation, and its messages are ignored.
        """
        for header, options, names in (
            (terminatedHeader(b"CN=bob"), "", ["CN=al*"]),
            (terminatedHeader(b"/CN=alice"), "", None),
            (LINE, "", None),
            (LINE, ":certificate=optional", ["*"]),
        ):
            transport = self.serve(header, options, names)
            self.assertTrue(transport.disconnecting)
            transport.protocol.dataReceived(encodedHostname())
            self.assertEqual(transport.value(), b"")

    def test_optional(self) -> None:
        """
        With C{certificate=optional}, a client without a certificate is served without a name.
        """
        transport = self.serve(LINE, ":certificate=optional")
        self.assertEqual(transport.value(), b"\1")
        self.assertIsNone(transport.protocol.peer.tlsDN)

    def test_healthCheck(self) -> None:
        """
        A balancer's health check is neither served nor logged.
        """
        transport = self.serve(b"PROXY UNKNOWN\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.logged(), [])


def terminatedHeader(name: bytes) -> bytes:
    """
    @return: a header of version 2 for a verified client with this distinguished name.
    """
    tls = struct.pack(">BI", 3, 0) + b"\x22\0\2al"
    fields = struct.pack(">BH", 0x20, len(tls)) + tls + struct.pack(">BH", 0xE0, len(name)) + name
    addresses = bytes((203, 0, 113, 5, 198, 51, 100, 1)) + struct.pack(">HH", 1234, 16509)
    size = len(addresses + fields)
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", size) + addresses + fields


def encodedHostname() -> bytes:
    """
    @return: a call of C{CONNECT_GET_HOSTNAME}.
    """
    return packMessage(Message(REMOTE_PROGRAM, 1, 59, 0, 0, 0))


class TrustTests(ConnectionTestCase):
    """
    Tests for which peers may send headers.
    """

    def test_networks(self) -> None:
        """
        Over TCP, only headers from the given networks are accepted.
        """
        networks = "192.0.2.0/24,2001:db8::/32,198.51.100.7"
        expected: list[tuple[IAddress, bool]] = [
            (BALANCER, True),
            (IPv4Address("TCP", "198.51.100.7", 1), True),
            (IPv4Address("TCP", "198.51.100.8", 1), False),
            (IPv6Address("TCP", "2001:db8::1", 1), True),
            (IPv6Address("TCP", "2001:db9::1", 1), False),
            (IPv6Address("TCP", "::ffff:192.0.2.10", 1), True),
            (IPv6Address("TCP", "fe80::1%eth0", 1), False),
            (UNIXAddress("x"), True),
            (HostnameAddress(b"a", 1), False),
        ]
        for peer, believed in expected:
            transport = self.connect(f"proxy:tcp:16509:from={quoted(networks)}", peer)
            transport.protocol.dataReceived(LINE)
            self.assertEqual(bool(self.factory.addresses), believed, peer)
            lines = self.logged()
            self.assertEqual(len(lines), not believed)
            if not believed:
                self.assertIn("is not in from=", lines[0])

    def test_users(self) -> None:
        """
        On a UNIX socket, headers are accepted from the users given, or from everybody if none are.
        """
        peer: IAddress = UNIXAddress("x")
        for endpoint, believed in (("proxy:unix:x", True), ("proxy:unix:x:uid=0,1000", False)):
            transport = self.connect(endpoint, peer)
            transport.protocol.dataReceived(LINE)
            self.assertEqual(bool(self.factory.addresses), believed, endpoint)
        self.assertIn("the kernel does not tell who connected", self.logged()[0])
        for uid, known in ((1000, 1), (1001, 0)):
            self.patch(proxy, "unixCredentials", lambda _, uid=uid: UnixCredentials(1, uid, 1))
            transport = self.connect("proxy:unix:x:uid=0,1000", peer)
            transport.protocol.dataReceived(LINE)
            self.assertEqual(len(self.factory.addresses), known)
        self.assertIn("uid 1001 is not in uid=", self.logged()[0])

    def test_loopback(self) -> None:
        """
        Networks with loopback addresses, from which every local program can connect, are reported.
        """
        for network, includes in {
            "127.0.0.1": True,
            "::1": True,
            "0.0.0.0/0": True,
            "::/0": True,
            "192.0.2.0/24": False,
            "2001:db8::/32": False,
        }.items():
            endpoint: Any = serverFromString(
                MemoryReactorClock(), f"proxy:tcp:1:from={quoted(network)}"
            )
            self.assertEqual(endpoint.trust.includesLoopback, includes, network)
