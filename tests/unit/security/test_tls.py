"""
Tests for L{kaproto.security.tls}.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from kaproto.security import tls
from kaproto.security.certificates import PKIError
from kaproto.security.handshake import CertificateRefused
from kaproto.security.tls import examine
from tests.der import certificateFor, name
from tests.pki import distinguished, forPSS
from tests.support_tls import Remembering, TLSTestCase


class ServerTests(TLSTestCase):
    """
    Tests for L{ServerContextFactory} with a protocol that checks certificates itself.
    """

    def test_accepted(self) -> None:
        """
        A client with a certificate from the authority is identified by DN and fingerprint.
        """
        server, client = self.connect(self.serverContext(), self.clientContext(self.client))
        identity = examine(server.transport)
        self.assertIsNone(identity.problem)
        self.assertEqual(identity.dn, "C=GB,ST=London,L=London,O=Red Hat,CN=alice")
        self.assertEqual(identity.fingerprint, hashlib.sha256(self.client.der).hexdigest())
        self.assertEqual(client.received, b"hello")

    def test_none(self) -> None:
        """
        A client without a certificate is reported.
        """
        self.assertEqual(self.problem(self.clientContext(None)), "it has no certificate")

    def test_noneWanted(self) -> None:
        """
        With C{verify=False} no client certificate is requested.
        """
        server, client = self.connect(
            self.serverContext(verify=False), self.clientContext(self.client)
        )
        self.assertEqual(examine(server.transport), tls.TLSIdentity(None, None, None))
        self.assertEqual(client.received, b"hello")

    def test_unusableName(self) -> None:
        """
        A certificate whose name has an empty value is reported, as libvirtd does.
        """
        nobody = [(NameOID.COMMON_NAME, "alice")]
        der = certificateFor(name([("2.5.4.3", 0x0C, b"")]))
        self.patch(tls, "dump_certificate", lambda _form, _certificate: der)
        end, _client = self.connect(
            self.serverContext(), self.clientContext(self.authority.issue(nobody))
        )
        identity = examine(end.transport)
        self.assertIsNone(identity.dn)
        self.assertEqual(identity.fingerprint, hashlib.sha256(der).hexdigest())
        self.assertIn("has no usable name", str(identity.problem))

    def test_version(self) -> None:
        """
        If OpenSSL sends session tickets, the newest version offered is TLS 1.2.
        """
        context = self.serverContext()
        self.assertEqual(context.version, "1.2")
        end, _client = self.connect(context, self.clientContext(self.client))
        self.assertEqual(end.transport.getHandle().get_protocol_version_name(), "TLSv1.2")

    def test_versionWithoutTickets(self) -> None:
        """
        If OpenSSL sends no tickets, TLS 1.3 is offered.
        """
        reads = iter([SSL.Connection.bio_read] * 3)

        def read(connection: SSL.Connection, size: int) -> bytes:
            try:
                return next(reads)(connection, size)
            except StopIteration:
                raise SSL.WantReadError from None

        unpatched = SSL.Connection.bio_read
        self.patch(SSL.Connection, "bio_read", read)
        context = self.serverContext()
        self.patch(SSL.Connection, "bio_read", unpatched)
        self.assertEqual(context.version, "1.3")
        end, _client = self.connect(context, self.clientContext(self.client))
        self.assertEqual(end.transport.getHandle().get_protocol_version_name(), "TLSv1.3")

    def test_pss(self) -> None:
        """
        A server's RSA key may be restricted to PSS signatures.
        """
        certificate, key = forPSS(self.authority, distinguished("server"), ["host.test"])
        (self.directory / "libvirt/servercert.pem").write_bytes(certificate)
        (self.directory / "libvirt/private/serverkey.pem").write_bytes(key)
        _server, client = self.connect(self.serverContext(), self.clientContext(self.client))
        self.assertEqual(client.received, b"hello")

    def test_unusableKey(self) -> None:
        """
        The error for a key that OpenSSL rejects names the file, and the previous files stay in use.
        """
        context = self.serverContext()

        def refuse(_context: SSL.Context, _key: object) -> None:
            raise SSL.Error([("SSL routines", "", "ee key too small")])

        unpatched = SSL.Context.use_privatekey
        self.patch(SSL.Context, "use_privatekey", refuse)
        with self.assertRaisesRegex(PKIError, "servercert.pem: OpenSSL cannot .*key too small"):
            context.reload()
        self.patch(SSL.Context, "use_privatekey", unpatched)
        self.assertIsNone(self.problem(self.clientContext(self.client), context))

    def test_noResumption(self) -> None:
        """
        A client cannot resume a TLS session: it has to send its certificate again, in both versions
        of TLS.
        """
        for tickets in (True, False):
            self.patch(tls, "_sendsTickets", lambda _context, tickets=tickets: tickets)
            server = self.serverContext()
            client = self.clientContext(self.client)
            _server, first = self.connect(server, client)
            session = first.transport.getHandle().get_session()
            make = client.clientConnectionForTLS

            def resuming(protocol: Any) -> SSL.Connection:
                connection = make(protocol)  # noqa: B023 - called at once
                connection.set_session(session)  # noqa: B023
                return connection

            self.patch(client, "clientConnectionForTLS", resuming)
            self.authority.write(str(self.directory), crl=self.authority.revoke(self.client))
            server.reload()
            end, _client = self.connect(server, client)
            self.assertEqual(examine(end.transport).problem, "its certificate has been revoked")
            (self.directory / "CA/cacrl.pem").unlink()

    def test_noAuthoritiesNamed(self) -> None:
        """
        Clients are not told which authorities are trusted.
        """
        _server, client = self.connect(self.serverContext(), self.clientContext(self.client))
        self.assertEqual(client.transport.getHandle().get_client_ca_list(), [])

    def test_reload(self) -> None:
        """
        After a reload, new connections use the new certificate.
        """
        context = self.serverContext()
        first, _client = self.connect(context, self.clientContext(self.client))
        renewed = self.authority.issue(distinguished("renewed"), hosts=["host.test"])
        self.authority.write(str(self.directory), renewed)
        context.reload()
        _server, client = self.connect(context, self.clientContext(self.client))
        self.assertIn("CN=renewed", str(examine(client.transport).dn))
        self.assertIsNone(first.lost)

    def test_reloadFindsRevocations(self) -> None:
        """
        A reload finds a CRL that did not exist before.
        """
        context = self.serverContext()
        self.authority.write(str(self.directory), crl=self.authority.revoke(self.client))
        context.reload()
        self.assertEqual(
            self.problem(self.clientContext(self.client), context),
            "its certificate has been revoked",
        )

    def test_reloadMissesRevocations(self) -> None:
        """
        A reload fails if the CRL is gone: without it a revoked client would be accepted again.
        """
        crl = self.directory / "CA/cacrl.pem"
        self.authority.write(str(self.directory), crl=self.authority.revoke(self.client))
        context = self.serverContext()
        crl.unlink()
        with self.assertRaisesRegex(PKIError, "cacrl.pem: the list .* is missing; put it back"):
            context.reload()
        self.assertIn("revoked", str(self.problem(self.clientContext(self.client), context)))
        crl.write_bytes(self.authority.revoke())
        context.reload()
        self.assertIsNone(self.problem(self.clientContext(self.client), context))

    def test_reloadFails(self) -> None:
        """
        A reload that fails keeps the previous files in use.
        """
        context = self.serverContext()
        (self.directory / "CA/cacert.pem").write_bytes(b"rubbish")
        self.assertRaises(PKIError, context.reload)
        self.assertIsNone(self.problem(self.clientContext(self.client), context))

    def test_unusable(self) -> None:
        """
        Without usable files the context factory cannot be created.
        """
        (self.directory / "CA/cacert.pem").unlink()
        self.assertRaises(PKIError, self.serverContext)


class OtherServerTests(TLSTestCase):
    """
    Tests for L{ServerContextFactory} with a protocol that does not check certificates, so the
    handshake has to.
    """

    def test_accepted(self) -> None:
        """
        A client with a valid certificate is served.
        """
        server, client = self.connect(
            self.serverContext(), self.clientContext(self.client), Remembering
        )
        self.assertIsNone(server.lost)
        self.assertEqual(client.received, b"hello")

    def test_none(self) -> None:
        """
        A client without a certificate is refused in the handshake.
        """
        server, client = self.connect(self.serverContext(), self.clientContext(None), Remembering)
        self.assertIsInstance(server.lost, CertificateRefused)
        self.assertEqual(str(server.lost), "the client has no certificate")
        self.assertEqual(client.received, b"")

    def test_bad(self) -> None:
        """
        A client with a revoked certificate is refused, and both ends report the reason.
        """
        self.authority.write(str(self.directory), crl=self.authority.revoke(self.client))
        server, client = self.connect(
            self.serverContext(), self.clientContext(self.client), Remembering
        )
        self.assertIsInstance(server.lost, CertificateRefused)
        self.assertEqual(str(server.lost), "the client's certificate has been revoked")
        self.assertIsInstance(client.lost, CertificateRefused)
        self.assertEqual(
            str(client.lost),
            "the server does not accept this client's certificate: certificate revoked",
        )

    def test_toldLate(self) -> None:
        """
        In TLS 1.3 a client learns of the refusal after its own handshake has completed.
        """
        self.patch(tls, "_sendsTickets", lambda _context: False)
        self.authority.write(str(self.directory), crl=self.authority.revoke(self.client))
        _server, client = self.connect(
            self.serverContext(), self.clientContext(self.client), Remembering
        )
        self.assertIsInstance(client.lost, CertificateRefused)

    def test_idleMemory(self) -> None:
        """
        OpenSSL releases the buffers of idle connections, on both ends: they would be most of a
        connection's memory.
        """
        server = self.serverContext()
        for context in (server._strict, server._lenient, self.clientContext(self.client)._context):
            self.assertTrue(context.set_mode(0) & SSL.MODE_RELEASE_BUFFERS)
