"""
TLS handshakes of a client: matches the server's certificate to the host name, and explains the
alerts with which a server refuses the client's certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from cryptography.x509 import (
    DNSName,
    DuplicateExtension,
    ExtensionNotFound,
    IPAddress,
    SubjectAlternativeName,
    UnsupportedGeneralNameType,
)
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern

from kaproto.security.handshake import CertificateRefused, Handshake

__all__ = ["ClientHandshake"]

_NAMES_SHOWN: Final = 5
_NAME_LENGTH: Final = 100


class ClientHandshake(Handshake):
    """
    The client's end of a TLS connection.

    @ivar host: the name or address that the server's certificate must be for; C{None} to accept
        any certificate.
    """

    peerIs = "server"
    speaksFirst = True
    host: str | None = None

    def do_handshake(self) -> None:
        """
        Continue the handshake; when it has completed, check the server's name.

        @raise CertificateRefused: if either end does not accept the other's certificate.
        """
        try:
            super().do_handshake()
        except SSL.Error as error:
            _raiseAlert(error)
            raise
        if self.host is not None:
            certificate = self.get_peer_certificate()
            assert certificate is not None, "a server always has one"
            _checkHost(certificate, self.host)

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """
        Decrypt bytes that have arrived.

        @raise CertificateRefused: if the server does not accept this client's certificate.  In TLS
            1.3 that alert arrives after the handshake.
        """
        try:
            return super().recv(bufsiz, flags)
        except SSL.Error as error:
            _raiseAlert(error)
            raise


_ALERTS: Final = ("certificate", "unknown ca", "access denied")


def _raiseAlert(error: SSL.Error) -> None:
    """
    @raise CertificateRefused: if the error is an alert with which the server refuses this client's
        certificate.
    """
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        _, alert, words = str(queue[-1][-1]).partition(" alert ")
        if alert and any(each in words for each in _ALERTS):
            raise CertificateRefused(
                f"the server does not accept this client's certificate: {words}"
            ) from None


def _checkHost(certificate: X509, host: str) -> None:
    names, addresses = _namesIn(certificate)
    try:
        wanted = ip_address(host.partition("%")[0])
    except ValueError:
        matches = _matchesName(names, host)
    else:
        matches = wanted in addresses
    if matches:
        return
    shown = [*names, *map(str, addresses)]
    if not shown:
        raise CertificateRefused(
            f"the server's certificate has no subjectAltName, so it cannot be matched to {host}"
        )
    more = f" and {len(shown) - _NAMES_SHOWN} more" if len(shown) > _NAMES_SHOWN else ""
    listed = ", ".join(each[:_NAME_LENGTH] for each in shown[:_NAMES_SHOWN])
    raise CertificateRefused(
        f"the server's certificate is for {listed}{more}, not for {host}; connect by a name that "
        "it is for"
    )


def _namesIn(certificate: X509) -> tuple[list[str], list[object]]:
    """
    @return: the host names and the IP addresses in a certificate's subjectAltName.
    """
    try:
        extensions = certificate.to_cryptography().extensions
        names = extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return [], []
    except (ValueError, DuplicateExtension, UnsupportedGeneralNameType) as error:
        raise CertificateRefused(
            f"the server's certificate is malformed: {str(error)[:_NAME_LENGTH]}"
        ) from error
    return names.get_values_for_type(DNSName), list(names.get_values_for_type(IPAddress))


def _matchesName(names: Sequence[str], host: str) -> bool:
    try:
        wanted = DNS_ID(host)
    except ValueError:
        return False
    for name in names:
        with suppress(CertificateError, ValueError):
            if wanted.verify(DNSPattern.from_bytes(name.encode())):
                return True
    return False
