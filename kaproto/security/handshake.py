"""
TLS handshakes: which certificates are accepted, and a bound on the computation that a peer causes.

OpenSSL verifies the peer's chain of certificates and reports each result to L{verified}.  A server
usually completes the handshake although the client's certificate is bad, and closes the connection
afterwards, as libvirtd does: C{virsh} has an error message for that, while a handshake that fails
often kills it with C{SIGPIPE}.  So L{verified} lets OpenSSL continue after a problem.  That must
not let a stranger choose how much is computed: sixty RSA certificates with a public exponent of
3,000 bits are 80 KB and took 0.36 seconds.  Three rules bound the computation:

  - L{AUTHORITIES_MAX} authorities may stand between a certificate and a trusted one.
  - A chain of several certificates that no trusted authority has signed, or that has a wrong
    signature, ends the handshake at once with a TLS alert.  No signature is checked with the key of
    an untrusted certificate, and no name against its constraints.
  - The client proves that it has its private key by one signature, checked with the key in its
    certificate.  If the certificate is bad, the signature is checked only for keys of a usual size
    (L{isUsual}), which takes a millisecond at most.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_PEM, X509, load_certificate
from OpenSSL.crypto import Error as CryptoError
from OpenSSL.SSL import X509VerificationCodes as Codes
from zope.interface import Interface

from kaproto.errors import AuthenticationFailed
from kaproto.security.certificates import UNSIGNED, explainVerification
from kaproto.security.revocation import Revocations, fingerprint

__all__ = [
    "AUTHORITIES_MAX",
    "CertificateRefused",
    "Handshake",
    "ICertificateChecker",
    "countMessage",
    "explainTLS",
    "isUsual",
    "verified",
]

AUTHORITIES_MAX: Final = 5
"""
The most authorities between a peer's certificate and a trusted one.
"""

_RSA_BITS_MAX: Final = 8192
_EXPONENT_BITS_MAX: Final = 64
"""
The most bits in the public exponent of an RSA key.  OpenSSL has the same bound for keys of more
than 3072 bits.  The usual exponent has 17 bits.
"""


class CertificateRefused(AuthenticationFailed, SSL.Error):
    """
    One end does not accept the other's certificate; the message says which end, and why.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # Twisted expects the error queue of OpenSSL in the arguments of an SSL.Error.
        self.args = ([("kaproto", "", message)],)
        self._message = message

    def __str__(self) -> str:
        return self._message


class ICertificateChecker(Interface):
    """
    Implemented by a protocol that checks the client's certificate itself: it calls
    L{kaproto.security.tls.examine} when the handshake has completed (see
    L{twisted.internet.interfaces.IHandshakeListener}) and closes the connection if there is a
    problem.  The handshake of such a protocol completes even if the certificate is bad.
    """


class Handshake(SSL.Connection):
    """
    The server's end of a TLS connection.

    @ivar needsCertificate: whether the peer must have a certificate.
    @ivar revocations: revocation lists, for its certificate and those of its authorities; C{None}
        if there are none, or OpenSSL checks them.
    @ivar signer: while the chain is verified, the fingerprint of the certificate verified last,
        which has signed the next one.
    @ivar lenient: whether the handshake completes even if there is a problem.
    @ivar problem: the problem with the peer's certificate, C{None} if there is none.
    @ivar completed: whether the handshake has completed.
    @ivar unasked: TLS control messages that OpenSSL has read or written since the handshake, see
        L{countMessage}.
    @ivar peerIs: what to call the peer.
    @ivar speaksFirst: whether this end sends the first message of the handshake.
    """

    peerIs = "client"
    speaksFirst = False
    needsCertificate = False
    revocations: Revocations | None = None
    signer: bytes | None = None
    lenient = False
    problem: str | None = None
    completed = False
    unasked = 0

    def do_handshake(self) -> None:
        """
        Continue the handshake with the bytes that have arrived.

        @raise CertificateRefused: if this end does not accept the peer's certificate.
        """
        try:
            super().do_handshake()
        except SSL.WantReadError:
            raise
        except SSL.Error:
            if self.problem is not None:
                raise CertificateRefused(
                    f"the {self.peerIs}'s certificate {self.problem}"
                ) from None
            raise
        if self.problem is not None:
            _clearErrors()
        if self.needsCertificate and not self.lenient and self.get_peer_certificate() is None:
            raise CertificateRefused("the client has no certificate")
        self.completed = True


def countMessage(connection: SSL.Connection, where: int, _result: int) -> None:
    """
    OpenSSL's information callback.  Count TLS control messages after the handshake: key updates,
    attempts to renegotiate, alerts.  OpenSSL answers most of them by itself.

    OpenSSL does not call this for application data, so counting does not slow that down.

    @param where: a bit mask: C{SSL_CB_EXIT} when OpenSSL is done with a message, C{SSL_CB_ALERT}
        when it has read or written an alert.
    """
    if where & _MESSAGES and isinstance(connection, Handshake) and connection.completed:
        connection.unasked += 1


_MESSAGES: Final = SSL.SSL_CB_EXIT | SSL.SSL_CB_ALERT


def _clearErrors() -> None:
    """
    Empty OpenSSL's error queue.  When the handshake continues after a problem with a certificate,
    OpenSSL 3 leaves the problem in the queue, and would report it as the failure of the next call.
    pyOpenSSL empties the queue whenever it raises an error, so make it raise one.
    """
    with suppress(CryptoError):
        load_certificate(FILETYPE_PEM, b"")


def verified(
    connection: SSL.Connection, certificate: X509, error: int, depth: int, good: int
) -> bool:
    """
    OpenSSL's verification callback, called after each check of a certificate in the chain.

    OpenSSL builds the chain first, then checks purposes and revocation lists, and then signatures,
    from the trusted authority down to the peer.  So OpenSSL reports a chain without a trusted
    authority before it checks any signature.  And before it checks a signature with a stranger's
    key, it reports that the stranger's own certificate was not signed by a trusted authority::

        peer <- stranger            no trusted authority, reported at depth 1: stop
        peer <- stranger <- ours    the stranger's certificate is not signed by ours, depth 1: stop
        peer                        no trusted authority, depth 0: continue if that is cheap
        peer <- ours                expired or revoked, depth 0 or 1: continue, signatures follow

    @param error: the problem, one of C{OpenSSL.SSL.X509VerificationCodes}.
    @param depth: 0 for the peer's own certificate, 1 for the authority that has signed it.
    @param good: 0 if there is a problem.
    @return: whether to continue.
    """
    assert isinstance(connection, Handshake)
    if good:
        found = _revoked(connection, certificate)
        if found is None:
            return True
        error = found
    if error == Codes.ERR_UNABLE_TO_GET_CRL and depth > 0:
        return True
    if connection.problem is None:
        problem = explainVerification(error)
        if depth > 0 and problem != UNSIGNED and error != Codes.ERR_CERT_CHAIN_TOO_LONG:
            problem = f"is signed by an authority whose certificate {problem}"
        connection.problem = problem
    if not connection.lenient:
        return False
    return isUsual(certificate) if depth == 0 else error in _SIGNATURES_FOLLOW


def _revoked(connection: Handshake, certificate: X509) -> int | None:
    """
    Look up one certificate in the revocation lists.  OpenSSL verifies the trusted authority's
    certificate first and the peer's last, so the certificate of the previous call signed this one.

    @return: the problem, as in L{Revocations.problem}; C{None} if there is none.
    """
    if connection.revocations is None:
        return None
    signer, connection.signer = connection.signer, fingerprint(certificate)
    return connection.revocations.problem(
        connection.signer, certificate.get_serial_number(), signer
    )


_SIGNATURES_FOLLOW: Final = frozenset(
    {
        Codes.ERR_CERT_HAS_EXPIRED,
        Codes.ERR_CERT_NOT_YET_VALID,
        Codes.ERR_CERT_REVOKED,
        Codes.ERR_CRL_HAS_EXPIRED,
    }
)
"""
Problems of authorities after which OpenSSL still detects a forged chain.
"""


def isUsual(certificate: X509) -> bool:
    """
    @return: whether a certificate's key is of a usual kind and size, with which checking a
        signature takes a millisecond at most: RSA of up to 8192 bits with an exponent of up to 64
        bits, or an elliptic curve.
    """
    try:
        key = certificate.to_cryptography().public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    if isinstance(key, RSAPublicKey):
        exponent = key.public_numbers().e
        return key.key_size <= _RSA_BITS_MAX and exponent.bit_length() <= _EXPONENT_BITS_MAX
    return isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey)


def explainTLS(reason: Exception) -> str:
    """
    @param reason: why a TLS connection has ended, or could not be set up.
    @return: for errors of OpenSSL the last error in its queue, reworded if that is obscure;
        otherwise the message of the exception.
    """
    queue = reason.args[0] if isinstance(reason, SSL.Error | CryptoError) and reason.args else None
    if isinstance(queue, list) and queue and not isinstance(reason, CertificateRefused):
        words = str(queue[-1][-1])
        return _NOT_TLS.get(words, words)
    return str(reason)


_NOT_TLS: Final = {
    "wrong version number": "the other end does not speak TLS (wrong version number)",
    "http request": "the other end sent an HTTP request, not TLS",
    "https proxy request": "the other end sent an HTTP request, not TLS",
}
