"""
Tests for L{kaproto.cli.authority}.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from kaproto.cli.authority import issue, loadIdentity, newAuthority


class AuthorityTests(SynchronousTestCase):
    """
    Tests for the certificates that an authority issues.
    """

    def test_purposes(self) -> None:
        """
        A certificate is valid only for servers, or only for clients.
        """
        authority = newAuthority("CA")
        for hosts, purpose in [(["a.example"], "serverAuth"), ([], "clientAuth")]:
            certificate = issue(authority, "x", hosts).certificate
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            self.assertEqual([each._name for each in usage], [purpose])

    def test_rsa(self) -> None:
        """
        An authority with an RSA key, which kaproto does not create, is refused.
        """
        key = rsa.generate_private_key(65537, 1024)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        authority = newAuthority("CA")
        self.assertRaises(ValueError, loadIdentity, authority.certificatePEM, pem)
