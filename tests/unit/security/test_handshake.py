"""
Tests for L{kaproto.security.handshake}.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP521R1,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, load_certificate
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security import handshake, tls
from kaproto.security.handshake import (
    AUTHORITIES_MAX,
    CertificateRefused,
    explainTLS,
    isUsual,
    verified,
)
from kaproto.security.tls import examine
from tests.pki import Authority, Identity, certificateOf, distinguished
from tests.support_tls import TLSTestCase

DAYS = dt.timedelta(days=1)
ALICE = distinguished("alice")


class VerificationTests(TLSTestCase):
    """
    Tests for a server that verifies its clients' certificates.
    """

    def test_otherAuthority(self) -> None:
        """
        A certificate that another authority has signed is refused, even if the names are equal.
        """
        for other in (Authority("Other CA"), Authority("Test CA")):
            self.assertEqual(
                self.problem(self.anyClientContext(other.issue(distinguished("alice")))),
                "its certificate is not signed by an authority (CA) that is trusted here",
            )

    def test_signedByItself(self) -> None:
        """
        A self-signed certificate is refused.
        """
        self.assertEqual(
            self.problem(self.anyClientContext(Authority("alice"))),
            "its certificate is not signed by an authority (CA) that is trusted here",
        )

    def test_expired(self) -> None:
        """
        An expired certificate is refused.
        """
        expired = self.authority.issue(distinguished("alice"), start=-3 * DAYS, end=-DAYS)
        self.assertEqual(
            self.problem(self.anyClientContext(expired)), "its certificate has expired"
        )

    def test_notYetValid(self) -> None:
        """
        A certificate that is not valid yet is refused.
        """
        early = self.authority.issue(distinguished("alice"), start=DAYS, end=2 * DAYS)
        self.assertEqual(
            self.problem(self.anyClientContext(early)), "its certificate is not valid yet"
        )

    def test_inPieces(self) -> None:
        """
        A handshake may arrive in small pieces, with a good certificate or a bad one.
        """
        other = Authority("Other CA").issue(distinguished("alice"))
        for pieces in (1, 100):
            for client, good in ((self.client, True), (other, False)):
                server, _client = self.connect(
                    self.serverContext(), self.anyClientContext(client), pieces=pieces
                )
                self.assertIsNone(server.lost)
                self.assertTrue(server.done)
                self.assertEqual(examine(server.transport).problem is None, good)

    def test_twoProblems(self) -> None:
        """
        Of two problems only one is reported.
        """
        other = Authority("Other CA").issue(distinguished("a"), start=-3 * DAYS, end=-DAYS)
        self.assertIn("is not signed by", str(self.problem(self.anyClientContext(other))))

    def test_purpose(self) -> None:
        """
        A certificate with an extended key usage for servers only is refused.
        """
        wrong = self.authority.issue(
            distinguished("alice"), purposes=[ExtendedKeyUsageOID.SERVER_AUTH]
        )
        self.assertIn("is not meant for", str(self.problem(self.anyClientContext(wrong))))

    def test_between(self) -> None:
        """
        A certificate from an intermediate authority is accepted, if the authority's own is valid.
        """
        between = Authority("Between", issuer=self.authority)
        client = self.anyClientContext(between.issue(distinguished("alice")), [between])
        self.assertIsNone(self.problem(client))
        expired = Authority("Between", issuer=self.authority, start=-3 * DAYS, end=-DAYS)
        client = self.anyClientContext(expired.issue(distinguished("alice")), [expired])
        self.assertEqual(
            self.problem(client),
            "its certificate is signed by an authority whose certificate has expired",
        )


class StrangerTests(TLSTestCase):
    """
    Tests for a server whose client has a certificate from an untrusted authority.
    """

    def setUp(self) -> None:
        """
        Record what OpenSSL reports.
        """
        super().setUp()
        self.reported: list[tuple[int, bool]] = []

        def note(
            connection: SSL.Connection, certificate: X509, error: int, depth: int, good: int
        ) -> bool:
            self.reported.append((depth, bool(good)))
            return verified(connection, certificate, error, depth, good)

        self.patch(tls, "verified", note)

    def test_withAuthorities(self) -> None:
        """
        If a stranger sends more than one certificate, the handshake ends at the first problem. No
        signature is checked with a key that no trusted authority has signed.
        """
        stranger = Authority("Stranger")
        between = Authority("Between", issuer=stranger)
        forged = Authority("Forged", issuer=self.authority, forged=True)
        below = Authority("Below", issuer=forged)
        chains: list[tuple[Identity, Sequence[Identity], list[tuple[int, bool]]]] = [
            (stranger.issue(ALICE), [stranger], [(1, False)]),
            (between.issue(ALICE), [between], [(1, False)]),
            (between.issue(ALICE), [between, stranger], [(2, False)]),
            # OpenSSL reports the trusted authority first, as valid.
            (forged.issue(ALICE), [forged], [(2, True), (1, False)]),
            (below.issue(ALICE), [below, forged], [(3, True), (2, False)]),
        ]
        for identity, others, reported in chains:
            self.reported.clear()
            client = self.anyClientContext(identity, others)
            server, end = self.connect(self.serverContext(), client)
            self.assertEqual(self.reported, reported)
            self.assertFalse(server.done)
            self.assertIsInstance(server.lost, CertificateRefused)
            self.assertEqual(
                str(server.lost),
                "the client's certificate is not signed by an authority (CA) that is trusted here",
            )
            self.assertIsInstance(end.lost, SSL.Error)

    def test_alone(self) -> None:
        """
        If a stranger sends a single certificate, the handshake completes, with the problem.
        """
        for identity in (
            Authority("Stranger").issue(ALICE),
            Authority("Stranger"),
            self.authority.issue(ALICE, forged=True),
        ):
            self.assertIn("is not signed by", str(self.problem(self.anyClientContext(identity))))

    def test_unusualKey(self) -> None:
        """
        If a stranger's single certificate has an unusual key, the handshake ends.
        """
        self.patch(handshake, "isUsual", lambda _certificate: False)
        identity = Authority("Stranger").issue(ALICE)
        server, _end = self.connect(self.serverContext(), self.anyClientContext(identity))
        self.assertIsInstance(server.lost, CertificateRefused)
        # A trusted authority has signed this client's key, so it may be unusual.
        self.assertIsNone(self.problem(self.anyClientContext(self.client)))

    def test_longChain(self) -> None:
        """
        The number of intermediate authorities is limited.
        """
        chain = [self.authority]
        for number in range(AUTHORITIES_MAX + 1):
            chain.append(Authority(f"CA {number}", issuer=chain[-1]))
        longest, tooLong = (
            self.anyClientContext(chain[count].issue(ALICE), chain[1 : count + 1])
            for count in (AUTHORITIES_MAX, AUTHORITIES_MAX + 1)
        )
        self.assertIsNone(self.problem(longest))
        server, _end = self.connect(self.serverContext(), tooLong)
        self.assertEqual(
            str(server.lost),
            "the client's certificate has too many authorities between it and a trusted one",
        )

    def test_isUsual(self) -> None:
        """
        Common keys are usual; those whose signatures take long to check are not.
        """
        modulus = (1 << 2047) + 1

        def rsa(exponent: int, modulus: int = modulus) -> RSAPublicKey:
            return RSAPublicNumbers(exponent, modulus).public_key()

        keys: list[tuple[CertificatePublicKeyTypes, bool]] = [
            (generate_private_key(SECP256R1()).public_key(), True),
            (generate_private_key(SECP521R1()).public_key(), True),
            (Ed25519PrivateKey.generate().public_key(), True),
            (Ed448PrivateKey.generate().public_key(), True),
            (rsa(65537), True),
            (rsa((1 << 63) + 1), True),
            (rsa((1 << 64) + 1), False),
            (rsa((1 << 2046) + 1), False),
            (rsa(65537, (1 << 8191) + 1), True),
            (rsa(65537, (1 << 8192) + 1), False),
            (X25519PrivateKey.generate().public_key(), False),
        ]
        for key, usual in keys:
            self.assertEqual(isUsual(X509.from_cryptography(certificateOf(key))), usual, key)

    def test_isUsualBroken(self) -> None:
        """
        A key that cannot be parsed is not usual.
        """
        der = bytearray(self.client.der)
        at = der.index(bytes.fromhex("2a8648ce3d030107"))
        der[at + 7] = 0x63
        self.assertFalse(isUsual(load_certificate(FILETYPE_ASN1, bytes(der))))


class ExplainTests(SynchronousTestCase):
    """
    Tests for L{explainTLS}.
    """

    def test_queue(self) -> None:
        """
        The last error in OpenSSL's queue is explained.
        """
        error = SSL.Error([("a", "b", "first"), ("a", "b", "wrong version number")])
        self.assertEqual(
            explainTLS(error), "the other end does not speak TLS (wrong version number)"
        )
        error = SSL.Error([("a", "b", "no shared cipher")])
        self.assertEqual(explainTLS(error), "no shared cipher")

    def test_others(self) -> None:
        """
        Other errors are shown by their own text.
        """
        self.assertEqual(explainTLS(CertificateRefused("no")), "no")
        self.assertEqual(explainTLS(SSL.Error()), "")
        self.assertEqual(explainTLS(ConnectionDone("bye")), "Connection was closed cleanly: bye.")
