"""
Looks up certificates in revocation lists (CRLs) during a handshake.

OpenSSL checks the signature of a list at each look-up, and so hashes the whole list for each
handshake: 0.7 ms for 10,000 certificates.  Here signatures are checked once, when the file is read
(L{kaproto.security.certificates}), and a handshake looks up two or three serial numbers.

OpenSSL still checks partial lists (which cover some certificates of an authority, or changes to
another list), and all lists if a handshake must end with the right TLS alert.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL.crypto import X509
from OpenSSL.SSL import X509VerificationCodes as Codes

__all__ = ["Revocations", "fingerprint", "hasSigned"]


def hasSigned(authority: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    """
    @return: whether this authority has signed a list.
    """
    key = authority.public_key()
    try:
        return authority.subject == crl.issuer and crl.is_signature_valid(key)  # type: ignore[arg-type]
    except (TypeError, ValueError, KeyError):
        return False


@attrs.frozen
class _List:
    """
    The revocation list of one authority.

    @ivar begin: when the list becomes valid.
    @ivar end: when it expires; C{None} if it has no such date.
    @ivar numbers: the serial numbers of the certificates.
    """

    begin: dt.datetime
    end: dt.datetime | None
    numbers: frozenset[int]


class Revocations:
    """
    The lists of all authorities.
    """

    def __init__(
        self,
        lists: Sequence[x509.CertificateRevocationList],
        authorities: Sequence[x509.Certificate],
    ) -> None:
        """
        @param authorities: the trusted authorities, among them the issuers of the lists.
        """
        self._lists: dict[bytes, _List] = {}
        self._revoked: set[bytes] = set()
        for authority in authorities:
            own = [crl for crl in lists if hasSigned(authority, crl)]
            if own:
                latest = max(own, key=lambda crl: crl.last_update_utc)
                numbers = frozenset(each.serial_number for each in latest)
                self._lists[authority.fingerprint(SHA256())] = _List(
                    latest.last_update_utc, latest.next_update_utc, numbers
                )
                self._revoked |= {
                    each.fingerprint(SHA256())
                    for each in authorities
                    if each.issuer == authority.subject and each.serial_number in numbers
                }

    @classmethod
    def fromLists(
        cls,
        lists: Sequence[x509.CertificateRevocationList],
        authorities: Sequence[x509.Certificate],
    ) -> Revocations | None:
        """
        @return: the lists; C{None} if there are none, or OpenSSL has to check them.
        """
        return cls(lists, authorities) if lists and all(map(_isPlain, lists)) else None

    def problem(self, certificate: bytes, number: int, issuer: bytes | None) -> int | None:
        """
        @param certificate: the fingerprint (SHA-256) of a certificate.
        @param number: its serial number.
        @param issuer: the fingerprint of the certificate that has signed it; C{None} if it is
            trusted itself.
        @return: the problem, as one of OpenSSL's verification codes; C{None} if there is none.
        """
        if certificate in self._revoked:
            return int(Codes.ERR_CERT_REVOKED)
        found = self._lists.get(certificate if issuer is None else issuer)
        if found is None:
            return int(Codes.ERR_UNABLE_TO_GET_CRL)
        now = dt.datetime.now(dt.UTC)
        if found.end is not None and found.end < now:
            return int(Codes.ERR_CRL_HAS_EXPIRED)
        if found.begin > now:
            return int(Codes.ERR_CRL_NOT_YET_VALID)
        return int(Codes.ERR_CERT_REVOKED) if number in found.numbers else None


def fingerprint(certificate: X509) -> bytes:
    """
    @return: the SHA-256 of a certificate.
    """
    return bytes.fromhex(certificate.digest("sha256").decode().replace(":", ""))


_SPECIAL: Final = (x509.IssuingDistributionPoint, x509.DeltaCRLIndicator)


def _isPlain(crl: x509.CertificateRevocationList) -> bool:
    """
    @return: whether a list has every certificate that its issuer has revoked, so that it is not a
        partial list.
    """
    try:
        return not any(each.critical or isinstance(each.value, _SPECIAL) for each in crl.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False
