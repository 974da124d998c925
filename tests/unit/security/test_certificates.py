"""
Tests for L{kaproto.security.certificates}.
"""

from __future__ import annotations

import datetime as dt
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import Error as CryptoError
from OpenSSL.SSL import X509VerificationCodes
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security import certificates
from kaproto.security.certificates import PKIError, explainVerification, loadKeyMaterial
from kaproto.security.pki import CertificateFiles, clientFiles, serverFiles
from tests.pki import Authority, Identity, distinguished, forPSS

DAYS = dt.timedelta(days=1)


class KeyMaterialTests(SynchronousTestCase):
    """
    Tests for L{loadKeyMaterial}.
    """

    def setUp(self) -> None:
        """
        Make a folder with all that a server and a client need.
        """
        self.authority = Authority()
        self.server = self.authority.issue(distinguished("server"))
        self.client = self.authority.issue(distinguished("client"))
        self.directory = Path(self.mktemp())
        self.authority.write(str(self.directory), self.server, self.client)
        self.ca = self.directory / "CA/cacert.pem"
        self.crl = self.directory / "CA/cacrl.pem"
        self.certificate = self.directory / "libvirt/servercert.pem"
        self.key = self.directory / "libvirt/private/serverkey.pem"

    def files(self) -> CertificateFiles:
        """
        Find the server's files.
        """
        return serverFiles(self.directory)

    def assertRefused(self, path: Path, words: str, files: CertificateFiles | None = None) -> None:
        """
        Check that the files are refused with a message that begins with the path of the one that
        is wrong.
        """
        error = self.assertRaises(PKIError, loadKeyMaterial, files or self.files())
        self.assertTrue(str(error).startswith(f"{path}: "), str(error))
        self.assertIn(words, str(error))

    def use(self, server: Identity) -> None:
        """
        Give the server another certificate.
        """
        self.authority.write(str(self.directory), server)

    def test_server(self) -> None:
        """
        A server's files are read.
        """
        material = loadKeyMaterial(self.files())
        self.assertEqual(material.authorities, [self.authority.certificate])
        self.assertEqual(material.chain, [self.server.certificate])
        self.assertEqual(material.revocations, [])

    def test_client(self) -> None:
        """
        A client's files are read.
        """
        material = loadKeyMaterial(clientFiles(directory=self.directory, home=self.directory))
        self.assertEqual(material.chain, [self.client.certificate])

    def test_clientWithoutCertificate(self) -> None:
        """
        A client need not have a certificate.
        """
        material = loadKeyMaterial(CertificateFiles(self.ca, None, None, None, server=False))
        self.assertEqual(material.chain, [])
        self.assertIsNone(material.key)

    def test_keyIsNotShown(self) -> None:
        """
        The private key does not appear in the representation.
        """
        self.assertNotIn("key", repr(loadKeyMaterial(self.files())))

    def test_missing(self) -> None:
        """
        Of a file that is not there is said what it should hold.
        """
        for path, what in [
            (self.ca, "the certificate of the authority (CA)"),
            (self.certificate, "the server's certificate"),
            (self.key, "the server's private key"),
        ]:
            path.rename("aside")
            self.assertRefused(path, f"there is no such file; it should hold {what}")
            Path("aside").rename(path)

    def test_forbidden(self) -> None:
        """
        Of a file that may not be read is said by whom.
        """

        def refuse(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        self.patch(certificates, "readFile", refuse)
        self.assertRefused(self.ca, f"the user with uid {os.geteuid()} may not read it")

    def test_unreadable(self) -> None:
        """
        A file that cannot be read for another reason is named too.
        """
        self.key.unlink()
        self.key.mkdir()
        self.assertRefused(self.key, "cannot be read: Is a directory")

    def test_notPEM(self) -> None:
        """
        A file of another kind is named with what it should be.
        """
        for path, what in [
            (self.ca, "the certificate of the authority (CA)"),
            (self.certificate, "the server's certificate"),
            (self.key, "the server's private key"),
        ]:
            content = path.read_bytes()
            path.write_bytes(b"rubbish")
            self.assertRefused(path, f"this is not {what} in PEM")
            path.write_bytes(content)

    def test_encryptedKey(self) -> None:
        """
        There is nobody to ask for the passphrase of an encrypted key.
        """
        self.key.write_bytes(self.server.keyEncrypted(b"secret"))
        self.assertRefused(self.key, "the private key is encrypted")

    def test_otherKey(self) -> None:
        """
        The key has to be the one to the certificate.
        """
        self.key.write_bytes(self.client.keyPEM)
        self.assertRefused(
            self.key, f"not the private key of the certificate in {self.certificate}"
        )

    def test_expired(self) -> None:
        """
        A certificate that has expired is refused, with the date.
        """
        expired = self.authority.issue(distinguished("server"), start=-3 * DAYS, end=-DAYS)
        self.use(expired)
        day = f"{expired.certificate.not_valid_after_utc:%Y-%m-%d}"
        self.assertRefused(self.certificate, f"the certificate expired on {day}")

    def test_notYetValid(self) -> None:
        """
        So is one that is not valid yet.
        """
        self.use(self.authority.issue(distinguished("server"), start=DAYS, end=2 * DAYS))
        self.assertRefused(self.certificate, "is the clock right?")

    def test_expiredAuthority(self) -> None:
        """
        So is one of the authority's.
        """
        self.ca.write_bytes(Authority(start=-3 * DAYS, end=-DAYS).certificatePEM)
        self.assertRefused(self.ca, "the certificate expired")

    def test_otherAuthority(self) -> None:
        """
        The authority has to be the one that has signed the certificate.
        """
        self.ca.write_bytes(Authority("Other CA").certificatePEM)
        self.assertRefused(self.certificate, "is not signed by an authority (CA) that is trusted")

    def test_severalAuthorities(self) -> None:
        """
        The authority may be one of several.
        """
        other = Authority("Other CA")
        self.ca.write_bytes(other.certificatePEM + self.authority.certificatePEM)
        self.assertEqual(len(loadKeyMaterial(self.files()).authorities), 2)

    def test_chain(self) -> None:
        """
        An authority in between may have signed it, if its certificate follows in the file.
        """
        between = Authority("Between", issuer=self.authority)
        server = between.issue(distinguished("server"))
        self.use(server)
        self.assertRefused(self.certificate, "is not signed by")
        self.certificate.write_bytes(server.certificatePEM + between.certificatePEM)
        self.assertEqual(len(loadKeyMaterial(self.files()).chain), 2)

    def test_authorityThatAnotherSigned(self) -> None:
        """
        An authority may be trusted without the one that has signed its certificate.
        """
        between = Authority("Between", issuer=self.authority)
        self.use(between.issue(distinguished("server")))
        self.ca.write_bytes(between.certificatePEM)
        loadKeyMaterial(self.files())

    def test_purpose(self) -> None:
        """
        A certificate that is for clients only is of no use to a server.
        """
        self.use(
            self.authority.issue(distinguished("x"), purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
        )
        self.assertRefused(self.certificate, "with the extended key usage serverAuth")

    def test_clientPurpose(self) -> None:
        """
        Nor is one for servers only of any use to a client.
        """
        identity = self.authority.issue(
            distinguished("x"), purposes=[ExtendedKeyUsageOID.SERVER_AUTH]
        )
        flat = self.directory / "flat"
        self.authority.writeFlat(str(flat), identity)
        self.assertRefused(
            flat / "clientcert.pem", "with the extended key usage clientAuth", clientFiles(flat)
        )

    def test_anyPurpose(self) -> None:
        """
        A certificate may be for any purpose, or not say for which.
        """
        for purposes in ([], [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]):
            self.use(self.authority.issue(distinguished("x"), purposes=purposes))
            loadKeyMaterial(self.files())

    def test_revocations(self) -> None:
        """
        Lists of revoked certificates are read, several from one file.
        """
        other = Authority("Other CA")
        self.ca.write_bytes(self.authority.certificatePEM + other.certificatePEM)
        self.crl.write_bytes(self.authority.revoke(self.client) + other.revoke())
        material = loadKeyMaterial(self.files())
        self.assertEqual([len(each) for each in material.revocations], [1, 0])

    def test_revocationsNotPEM(self) -> None:
        """
        A file of another kind is refused.
        """
        self.crl.write_bytes(b"rubbish")
        self.assertRefused(self.crl, "this is not a list of revoked certificates (CRL) in PEM")

    def test_revocationsOfAnother(self) -> None:
        """
        So is the list of an authority that is not trusted, also if it has the same name.
        """
        for name in ("Other CA", "Test CA"):
            self.crl.write_bytes(Authority(name).revoke())
            self.assertRefused(self.crl, f"was not issued by any authority in {self.ca}")

    def test_revocationsExpired(self) -> None:
        """
        So is a list that has expired, since it would have everybody refused.
        """
        self.crl.write_bytes(self.authority.revoke(start=-3 * DAYS, end=-DAYS))
        self.assertRefused(self.crl, "the list of revoked certificates expired on")

    def test_revocationsOfTomorrow(self) -> None:
        """
        So is a list that is not valid yet.
        """
        self.crl.write_bytes(self.authority.revoke(start=DAYS, end=2 * DAYS))
        self.assertRefused(self.crl, "is not valid before")

    def test_malformed(self) -> None:
        """
        A certificate that is one by its form, and cannot be parsed when it is used, is refused.
        """
        for path, name in ((self.ca, b"\x0c\x07Test CA"), (self.certificate, b"\x0c\x06server")):
            whole = path.read_bytes()
            der = x509.load_pem_x509_certificate(whole).public_bytes(serialization.Encoding.DER)
            # A string type that there is not.
            tag = der.rindex(name)
            broken = der[:tag] + b"\x0a" + der[tag + 1 :]
            path.write_bytes(ssl.DER_cert_to_PEM_cert(broken).encode())
            self.assertRefused(path, "the certificate cannot be used: ")
            path.write_bytes(whole)

    def test_unusableAuthority(self) -> None:
        """
        So is an authority's that OpenSSL does not take.
        """

        def refuse(*_what: object) -> None:
            raise CryptoError([("x509 certificate routines", "", "unsupported algorithm")])

        self.patch(certificates, "trust", refuse)
        self.assertRefused(self.ca, "the certificate cannot be used: unsupported algorithm")

    def test_pss(self) -> None:
        """
        An RSA key may be for PSS only.
        """
        certificate, key = forPSS(self.authority, distinguished("server"))
        self.certificate.write_bytes(certificate)
        self.key.write_bytes(key)
        material = loadKeyMaterial(self.files())
        assert material.key is not None
        self.assertEqual(material.key.bits(), 2048)
        self.key.write_bytes(forPSS(self.authority, distinguished("server"))[1])
        self.assertRefused(self.key, "not the private key of the certificate")

    def test_keyThatCannotSign(self) -> None:
        """
        An authority whose key is of a kind that signs nothing has signed no list either.
        """
        self.crl.write_bytes(self.authority.revoke())
        now = dt.datetime.now(dt.UTC)
        odd = (
            x509.CertificateBuilder()
            .subject_name(self.authority.certificate.subject)
            .issuer_name(self.authority.certificate.subject)
            .public_key(x25519.X25519PrivateKey.generate().public_key())
            .serial_number(1)
            .not_valid_before(now - DAYS)
            .not_valid_after(now + DAYS)
            .sign(self.authority.key, hashes.SHA256())
        )
        self.ca.write_bytes(odd.public_bytes(serialization.Encoding.PEM))
        self.assertRefused(self.crl, f"was not issued by any authority in {self.ca}")


class ExplainTests(SynchronousTestCase):
    """
    Tests for L{explainVerification}.
    """

    def test_known(self) -> None:
        """
        What goes wrong in practice is said in words.
        """
        self.assertEqual(
            explainVerification(X509VerificationCodes.ERR_CERT_REVOKED), "has been revoked"
        )

    def test_unknown(self) -> None:
        """
        Anything else is said by its number.
        """
        self.assertIn("verification code 4711", explainVerification(4711))
