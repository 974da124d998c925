"""
A certificate authority, for L{kaproto.cli.certificates} and for tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = [
    "Identity",
    "certificateBuilder",
    "generalName",
    "issue",
    "loadIdentity",
    "newAuthority",
    "subjectFor",
]

_VALID: Final = timedelta(days=365)
# Certificates are valid from an hour ago, because another machine's clock may be behind.
_SKEW: Final = timedelta(hours=1)

_SIGNS: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@attrs.frozen
class Identity:
    """
    A certificate and its private key.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificatePEM(self) -> bytes:
        """
        The certificate in PEM.
        """
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def keyPEM(self) -> bytes:
        """
        The private key in PEM, not encrypted.
        """
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def loadIdentity(certificatePEM: bytes, keyPEM: bytes) -> Identity:
    """
    Load the PEM texts of an L{Identity}.

    @raise ValueError: when the two are not a certificate and its key.
    """
    certificate = x509.load_pem_x509_certificate(certificatePEM)
    key = load_pem_private_key(keyPEM, None)
    if isinstance(key, ec.EllipticCurvePrivateKey) and certificate.public_key() == key.public_key():
        return Identity(certificate, key)
    raise ValueError("the key does not belong to the certificate, or is not an elliptic curve key")


def newAuthority(name: str) -> Identity:
    """
    Make an authority with a self-signed certificate.

    @param name: its common name.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = subjectFor(name)
    builder = (
        certificateBuilder(subject, key.public_key(), -_SKEW, _VALID)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Identity(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Identity, name: str, hosts: Iterable[str] = ()) -> Identity:
    """
    Sign a certificate.

    @param authority: the issuer.
    @param name: the common name.
    @param hosts: the host names and addresses of a server; none for a client.
    @raise ValueError: when a name is too long, or has forbidden characters.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    names = [generalName(host) for host in hosts]
    usage = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        certificateBuilder(subjectFor(name), key.public_key(), -_SKEW, _VALID)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(signer, critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Identity(builder.sign(authority.key, hashes.SHA256()), key)


def subjectFor(name: str) -> x509.Name:
    """
    @return: a distinguished name with only a common name.
    """
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificateBuilder(
    subject: x509.Name, key: CertificatePublicKeyTypes, start: timedelta, end: timedelta
) -> x509.CertificateBuilder:
    """
    @param start: the beginning of the certificate's validity, from now.
    @param end: the end of its validity, from now.
    """
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
    )


def generalName(host: str) -> x509.GeneralName:
    """
    @param host: a name or an address.
    @return: an entry for subjectAltName.
    """
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
