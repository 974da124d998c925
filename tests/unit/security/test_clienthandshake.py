"""
Tests for L{kaproto.security.clienthandshake}.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport

from kaproto.security.handshake import CertificateRefused
from kaproto.security.tls import ClientContextFactory, examine
from tests.pki import Authority, distinguished
from tests.support_tls import Remembering, TLSTestCase

DAYS = dt.timedelta(days=1)
ALICE = distinguished("alice")


class ClientTests(TLSTestCase):
    """
    Tests for L{ClientContextFactory}.
    """

    def refusal(self, client: ClientContextFactory) -> str:
        """
        Connect to a server that the client refuses.

        @return: why it refuses the server's certificate.
        """
        _server, end = self.connect(self.serverContext(), client)
        self.assertIsInstance(end.lost, CertificateRefused)
        self.assertEqual(end.received, b"")
        return str(end.lost)

    def issued(self, *hosts: str) -> None:
        """
        Give the server a certificate for other hosts.
        """
        self.authority.write(
            str(self.directory), self.authority.issue(distinguished("server"), hosts=hosts)
        )

    def test_accepted(self) -> None:
        """
        A server is accepted by a name or an address in its certificate.
        """
        for host in ("host.test", "10.0.0.1"):
            _server, end = self.connect(self.serverContext(), self.clientContext(self.client, host))
            self.assertEqual(end.received, b"hello")
            self.assertIn("CN=server", str(examine(end.transport).dn))

    def test_otherName(self) -> None:
        """
        A name that is not in the certificate is refused, with the names that are.
        """
        self.assertEqual(
            self.refusal(self.clientContext(self.client, "other.test")),
            "the server's certificate is for host.test, 10.0.0.1, not for other.test; connect "
            "by a name that it is for",
        )

    def test_manyNames(self) -> None:
        """
        The error shows only a few of many long names.
        """
        self.issued(*(f"{'x' * 60}.{'y' * 60}.host{number}.test" for number in range(200)))
        message = self.refusal(self.clientContext(self.client))
        self.assertIn(" and 195 more, not for host.test", message)
        self.assertLess(len(message), 800)

    def test_wildcards(self) -> None:
        """
        A wildcard matches one label of a name; malformed names match nothing.
        """
        self.issued("*.example.test", "*", "a*b.example.test", "")
        for host in ("host.example.test", "HOST.Example.Test"):
            _server, end = self.connect(self.serverContext(), self.clientContext(self.client, host))
            self.assertEqual(end.received, b"hello")
        for host in ("example.test", "a.b.example.test", "test", "1234", "not a name", "h\u00f6st"):
            self.assertIn("not for", self.refusal(self.clientContext(self.client, host)))

    def test_zone(self) -> None:
        """
        The zone of an IPv6 address is ignored when the certificate is checked.
        """
        self.issued("fe80::1")
        client = self.clientContext(self.client, "fe80::1%eth0")
        _server, end = self.connect(self.serverContext(), client)
        self.assertEqual(end.received, b"hello")

    def test_malformed(self) -> None:
        """
        A certificate that cannot be parsed is refused.
        """

        def broken(_certificate: X509) -> object:
            raise ValueError("x" * 1000)

        context = self.clientContext(self.client)
        server = self.serverContext()
        self.patch(X509, "to_cryptography", broken)
        _server, end = self.connect(server, context)
        self.assertIn("the server's certificate is malformed: xxx", str(end.lost))
        self.assertLess(len(str(end.lost)), 200)

    def test_otherAddress(self) -> None:
        """
        An address that is not in the certificate is refused.
        """
        self.assertIn("not for 10.0.0.2", self.refusal(self.clientContext(self.client, "10.0.0.2")))

    def test_noNames(self) -> None:
        """
        A certificate without a subjectAltName is refused: the subject's common name does not count.
        """
        self.authority.write(
            str(self.directory), self.authority.issue([(NameOID.COMMON_NAME, "host.test")])
        )
        self.assertIn("has no subjectAltName", self.refusal(self.clientContext(self.client)))

    def test_otherAuthority(self) -> None:
        """
        A certificate from an authority that is not trusted is refused.
        """
        other = Authority("Other CA")
        files = self.clientFiles(other.issue(distinguished("alice")), other)
        self.assertEqual(
            self.refusal(ClientContextFactory(files, "host.test")),
            "the server's certificate is not signed by an authority (CA) that is trusted here",
        )

    def test_chain(self) -> None:
        """
        A server may send intermediate certificates between its own and the trusted authority.
        """
        between = Authority("Between", issuer=self.authority)
        server = between.issue(distinguished("server"), hosts=["host.test"])
        self.authority.write(str(self.directory), server)
        chain = server.certificatePEM + between.certificatePEM
        (self.directory / "libvirt/servercert.pem").write_bytes(chain)
        _server, end = self.connect(self.serverContext(), self.clientContext(self.client))
        self.assertEqual(end.received, b"hello")

    def test_unverified(self) -> None:
        """
        With C{verify=False} a client accepts any certificate.
        """
        other = Authority("Other CA")
        files = self.clientFiles(None, other)
        _server, end = self.connect(
            self.serverContext(verify=False),
            ClientContextFactory(files, "other.test", verify=False),
        )
        self.assertEqual(end.received, b"hello")

    def test_otherErrors(self) -> None:
        """
        TLS errors that are not about certificates are raised unchanged.
        """

        def broken(connection: SSL.Connection, *arguments: object) -> bytes:
            raise SSL.Error([("SSL routines", "", "tlsv1 alert internal error")])

        def empty(connection: SSL.Connection, *arguments: object) -> bytes:
            raise SSL.Error([])

        nobody: Any = None
        connection = self.clientContext(None).clientConnectionForTLS(nobody)
        for problem in (broken, empty):
            self.patch(SSL.Connection, "recv", problem)
            error = self.assertRaises(SSL.Error, connection.recv, 1)
            self.assertNotIsInstance(error, CertificateRefused)
        self.patch(SSL.Connection, "do_handshake", broken)
        error = self.assertRaises(SSL.Error, connection.do_handshake)
        self.assertNotIsInstance(error, CertificateRefused)

    def test_cutShort(self) -> None:
        """
        A connection that ends during the handshake is lost with Twisted's own error.
        """
        clock = Clock()
        factory = TLSMemoryBIOFactory(
            self.clientContext(None), True, Factory.forProtocol(Remembering), clock=clock
        )
        wrapper: Any = factory.buildProtocol(None)
        end = wrapper.wrappedProtocol
        wrapper.makeConnection(FakeTransport(wrapper, isServer=False))
        wrapper.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(end.lost, ConnectionDone | ConnectionLost)
