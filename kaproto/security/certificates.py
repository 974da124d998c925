"""
Reads certificates, keys and revocation lists from files, and checks them.  Errors name the file and
the remedy.
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
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from OpenSSL.crypto import (
    FILETYPE_PEM,
    X509,
    PKey,
    X509Store,
    X509StoreContext,
    X509StoreContextError,
    X509StoreFlags,
    load_privatekey,
)
from OpenSSL.crypto import Error as CryptoError
from OpenSSL.SSL import X509VerificationCodes as Codes

from kaproto.regularfile import readFile
from kaproto.security.pki import CertificateFiles
from kaproto.security.revocation import hasSigned

__all__ = [
    "UNSIGNED",
    "KeyMaterial",
    "PKIError",
    "explainVerification",
    "loadKeyMaterial",
    "trust",
]

_T = TypeVar("_T")

_MALFORMED: Final = (
    ValueError,
    KeyError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""
The exceptions that cryptography raises for contents it cannot parse.
"""


class PKIError(ValueError):
    """
    A certificate file cannot be used; the message names the file and the remedy.
    """


@attrs.frozen
class KeyMaterial:
    """
    The contents of the files, checked.

    @ivar authorities: the authorities trusted to sign the peer's certificate.
    @ivar revocations: their revocation lists.
    @ivar chain: this end's certificate, then the intermediate ones; empty for a client without a
        certificate.
    @ivar key: the private key of the certificate.
    """

    authorities: Sequence[x509.Certificate]
    revocations: Sequence[x509.CertificateRevocationList]
    chain: Sequence[x509.Certificate]
    key: PKey | None = attrs.field(repr=False)


def loadKeyMaterial(files: CertificateFiles) -> KeyMaterial:
    """
    Read the files and check them.

    @raise PKIError: if one is missing, unreadable, malformed or expired, or does not match the
        others.
    """
    end = "server" if files.server else "client"
    authorities = _certificates(files.ca, "the certificate of the authority (CA)")
    for authority in authorities:
        _checkTime(authority, files.ca)
    revocations = _revocations(files.crl, files.ca, authorities) if files.crl else []
    if files.certificate is None or files.key is None:
        return KeyMaterial(authorities, revocations, [], None)
    chain = _certificates(files.certificate, f"the {end}'s certificate")
    key, public = _privateKey(files.key, end)
    if _publicBytes(public) != _publicBytes(chain[0].public_key()):
        raise PKIError(
            f"{files.key}: this is not the private key of the certificate in "
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
    Make a store trust these authorities, intermediate ones included.
    """
    for authority in authorities:
        store.add_cert(X509.from_cryptography(authority))
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)


UNSIGNED: Final = "is not signed by an authority (CA) that is trusted here"
"""
The most frequent problem of a certificate, as worded by L{explainVerification}.
"""

_WORDS: Final = {
    Codes.ERR_CERT_HAS_EXPIRED: "has expired",
    Codes.ERR_CERT_NOT_YET_VALID: "is not valid yet",
    Codes.ERR_CERT_REVOKED: "has been revoked",
    Codes.ERR_INVALID_PURPOSE: "is not meant for this end of a connection (extended key usage)",
    Codes.ERR_CERT_CHAIN_TOO_LONG: "has too many authorities between it and a trusted one",
    Codes.ERR_UNABLE_TO_GET_CRL: (
        "cannot be checked, because its issuer's list of revoked certificates is missing"
    ),
    Codes.ERR_CRL_HAS_EXPIRED: (
        "cannot be checked, because the list of revoked certificates has expired"
    ),
    Codes.ERR_CRL_NOT_YET_VALID: (
        "cannot be checked, because the list of revoked certificates is not valid yet"
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
    @return: the problem, as the predicate of a sentence about the certificate.
    """
    return _WORDS.get(error, f"was rejected by OpenSSL with verification code {error}")


def _read(path: Path, what: str) -> bytes:
    try:
        return readFile(path)
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
    except _MALFORMED as error:
        raise PKIError(f"{path}: this is not {what} in PEM") from error


def _certificates(path: Path, what: str) -> list[x509.Certificate]:
    certificates = _parse(path, what, x509.load_pem_x509_certificates, _read(path, what))
    for each in certificates:
        try:
            # cryptography parses these on first use: use them now, so that nothing raises later.
            each.public_key(), each.extensions, each.subject
        except _MALFORMED as error:
            raise PKIError(f"{path}: the certificate cannot be used: {error}") from error
    return certificates


def _privateKey(path: Path, end: str) -> tuple[PKey, PublicKeyTypes]:
    """
    @return: the key as a pyOpenSSL object, and its public half.  pyOpenSSL loads the key itself:
        converted from cryptography's object, a key restricted to RSA-PSS would lose that
        restriction, and no longer match its certificate.
    """
    what = f"the {end}'s private key"
    data = _read(path, what)
    try:
        key = _parse(path, what, lambda data: load_pem_private_key(data, None), data)
    except TypeError as error:
        raise PKIError(
            f"{path}: the private key is encrypted, and a server cannot ask for the "
            "passphrase; decrypt it with: openssl pkey"
        ) from error
    return load_privatekey(FILETYPE_PEM, data), key.public_key()


_CRL: Final = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def _revocations(
    path: Path, caPath: Path, authorities: Sequence[x509.Certificate]
) -> list[x509.CertificateRevocationList]:
    what = "a list of revoked certificates (CRL)"
    blocks = _CRL.findall(_read(path, what)) or [b""]
    lists = [_parse(path, what, x509.load_pem_x509_crl, block) for block in blocks]
    now = dt.datetime.now(dt.UTC)
    for each in lists:
        if not any(hasSigned(authority, each) for authority in authorities):
            raise PKIError(f"{path}: this CRL was not issued by any authority in {caPath}")
        if each.next_update_utc is not None and each.next_update_utc < now:
            raise PKIError(
                f"{path}: the list of revoked certificates expired on "
                f"{each.next_update_utc:%Y-%m-%d %H:%M} UTC, so nobody could be accepted; have "
                "the authority issue a new one"
            )
        if each.last_update_utc > now:
            raise PKIError(
                f"{path}: the list of revoked certificates is not valid before "
                f"{each.last_update_utc:%Y-%m-%d %H:%M} UTC; is the clock right?"
            )
    return lists


def _publicBytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _checkTime(certificate: x509.Certificate, path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    if now > certificate.not_valid_after_utc:
        raise PKIError(
            f"{path}: the certificate expired on "
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
    store = X509Store()
    try:
        trust(store, authorities)
        leaf, *others = [X509.from_cryptography(each) for each in chain]
        X509StoreContext(store, leaf, others).verify_certificate()
    except X509StoreContextError as error:
        raise PKIError(
            f"{files.certificate}: the certificate {explainVerification(error.errors[0])}; the "
            f"trusted authorities are in {files.ca}"
        ) from error
    except CryptoError as error:
        raise PKIError(
            f"{files.ca}: the certificate cannot be used: {error.args[0][-1][-1]}"
        ) from error
