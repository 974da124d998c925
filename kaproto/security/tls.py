"""
TLS as libvirt uses it: who is at the other end by certificate, and the byte that says it is
accepted.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import attrs
from OpenSSL import SSL
from OpenSSL.crypto import (
    FILETYPE_ASN1,
    FILETYPE_PEM,
    X509,
    X509StoreFlags,
    dump_certificate,
    load_certificate,
)
from OpenSSL.crypto import Error as CryptoError
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import extract_patterns, verify_hostname, verify_ip_address
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import Interface, implementer

from kaproto.errors import AuthenticationFailed
from kaproto.security.certificates import (
    UNSIGNED,
    KeyMaterial,
    explainVerification,
    loadKeyMaterial,
    trust,
)
from kaproto.security.dn import distinguishedName
from kaproto.security.pki import CertificateFiles

__all__ = [
    "CONFIRMATION",
    "CertificateRefused",
    "ClientContextFactory",
    "ICertificateChecker",
    "ServerContextFactory",
    "TLSIdentity",
    "TLSTransport",
    "examine",
    "explainTLS",
]

CONFIRMATION: Final = b"\1"
"""
What a server sends, before anything else, to a client whose certificate it accepts.
"""


class CertificateRefused(AuthenticationFailed, SSL.Error):
    """
    One end does not accept the other's certificate; the message tells which and why.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # Twisted looks into what it takes to be one of pyOpenSSL's own errors.
        self.args = ([("kaproto", "", message)],)
        self._message = message

    def __str__(self) -> str:
        return self._message


class ICertificateChecker(Interface):
    """
    A protocol that calls L{examine} when the handshake has completed, and refuses what is no good
    (see L{twisted.internet.interfaces.IHandshakeListener}).  Such a one gets to see peers without
    a good certificate, and can end the connection in order, as libvirtd does.  C{virsh} has a
    message for that, while of a handshake that fails it often dies without one, of C{SIGPIPE}.
    """


class TLSTransport(Protocol):
    """
    The slice of Twisted's TLS transport that L{examine} uses.
    """

    def getHandle(self) -> SSL.Connection:
        """
        Give away what does the encrypting.
        """


@attrs.frozen
class TLSIdentity:
    """
    Who the other end is, by its certificate.

    @ivar dn: the distinguished name in its certificate, in libvirt's form; C{None} where it has
        no certificate, or one without a usable name.
    @ivar fingerprint: the SHA-256 of the certificate, in hexadecimal; C{None} where it has none.
    @ivar problem: why it is not acceptable; C{None} when it is.
    """

    dn: str | None
    fingerprint: str | None
    problem: str | None


class _Connection(SSL.Connection):
    """
    @ivar demanded: whether the other end has to have a certificate.
    @ivar lenient: whether to complete the handshake in spite of a problem.
    @ivar problem: what is wrong with the certificate that it has.
    @ivar other: what the other end is.
    """

    other = "client"
    demanded = False
    lenient = False
    problem: str | None = None

    def do_handshake(self) -> None:
        """
        Go on with the handshake.

        @raise CertificateRefused: when this end does not accept the other's certificate.
        """
        try:
            super().do_handshake()
        except SSL.WantReadError:
            raise
        except SSL.Error:
            if self.problem is not None:
                raise CertificateRefused(f"the {self.other}'s certificate {self.problem}") from None
            raise
        if self.problem is not None:
            _forgetErrors()
        if self.demanded and not self.lenient and self.get_peer_certificate() is None:
            raise CertificateRefused("the client has no certificate")


def _forgetErrors() -> None:
    """
    OpenSSL 3 keeps on its list of errors what was wrong with a certificate that was let through
    all the same, and takes it for an error of the next call.  pyOpenSSL empties the list whenever
    it raises an error.
    """
    with suppress(CryptoError):
        load_certificate(FILETYPE_PEM, b"")


class _ClientConnection(_Connection):
    """
    @ivar host: whom the certificate has to be for; C{None} to take any.
    """

    other = "server"
    host: str | None = None

    def do_handshake(self) -> None:
        """
        Go on with the handshake; when it is done, check the server's name.

        @raise CertificateRefused: when either end does not accept the other's certificate.
        """
        try:
            super().do_handshake()
        except SSL.Error as error:
            _raiseAlert(error)
            raise
        if self.host is not None:
            _checkHost(self, self.host)

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """
        Decrypt.

        @raise CertificateRefused: when the server says that it does not accept this client's
            certificate, which in TLS 1.3 comes after the handshake.
        """
        try:
            return super().recv(bufsiz, flags)
        except SSL.Error as error:
            _raiseAlert(error)
            raise


_ALERTS: Final = ("certificate", "unknown ca", "access denied")


def _raiseAlert(error: SSL.Error) -> None:
    """
    @raise CertificateRefused: when what went wrong is that the server said that it does not
        accept this client's certificate.
    """
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        _, alert, words = str(queue[-1][-1]).partition(" alert ")
        if alert and any(each in words for each in _ALERTS):
            raise CertificateRefused(
                f"the server does not accept this client's certificate: {words}"
            ) from None


def _checkHost(connection: SSL.Connection, host: str) -> None:
    try:
        try:
            address = str(ipaddress.ip_address(host))
        except ValueError:
            verify_hostname(connection, host)
        else:
            verify_ip_address(connection, address)
    except CertificateError as error:
        raise CertificateRefused(
            f"the server's certificate does not say which hosts it is for, so not that it is for "
            f"{host}; it needs a subjectAltName ({error})"
        ) from error
    except VerificationError as error:
        certificate = connection.get_peer_certificate()
        assert certificate is not None, "a server always has one"
        others = ", ".join(
            _show(getattr(each, "pattern", None) or each) for each in extract_patterns(certificate)
        )
        raise CertificateRefused(
            f"the server's certificate is for {others}, not for {host}; connect to it by a name "
            "that it is for"
        ) from error


def _show(pattern: object) -> str:
    return pattern.decode("ascii", "replace") if isinstance(pattern, bytes) else str(pattern)


def _remember(
    connection: SSL.Connection, certificate: X509, error: int, depth: int, good: int
) -> bool:
    """
    OpenSSL has looked at one of the certificates that the other end sent.

    @return: whether to go on.
    """
    if good:
        return True
    if error == SSL.X509VerificationCodes.ERR_UNABLE_TO_GET_CRL and depth > 0:
        return True
    assert isinstance(connection, _Connection)
    if connection.problem is None:
        problem = explainVerification(error)
        if depth > 0 and problem != UNSIGNED:
            problem = f"is signed by an authority whose certificate {problem}"
        connection.problem = problem
    return connection.lenient


def _context(material: KeyMaterial, method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    # An idle connection needs no buffers, which are most of what it weighs.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if material.key is not None:
        leaf, *others = material.chain
        context.use_certificate(leaf)
        for each in others:
            context.add_extra_chain_cert(each)
        context.use_privatekey(material.key)  # type: ignore[arg-type]
    store = context.get_cert_store()
    assert store is not None, "a new context has one"
    trust(store, material.authorities)
    for revocation in material.revocations:
        store.add_crl(revocation)
        store.set_flags(X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL)
    return context


def _sendsTickets(context: SSL.Context) -> bool:
    """
    Find out by a handshake in memory whether a server with this context sends session tickets
    when its handshake is done.

    libvirt 9 clients read once for L{CONFIRMATION} and give up when it is a ticket that comes.
    pyOpenSSL has no way to send none; an administrator has, C{NumTickets = 0} in the file that
    the environment variable C{OPENSSL_CONF} names.
    """
    server = SSL.Connection(context, None)
    server.set_accept_state()
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    for one, other in ((client, server), (server, client), (client, server)):
        with suppress(SSL.WantReadError):
            one.do_handshake()
        other.bio_write(one.bio_read(_ENOUGH))
    server.do_handshake()
    try:
        return bool(server.bio_read(_ENOUGH))
    except SSL.WantReadError:
        return False


_ENOUGH: Final = 65536


@implementer(IOpenSSLServerConnectionCreator)
class ServerContextFactory:
    """
    A server's certificate, and what it takes from its clients.

    @ivar verify: whether clients need certificates.
    @ivar version: the newest version of TLS that is spoken: 1.3 where OpenSSL is configured to
        send no session tickets, which libvirt 9 clients cannot stand, and 1.2 elsewhere.
    """

    version: str

    def __init__(self, findFiles: Callable[[], CertificateFiles], *, verify: bool = True) -> None:
        """
        @param findFiles: says where certificates and the like are; it is asked each time they
            are read, since there may be a list of revoked certificates where there was none.
        @raise kaproto.security.certificates.PKIError: when they will not do.
        """
        self._findFiles = findFiles
        self.verify = verify
        self.reload()

    def reload(self) -> None:
        """
        Read the files again.  Connections that are there already are not touched.

        @raise kaproto.security.certificates.PKIError: when they will not do; what was read before
            then stays in use.
        """
        material = loadKeyMaterial(self._findFiles())
        version = "1.2" if _sendsTickets(_context(material, SSL.TLS_SERVER_METHOD)) else "1.3"
        context = _context(material, SSL.TLS_SERVER_METHOD)
        if version == "1.2":
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
        if self.verify:
            context.set_verify(SSL.VERIFY_PEER, _remember)
        self._context, self.version = context, version

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        See L{IOpenSSLServerConnectionCreator}.
        """
        connection = _Connection(self._context, None)
        connection.demanded = self.verify
        connection.lenient = ICertificateChecker.providedBy(protocol.wrappedProtocol)
        return connection


@implementer(IOpenSSLClientConnectionCreator)
class ClientContextFactory:
    """
    A client's certificate, if it has one, and the server that it expects.
    """

    def __init__(self, files: CertificateFiles, host: str, *, verify: bool = True) -> None:
        """
        @param files: where certificates and the like are.
        @param host: the name or the IP address that the server's certificate has to be for.
        @param verify: whether to check the server's certificate at all.
        @raise kaproto.security.certificates.PKIError: when the files will not do.
        """
        self._context = _context(loadKeyMaterial(files), SSL.TLS_CLIENT_METHOD)
        self._host = host if verify else None
        if verify:
            self._context.set_verify(SSL.VERIFY_PEER, _remember)

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        See L{IOpenSSLClientConnectionCreator}.
        """
        connection = _ClientConnection(self._context, None)
        connection.host = self._host
        return connection


def examine(transport: TLSTransport) -> TLSIdentity:
    """
    Find out, once the handshake has completed, who the other end is.
    """
    connection = transport.getHandle()
    problem = getattr(connection, "problem", None)
    certificate = connection.get_peer_certificate()
    if certificate is None:
        demanded = getattr(connection, "demanded", False)
        return TLSIdentity(None, None, "it has no certificate" if demanded else None)
    der = dump_certificate(FILETYPE_ASN1, certificate)
    fingerprint = hashlib.sha256(der).hexdigest()
    if problem is not None:
        problem = f"its certificate {problem}"
    try:
        dn = distinguishedName(der)
    except ValueError as error:
        return TLSIdentity(
            None, fingerprint, problem or f"its certificate has no usable name: {error}"
        )
    return TLSIdentity(dn, fingerprint, problem)


def explainTLS(reason: Exception) -> str:
    """
    @param reason: why a TLS connection has ended.
    @return: what OpenSSL says about it, if it was OpenSSL.
    """
    queue = reason.args[0] if isinstance(reason, SSL.Error) and reason.args else None
    if isinstance(queue, list) and queue and not isinstance(reason, CertificateRefused):
        return str(queue[-1][-1])
    return str(reason)
