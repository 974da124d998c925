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
        Write a folder with an authority's files, a server's and a client's.
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
        @return: the server's files.
        """
        return serverFiles(self.directory)

    def assertRefused(self, path: Path, words: str, files: CertificateFiles | None = None) -> None:
        """
        Check that the files are refused, with a message that begins with the faulty file's path.
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
        A server's files are loaded, without a CRL if there is none.
        """
        material = loadKeyMaterial(self.files())
        self.assertEqual(material.authorities, [self.authority.certificate])
        self.assertEqual(material.chain, [self.server.certificate])
        self.assertEqual(material.revocations, [])

    def test_client(self) -> None:
        """
        A client's files are loaded.
        """
        material = loadKeyMaterial(clientFiles(directory=self.directory, home=self.directory))
        self.assertEqual(material.chain, [self.client.certificate])

    def test_clientWithoutCertificate(self) -> None:
        """
        A client's certificate and key are optional.
        """
        material = loadKeyMaterial(CertificateFiles(self.ca, None, None, None, server=False))
        self.assertEqual(material.chain, [])
        self.assertIsNone(material.key)

    def test_keyIsNotShown(self) -> None:
        """
        The private key is not in C{repr()}.
        """
        self.assertNotIn("key", repr(loadKeyMaterial(self.files())))

    def test_missing(self) -> None:
        """
        The error for a missing file says what the file should contain.
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
        The error for a file without read permission has the uid of this process.
        """

        def refuse(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        self.patch(certificates, "readFile", refuse)
        self.assertRefused(self.ca, f"the user with uid {os.geteuid()} may not read it")

    def test_unreadable(self) -> None:
        """
        Other errors in reading a file have its path and the reason.
        """
        self.key.unlink()
        self.key.mkdir()
        self.assertRefused(self.key, "cannot be read: Is a directory")

    def test_notPEM(self) -> None:
        """
        The error for a file that is not PEM says what the file should contain.
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
        An encrypted private key is refused, since a server has nobody to ask for the passphrase.
        """
        self.key.write_bytes(self.server.keyEncrypted(b"secret"))
        self.assertRefused(self.key, "the private key is encrypted")

    def test_otherKey(self) -> None:
        """
        A private key that does not belong to the certificate is refused.
        """
        self.key.write_bytes(self.client.keyPEM)
        self.assertRefused(
            self.key, f"not the private key of the certificate in {self.certificate}"
        )

    def test_expired(self) -> None:
        """
        An expired certificate is refused, with its date.
        """
        expired = self.authority.issue(distinguished("server"), start=-3 * DAYS, end=-DAYS)
        self.use(expired)
        day = f"{expired.certificate.not_valid_after_utc:%Y-%m-%d}"
        self.assertRefused(self.certificate, f"the certificate expired on {day}")

    def test_notYetValid(self) -> None:
        """
        A certificate that is not valid yet is refused.
        """
        self.use(self.authority.issue(distinguished("server"), start=DAYS, end=2 * DAYS))
        self.assertRefused(self.certificate, "is the clock right?")

    def test_expiredAuthority(self) -> None:
        """
        An expired certificate of the authority is refused.
        """
        self.ca.write_bytes(Authority(start=-3 * DAYS, end=-DAYS).certificatePEM)
        self.assertRefused(self.ca, "the certificate expired")

    def test_otherAuthority(self) -> None:
        """
        A certificate that a different authority has signed is refused.
        """
        self.ca.write_bytes(Authority("Other CA").certificatePEM)
        self.assertRefused(self.certificate, "is not signed by an authority (CA) that is trusted")

    def test_severalAuthorities(self) -> None:
        """
        The authority's file may have several certificates.
        """
        other = Authority("Other CA")
        self.ca.write_bytes(other.certificatePEM + self.authority.certificatePEM)
        self.assertEqual(len(loadKeyMaterial(self.files()).authorities), 2)

    def test_chain(self) -> None:
        """
        A certificate from an intermediate authority is accepted if that authority's certificate
        follows in the same file.
        """
        between = Authority("Between", issuer=self.authority)
        server = between.issue(distinguished("server"))
        self.use(server)
        self.assertRefused(self.certificate, "is not signed by")
        self.certificate.write_bytes(server.certificatePEM + between.certificatePEM)
        self.assertEqual(len(loadKeyMaterial(self.files()).chain), 2)

    def test_authorityThatAnotherSigned(self) -> None:
        """
        An intermediate authority can be trusted without its root.
        """
        between = Authority("Between", issuer=self.authority)
        self.use(between.issue(distinguished("server")))
        self.ca.write_bytes(between.certificatePEM)
        loadKeyMaterial(self.files())

    def test_purpose(self) -> None:
        """
        A server's certificate with an extended key usage for clients only is refused.
        """
        self.use(
            self.authority.issue(distinguished("x"), purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
        )
        self.assertRefused(self.certificate, "with the extended key usage serverAuth")

    def test_clientPurpose(self) -> None:
        """
        A client's certificate with an extended key usage for servers only is refused.
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
        A certificate may have the usage C{anyExtendedKeyUsage}, or no extended key usage.
        """
        for purposes in ([], [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]):
            self.use(self.authority.issue(distinguished("x"), purposes=purposes))
            loadKeyMaterial(self.files())

    def test_revocations(self) -> None:
        """
        A file may have the CRLs of several authorities.
        """
        other = Authority("Other CA")
        self.ca.write_bytes(self.authority.certificatePEM + other.certificatePEM)
        self.crl.write_bytes(self.authority.revoke(self.client) + other.revoke())
        material = loadKeyMaterial(self.files())
        self.assertEqual([len(each) for each in material.revocations], [1, 0])

    def test_revocationsNotPEM(self) -> None:
        """
        A CRL file that is not PEM is refused.
        """
        self.crl.write_bytes(b"rubbish")
        self.assertRefused(self.crl, "this is not a list of revoked certificates (CRL) in PEM")

    def test_revocationsOfAnother(self) -> None:
        """
        A CRL from an untrusted authority is refused, even if its name is that of a trusted one.
        """
        for name in ("Other CA", "Test CA"):
            self.crl.write_bytes(Authority(name).revoke())
            self.assertRefused(self.crl, f"was not issued by any authority in {self.ca}")

    def test_revocationsExpired(self) -> None:
        """
        An expired CRL is refused, since it would make OpenSSL refuse every client.
        """
        self.crl.write_bytes(self.authority.revoke(start=-3 * DAYS, end=-DAYS))
        self.assertRefused(self.crl, "the list of revoked certificates expired on")

    def test_revocationsOfTomorrow(self) -> None:
        """
        A CRL that is not valid yet is refused.
        """
        self.crl.write_bytes(self.authority.revoke(start=DAYS, end=2 * DAYS))
        self.assertRefused(self.crl, "is not valid before")

    def test_malformed(self) -> None:
        """
        A certificate with valid PEM and malformed content is refused.
        """
        for path, name in ((self.ca, b"\x0c\x07Test CA"), (self.certificate, b"\x0c\x06server")):
            whole = path.read_bytes()
            der = x509.load_pem_x509_certificate(whole).public_bytes(serialization.Encoding.DER)
            # 0x0a is not a string type.
            tag = der.rindex(name)
            broken = der[:tag] + b"\x0a" + der[tag + 1 :]
            path.write_bytes(ssl.DER_cert_to_PEM_cert(broken).encode())
            self.assertRefused(path, "the certificate cannot be used: ")
            path.write_bytes(whole)

    def test_unusableAuthority(self) -> None:
        """
        An authority's certificate that OpenSSL rejects is refused.
        """

        def refuse(*_what: object) -> None:
            raise CryptoError([("x509 certificate routines", "", "unsupported algorithm")])

        self.patch(certificates, "trust", refuse)
        self.assertRefused(self.ca, "the certificate cannot be used: unsupported algorithm")

    def test_pss(self) -> None:
        """
        An RSA key may be restricted to PSS signatures.
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
        A CRL is refused if the authority of that name has a key that cannot sign.
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
        Common verification codes are explained in words.
        """
        self.assertEqual(
            explainVerification(X509VerificationCodes.ERR_CERT_REVOKED), "has been revoked"
        )

    def test_unknown(self) -> None:
        """
        Other verification codes are shown as numbers.
        """
        self.assertIn("verification code 4711", explainVerification(4711))
