"""
Tests for L{kaproto.security.endpoints}.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor, MemoryReactorClock, StringTransport
from twisted.plugin import getPlugins
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.certificates import PKIError
from kaproto.security.endpoints import (
    TLSClientEndpoint,
    TLSServerEndpoint,
    serverEndpoint,
    transportOf,
    whyNotServed,
)
from kaproto.security.pki import PKI_DIRECTORY, clientFiles
from kaproto.security.tls import ClientContextFactory
from kaproto.security.tlslayer import TLSLayer
from tests.pki import Authority, distinguished


class LibvirtTLSTests(SynchronousTestCase):
    """
    Tests for the endpoint string C{libvirttls:}.
    """

    def setUp(self) -> None:
        """
        Write a server's certificate files.
        """
        authority = Authority()
        self.directory = Path(self.mktemp()).absolute()
        self.identity = authority.issue(distinguished("server"))
        authority.write(str(self.directory), self.identity)
        self.reactor = MemoryReactorClock()

    def parse(self, rest: str = "") -> TLSServerEndpoint:
        """
        Parse an endpoint string that uses these files.
        """
        endpoint: Any = serverFromString(
            self.reactor, f"libvirttls:16514:pki={self.directory}{rest}"
        )
        self.assertIsInstance(endpoint, TLSServerEndpoint)
        assert isinstance(endpoint, TLSServerEndpoint)
        return endpoint

    def listen(self, rest: str = "") -> tuple[Any, ...]:
        """
        Listen.

        @return: port, factory, backlog and interface.
        """
        factory = Factory()
        self.successResultOf(self.parse(rest).listen(factory))
        server: tuple[Any, ...] = self.reactor.tcpServers[-1]
        self.assertIsInstance(server[1], TLSMemoryBIOFactory)
        self.assertIs(server[1].wrappedFactory, factory)
        return server

    def test_installed(self) -> None:
        """
        Twisted finds the parser.
        """
        parsers: list[Any] = list(getPlugins(IStreamServerEndpointStringParser))
        self.assertTrue(any(parser.prefix == "libvirttls" for parser in parsers))

    def test_cheap(self) -> None:
        """
        Importing the parser does not import the TLS modules.
        """
        code = (
            "import sys\n"
            "import kaproto.security.endpoints\n"
            "names = 'kaproto.security.tls', 'service_identity'\n"
            "print([name for name in sys.modules if name in names])\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent.parent,
        )
        self.assertEqual(result.stdout, "[]\n")

    def test_listens(self) -> None:
        """
        By default the endpoint listens on all addresses, with a long backlog.
        """
        port, _factory, backlog, interface = self.listen()
        self.assertEqual((port, backlog, interface), (16514, 1024, ""))

    def test_where(self) -> None:
        """
        C{interface} and C{backlog} are passed to the reactor.
        """
        _port, _factory, backlog, interface = self.listen(":interface=127.0.0.1:backlog=7")
        self.assertEqual((backlog, interface), (7, "127.0.0.1"))

    def test_sixth(self) -> None:
        """
        C{interface} may be an IPv6 address.
        """
        self.assertEqual(self.listen(":interface=\\:\\:1")[3], "::1")

    def test_defaults(self) -> None:
        """
        Without arguments, libvirt's folder is used.
        """
        if PKI_DIRECTORY.joinpath("libvirt/servercert.pem").exists():
            self.skipTest("this machine has certificates of its own")
        with self.assertRaisesRegex(PKIError, "/etc/pki/CA/cacert.pem: there is no such file"):
            serverEndpoint(self.reactor, [], {})

    def test_files(self) -> None:
        """
        C{ca}, C{cert} and C{key} replace single files.
        """
        for key, name in [("ca", "CA/cacert.pem"), ("cert", "libvirt/servercert.pem")]:
            (self.directory / name).rename(self.directory / "other.pem")
            self.assertRaises(PKIError, self.parse)
            self.parse(f":{key}={self.directory}/other.pem")
            (self.directory / "other.pem").rename(self.directory / name)
        (self.directory / "libvirt/private/serverkey.pem").rename(self.directory / "other.pem")
        self.parse(f":key={self.directory}/other.pem")

    def test_crl(self) -> None:
        """
        A CRL file that is named must exist.
        """
        with self.assertRaisesRegex(PKIError, "nothere.pem: there is no such file"):
            self.parse(":crl=nothere.pem")

    def test_verify(self) -> None:
        """
        Clients need certificates unless C{verify=no}.
        """
        self.assertTrue(self.parse().contextFactory.verify)
        self.assertTrue(self.parse(":verify=yes").contextFactory.verify)
        self.assertFalse(self.parse(":verify=no").contextFactory.verify)

    def test_mistakes(self) -> None:
        """
        Errors name the argument that is wrong and what is allowed.
        """
        for rest, words in [
            (":verify=maybe", "verify is yes or no, not 'maybe'"),
            (":backlog=many", "backlog is a whole number from 1 to 2147483647, not 'many'"),
            (":backlog=0", "backlog is a whole number from 1 to 2147483647, not '0'"),
            (":backlog=-1", "backlog is a whole number from 1 to 2147483647, not '-1'"),
            (":interface=here", "interface is an IP address of this machine, not 'here'"),
            (":interface=1.2.3", "interface is an IP address of this machine, not '1.2.3'"),
            (":ca=", "ca= needs a path"),
            (":crl=", "crl= needs a path"),
            (":/etc/pki", "takes a port, then NAME=VALUE; '/etc/pki' has no name"),
            (":certs=x", "there is no certs=; there are backlog, ca, cert, crl, interface, key, "),
        ]:
            with self.assertRaisesRegex(ValueError, words):
                self.parse(rest)
        for port in ("x", "65536", "-1", "\N{ARABIC-INDIC DIGIT ONE}"):
            with self.assertRaisesRegex(ValueError, "port is a whole number from 0 to 65535, not"):
                serverEndpoint(self.reactor, [port], {"pki": str(self.directory)})
        with self.assertRaisesRegex(ValueError, "pki= needs a path"):
            serverEndpoint(self.reactor, [], {"pki": ""})

    def test_timelessReactor(self) -> None:
        """
        A reactor without L{IReactorTime<twisted.internet.interfaces.IReactorTime>} is accepted.
        """
        endpoint = serverEndpoint(MemoryReactor(), [], {"pki": str(self.directory)})
        self.assertIsInstance(endpoint, TLSServerEndpoint)


class ClientTests(SynchronousTestCase):
    """
    Tests for L{TLSClientEndpoint}.
    """

    def test_connects(self) -> None:
        """
        The endpoint connects with TLS, and returns the protocol of the factory it was given.
        """
        directory = Path(self.mktemp())
        Authority().writeFlat(str(directory))
        reactor = MemoryReactorClock()
        endpoint = TLSClientEndpoint(
            TCP4ClientEndpoint(reactor, "192.0.2.1", 16514),
            ClientContextFactory(clientFiles(directory), "host.test"),
            reactor,
        )
        connected = endpoint.connect(Factory.forProtocol(Protocol))
        self.assertEqual(reactor.tcpClients[0][:2], ("192.0.2.1", 16514))
        layer: Any = reactor.tcpClients[0][2].buildProtocol(None)
        transport = StringTransport()
        layer.makeConnection(transport)
        protocol = self.successResultOf(connected)
        assert isinstance(protocol, Protocol)
        self.assertIsInstance(protocol.transport, TLSLayer)
        self.assertEqual(transport.value()[:2], b"\x16\x03")


class WhyNotServedTests(SynchronousTestCase):
    """
    Tests for L{whyNotServed}.
    """

    def test_not(self) -> None:
        """
        Twisted's own TLS endpoints, and PROXY headers inside TLS, are not supported; the reason
        names the endpoint to use.
        """
        for description, words in [
            ("ssl:443:privateKey=x", "use libvirttls:PORT, with ca="),
            ("tls:/x:port=443", "tls: is TLS that libvirt's clients do not speak"),
            ("proxy:ssl:443:from=192.0.2.1", "use libvirttls:PORT"),
            ("haproxy:libvirttls:16514", "use proxy:libvirttls:PORT:from=NETWORK"),
            ("keepalive:haproxy:libvirttls", "use proxy:libvirttls:PORT:from=NETWORK"),
            ("haproxy:tcp:16509", "use proxy:tcp:PORT:from=NETWORK"),
            ("haproxy:unix:/x", "use proxy:unix:PATH"),
        ]:
            self.assertIn(words, str(whyNotServed(description)))

    def test_served(self) -> None:
        """
        Other endpoints are supported, as far as their names tell.
        """
        for description in (
            "libvirttls:16514",
            "proxy:libvirttls:16514:from=192.0.2.1",
            "tcp:16509",
            "proxy:tcp:16509:from=192.0.2.1",
            "unix:/run/tls",
            "proxy",
            "",
        ):
            self.assertIsNone(whyNotServed(description))


class TransportOfTests(SynchronousTestCase):
    """
    Tests for L{transportOf}.
    """

    def test_kinds(self) -> None:
        """
        Endpoints that are not known to be TLS or UNIX count as TCP.
        """
        for description, transport in [
            ("libvirttls:16514", "tls"),
            ("ssl:443:privateKey=x", "tls"),
            ("tls:/dir:port=443", "tls"),
            ("unix:/run/x", "unix"),
            ("proxy:unix:/run/x", "unix"),
            ("systemd:domain=UNIX:name=x", "unix"),
            ("systemd:domain=INET:name=x", "tcp"),
            ("tcp:16509", "tcp"),
            ("tcp6:16509", "tcp"),
            ("16509", "tcp"),
            ("whatever", "tcp"),
        ]:
            self.assertEqual(transportOf(description), transport, description)
