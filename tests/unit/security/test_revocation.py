"""
Tests for L{kaproto.security.revocation}.
"""

from __future__ import annotations

import datetime as dt
from typing import Any
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from kaproto.security import revocation
from kaproto.security.revocation import Revocations
from kaproto.security.tls import examine
from tests.pki import Authority, Identity, distinguished
from tests.support_tls import TLSTestCase

DAYS = dt.timedelta(days=1)
ALICE = distinguished("alice")
MISSING = (
    "its certificate cannot be checked, because its issuer's list of revoked certificates is "
    "missing"
)
REVOKED = "its certificate has been revoked"


class HandshakeTests(TLSTestCase):
    """
    Tests for a server that checks its authorities' CRLs.
    """

    def setUp(self) -> None:
        """
        Create an intermediate authority, and a client of each authority.
        """
        super().setUp()
        self.between = Authority("Between", issuer=self.authority)
        self.bob = self.authority.issue(distinguished("bob"))
        self.carol = self.between.issue(distinguished("carol"))

    def lists(self, *lists: bytes, trusted: bool = False) -> None:
        """
        Give the server these CRLs.

        @param trusted: whether the server trusts the intermediate authority itself.
        """
        self.authority.write(str(self.directory), crl=b"".join(lists))
        if trusted:
            path = self.directory / "CA/cacert.pem"
            path.write_bytes(path.read_bytes() + self.between.certificatePEM)

    def assertProblems(self, alice: str | None, bob: str | None, carol: str | None) -> None:
        """
        Check what the server reports for three clients, the last from the intermediate authority.
        OpenSSL's own check of the CRLs has to give the same.
        """
        clients = [
            self.anyClientContext(self.client),
            self.anyClientContext(self.bob),
            self.anyClientContext(self.carol, [self.between]),
        ]
        ours = self.serverContext()
        self.assertIsNotNone(ours._revocations)
        with mock.patch.object(revocation, "_isPlain", return_value=False):
            openSSL = self.serverContext()
        self.assertIsNone(openSSL._revocations)
        for server in (ours, openSSL):
            problems = tuple(self.problem(client, server) for client in clients)
            self.assertEqual(problems, (alice, bob, carol), server._revocations)

    def test_listed(self) -> None:
        """
        A certificate on its issuer's CRL is refused, and others of that issuer are accepted. A
        certificate whose issuer has no CRL is refused.
        """
        self.lists(self.authority.revoke(self.client))
        self.assertProblems(REVOKED, None, MISSING)

    def test_cost(self) -> None:
        """
        OpenSSL is not given the CRL, so that no handshake hashes it.
        """
        self.lists(self.authority.revoke(self.client))
        server = self.serverContext()
        server._revocations = None
        self.assertIsNone(self.problem(self.anyClientContext(self.client), server))

    def test_empty(self) -> None:
        """
        An empty CRL refuses only certificates of other issuers.
        """
        self.lists(self.authority.revoke())
        self.assertProblems(None, None, MISSING)

    def test_otherSigner(self) -> None:
        """
        Only the CRL of the certificate's own issuer is needed.
        """
        self.lists(self.between.revoke(self.client), trusted=True)
        self.assertProblems(MISSING, MISSING, None)
        self.lists(self.between.revoke(self.carol), trusted=True)
        self.assertProblems(MISSING, MISSING, REVOKED)

    def test_renewed(self) -> None:
        """
        Of two CRLs from one authority, the later one is used.
        """
        lists = [
            self.authority.revoke(self.client, start=-3 * DAYS, end=2 * DAYS),
            self.authority.revoke(self.bob, start=-2 * DAYS),
        ]
        for order in (lists, lists[::-1]):
            self.lists(*order)
            self.assertProblems(None, REVOKED, MISSING)

    def test_revokedSigner(self) -> None:
        """
        A certificate whose issuer was revoked is refused for that reason, even if other CRLs are
        missing.
        """
        self.lists(self.authority.revoke(self.between))
        self.assertEqual(
            self.problem(self.anyClientContext(self.carol, [self.between])),
            "its certificate is signed by an authority whose certificate has been revoked",
        )

    def test_partial(self) -> None:
        """
        CRLs with a limited scope are left to OpenSSL.
        """
        point = x509.IssuingDistributionPoint(
            full_name=None,
            relative_name=None,
            only_contains_user_certs=True,
            only_contains_ca_certs=False,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        )
        self.lists(self.authority.revoke(self.client, extension=point))
        server = self.serverContext()
        self.assertIsNone(server._revocations)
        # With an old pyOpenSSL, the handshake fails here.
        end, _client = self.connect(server, self.anyClientContext(self.client))
        why = examine(end.transport).problem if end.done else str(end.lost)
        self.assertIn("certificate has been revoked", str(why))
        end, _client = self.connect(server, self.anyClientContext(self.bob))
        if end.done:
            self.assertIsNone(examine(end.transport).problem)
        else:
            # An old OpenSSL requires a CRL for authorities' certificates, too.
            self.assertIn("verification code 44", str(end.lost))
        malformed: Any = mock.Mock()
        type(malformed).extensions = mock.PropertyMock(side_effect=ValueError)
        self.assertIsNone(Revocations.fromLists([malformed], []))


class LookUpTests(TLSTestCase):
    """
    Tests for L{Revocations}.
    """

    def revocations(self, *identities: Identity, trusted: Authority | None = None) -> Revocations:
        """
        @param identities: the revoked certificates.
        @param trusted: an authority that is trusted besides the issuer.
        """
        crl = x509.load_pem_x509_crl(self.authority.revoke(*identities))
        authorities = [self.authority.certificate, *([trusted.certificate] if trusted else [])]
        found = Revocations.fromLists([crl], authorities)
        assert found is not None
        return found

    def problem(self, revocations: Revocations) -> int | None:  # type: ignore[override]
        """
        @return: the verification code for the client's certificate, C{None} if it is good.
        """
        certificate = self.client.certificate
        return revocations.problem(
            certificate.fingerprint(SHA256()),
            certificate.serial_number,
            self.authority.certificate.fingerprint(SHA256()),
        )

    def test_time(self) -> None:
        """
        If the CRL has expired, or is not valid yet, since it was loaded, every certificate is
        refused.
        """
        revocations = self.revocations()
        self.assertIsNone(self.problem(revocations))
        now = dt.datetime.now(dt.UTC)
        for when, code in ((now + 2 * DAYS, 12), (now - 2 * DAYS, 11)):
            with mock.patch.object(revocation, "dt") as clock:
                clock.datetime.now.return_value = when
                self.assertEqual(self.problem(revocations), code)

    def test_trustedAndRevoked(self) -> None:
        """
        A trusted authority that is on another authority's CRL is refused.
        """
        between = Authority("Between", issuer=self.authority)
        for listed, code in (([], 3), ([between], 23)):
            revocations = self.revocations(*listed, trusted=between)
            certificate = between.certificate
            found = revocations.problem(
                certificate.fingerprint(SHA256()), certificate.serial_number, None
            )
            self.assertEqual(found, code)
