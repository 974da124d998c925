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
    What it signs.
    """

    def test_purposes(self) -> None:
        """
        A server's certificate is for servers only, a client's for clients.
        """
        authority = newAuthority("CA")
        for hosts, purpose in [(["a.example"], "serverAuth"), ([], "clientAuth")]:
            certificate = issue(authority, "x", hosts).certificate
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            self.assertEqual([each._name for each in usage], [purpose])

    def test_rsa(self) -> None:
        """
        An authority with an RSA key is not one of ours.
        """
        key = rsa.generate_private_key(65537, 1024)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        authority = newAuthority("CA")
        self.assertRaises(ValueError, loadIdentity, authority.certificatePEM, pem)
