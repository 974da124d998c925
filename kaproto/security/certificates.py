"""
Certificates read from files and checked, with what is wrong with them in plain words.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from OpenSSL.crypto import (
    X509,
    X509Store,
    X509StoreContext,
    X509StoreContextError,
    X509StoreFlags,
)
from OpenSSL.SSL import X509VerificationCodes as Codes

from kaproto.security.pki import CertificateFiles

__all__ = [
    "UNSIGNED",
    "KeyMaterial",
    "PKIError",
    "explainVerification",
    "loadKeyMaterial",
    "trust",
]

_T = TypeVar("_T")


class PKIError(ValueError):
    """
    Something is wrong with a certificate file; the message names the file and what to do.
    """


@attrs.frozen
class KeyMaterial:
    """
    What the files hold, checked.

    @ivar authorities: those that may have signed the other end's certificate.
    @ivar revocations: their lists of revoked certificates.
    @ivar chain: this end's certificate, and those between it and the authority; empty for a
        client that has none.
    @ivar key: the private key to it.
    """

    authorities: Sequence[x509.Certificate]
    revocations: Sequence[x509.CertificateRevocationList]
    chain: Sequence[x509.Certificate]
    key: PrivateKeyTypes | None = attrs.field(repr=False)


def loadKeyMaterial(files: CertificateFiles) -> KeyMaterial:
    """
    Read the files, and check that they will do.

    @raise PKIError: when one is missing, cannot be read, is not what it should be, has expired or
        does not fit to the others.
    """
    end = "server" if files.server else "client"
    authorities = _certificates(files.ca, "the certificate of the authority (CA)")
    for authority in authorities:
        _checkTime(authority, files.ca)
    revocations = _revocations(files.crl, files.ca, authorities) if files.crl else []
    if files.certificate is None or files.key is None:
        return KeyMaterial(authorities, revocations, [], None)
    chain = _certificates(files.certificate, f"the {end}'s certificate")
    key = _privateKey(files.key, end)
    if _publicBytes(key) != _publicBytes(chain[0]):
        raise PKIError(
            f"{files.key}: this is not the private key to the certificate in "
            f"{files.certificate}; the two must be made together"
        )
    _checkTime(chain[0], files.certificate)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if files.server else ExtendedKeyUsageOID.CLIENT_AUTH
    if not _allows(chain[0], purpose):
        raise PKIError(
            f"{files.certificate}: the certificate is not meant for a {end}; have it issued with "
            f"the extended key usage {'serverAuth' if files.server else 'clientAuth'}"
        )
    _checkSigned(chain, authorities, files)
    return KeyMaterial(authorities, revocations, chain, key)


def trust(store: X509Store, authorities: Sequence[x509.Certificate]) -> None:
    """
    Have a store trust these authorities, those among them too that another has signed.
    """
    for authority in authorities:
        store.add_cert(X509.from_cryptography(authority))
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)


UNSIGNED: Final = "is not signed by an authority (CA) that is trusted here"
"""
What most often is wrong with a certificate, as L{explainVerification} says it.
"""

_WORDS: Final = {
    Codes.ERR_CERT_HAS_EXPIRED: "has expired",
    Codes.ERR_CERT_NOT_YET_VALID: "is not valid yet",
    Codes.ERR_CERT_REVOKED: "has been revoked",
    Codes.ERR_INVALID_PURPOSE: "is not meant for this end of a connection (extended key usage)",
    Codes.ERR_UNABLE_TO_GET_CRL: (
        "cannot be checked, because its issuer's list of revoked certificates is missing"
    ),
    Codes.ERR_CRL_HAS_EXPIRED: (
        "cannot be checked, because the list of revoked certificates has expired"
    ),
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: UNSIGNED,
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNSIGNED,
    Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNSIGNED,
    Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: UNSIGNED,
    Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: UNSIGNED,
    Codes.ERR_CERT_SIGNATURE_FAILURE: UNSIGNED,
}


def explainVerification(error: int) -> str:
    """
    @param error: one of OpenSSL's verification codes.
    @return: what is wrong with the certificate, as the rest of a sentence about it.
    """
    return _WORDS.get(error, f"was rejected by OpenSSL with verification code {error}")


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PKIError(f"{path}: there is no such file; it should hold {what}") from error
    except PermissionError as error:
        raise PKIError(
            f"{path}: the user with uid {os.geteuid()} may not read it; change its owner or mode, "
            "or run as another user"
        ) from error
    except OSError as error:
        raise PKIError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(path: Path, what: str, parse: Callable[[bytes], _T], data: bytes) -> _T:
    try:
        return parse(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PKIError(f"{path}: this is not {what} in PEM") from error


def _certificates(path: Path, what: str) -> list[x509.Certificate]:
    return _parse(path, what, x509.load_pem_x509_certificates, _read(path, what))


def _privateKey(path: Path, end: str) -> PrivateKeyTypes:
    what = f"the {end}'s private key"
    data = _read(path, what)
    try:
        return _parse(path, what, lambda data: load_pem_private_key(data, None), data)
    except TypeError as error:
        raise PKIError(
            f"{path}: the private key is encrypted, and there is nobody to ask for the "
            "passphrase; decrypt it with: openssl pkey"
        ) from error


_CRL: Final = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def _revocations(
    path: Path, caPath: Path, authorities: Sequence[x509.Certificate]
) -> list[x509.CertificateRevocationList]:
    what = "a list of revoked certificates (CRL)"
    blocks = _CRL.findall(_read(path, what)) or [b""]
    lists = [_parse(path, what, x509.load_pem_x509_crl, block) for block in blocks]
    now = dt.datetime.now(dt.UTC)
    for each in lists:
        if not any(_hasSigned(authority, each) for authority in authorities):
            raise PKIError(
                f"{path}: the list of revoked certificates is of no authority in {caPath}"
            )
        if each.next_update_utc is not None and each.next_update_utc < now:
            raise PKIError(
                f"{path}: the list of revoked certificates has expired on "
                f"{each.next_update_utc:%Y-%m-%d %H:%M} UTC, so that nobody could be let in; have "
                "the authority issue a new one"
            )
    return lists


def _hasSigned(authority: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    key = authority.public_key()
    try:
        return authority.subject == crl.issuer and crl.is_signature_valid(key)  # type: ignore[arg-type]
    except TypeError:
        return False


def _publicBytes(of: PrivateKeyTypes | x509.Certificate) -> bytes:
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _checkTime(certificate: x509.Certificate, path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    if now > certificate.not_valid_after_utc:
        raise PKIError(
            f"{path}: the certificate has expired on "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it"
        )
    if now < certificate.not_valid_before_utc:
        raise PKIError(
            f"{path}: the certificate is not valid before "
            f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; is the clock right?"
        )


def _allows(certificate: x509.Certificate, purpose: ObjectIdentifier) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return purpose in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def _checkSigned(
    chain: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    files: CertificateFiles,
) -> None:
    leaf, *others = [X509.from_cryptography(each) for each in chain]
    store = X509Store()
    trust(store, authorities)
    try:
        X509StoreContext(store, leaf, others).verify_certificate()
    except X509StoreContextError as error:
        raise PKIError(
            f"{files.certificate}: the certificate {explainVerification(error.errors[0])}; the "
            f"trusted ones are in {files.ca}"
        ) from error
