"""
A certificate authority for one run, with a server's and a client's certificate.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["issue"]


def issue(folder: Path) -> None:
    """
    Write C{CA/cacert.pem}, and below C{libvirt} C{servercert.pem}, C{clientcert.pem},
    C{private/serverkey.pem} and C{private/clientkey.pem}, which is how libvirt lays them out.
    They are valid for an hour.

    @param folder: where to.
    """
    authority = ec.generate_private_key(ec.SECP256R1())
    name = _name("benchmark authority")
    basic = x509.BasicConstraints(ca=True, path_length=0)
    certificate = _signed(name, name, authority, authority, basic)
    _write(folder / "CA/cacert.pem", certificate.public_bytes(serialization.Encoding.PEM))
    for role, use in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"benchmark {role}")
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        usage = x509.ExtendedKeyUsage([use])
        certificate = _signed(subject, name, key, authority, addresses, usage)
        public = certificate.public_bytes(serialization.Encoding.PEM)
        _write(folder / f"libvirt/{role}cert.pem", public)
        _write(
            folder / f"libvirt/private/{role}key.pem",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(authority, hashes.SHA256())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
