"""
TLS as libvirt uses it: certificates for both ends, the peer's identity, and the byte with which a
server confirms that it accepts a client.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import attrs
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509StoreFlags, dump_certificate
from OpenSSL.crypto import Error as CryptoError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from kaproto.security.certificates import KeyMaterial, PKIError, loadKeyMaterial, trust
from kaproto.security.clienthandshake import ClientHandshake
from kaproto.security.dn import distinguishedName
from kaproto.security.handshake import (
    AUTHORITIES_MAX,
    Handshake,
    ICertificateChecker,
    countMessage,
    explainTLS,
    verified,
)
from kaproto.security.pki import CertificateFiles
from kaproto.security.revocation import Revocations
from kaproto.security.tlslayer import TLSLayer

__all__ = [
    "CONFIRMATION",
    "ClientContextFactory",
    "ServerContextFactory",
    "TLSIdentity",
    "TLSTransport",
    "examine",
]

CONFIRMATION: Final = b"\1"
"""
The first byte that a server sends to a client whose certificate it accepts.
"""


class TLSTransport(Protocol):
    """
    The method of Twisted's TLS transport that L{examine} uses.
    """

    def getHandle(self) -> SSL.Connection:
        """
        @return: pyOpenSSL's connection.
        """


@attrs.frozen
class TLSIdentity:
    """
    The peer's identity, from its certificate.

    @ivar dn: the distinguished name, in libvirt's form; C{None} if there is no certificate, or
        none with a usable name.
    @ivar fingerprint: the SHA-256 of the certificate, in hexadecimal; C{None} if there is none.
    @ivar problem: why the peer cannot be accepted; C{None} if it can.
    """

    dn: str | None
    fingerprint: str | None
    problem: str | None


_OP_NO_RENEGOTIATION: Final[int] = getattr(SSL, "OP_NO_RENEGOTIATION", 1 << 30)
"""
OpenSSL's constant, which older versions of pyOpenSSL lack.  A client that renegotiates makes the
server compute, write, and check another certificate, in the middle of a connection.
"""


@contextmanager
def _naming(files: CertificateFiles) -> Iterator[None]:
    """
    Convert OpenSSL's errors.

    @raise PKIError: with the name of the file and OpenSSL's message.
    """
    try:
        yield
    except (SSL.Error, CryptoError) as error:
        raise PKIError(
            f"{files.certificate or files.ca}: OpenSSL cannot use this certificate, its key or its "
            f"authority: {explainTLS(error)}"
        ) from error


def _context(material: KeyMaterial, method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | _OP_NO_RENEGOTIATION)
    context.set_info_callback(countMessage)
    # Free the buffers of idle connections, which are most of their memory.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_verify_depth(AUTHORITIES_MAX)
    if material.key is not None:
        leaf, *others = material.chain
        context.use_certificate(leaf)
        for each in others:
            context.add_extra_chain_cert(each)
        context.use_privatekey(material.key)
    store = context.get_cert_store()
    assert store is not None, "a new context has one"
    trust(store, material.authorities)
    for revocation in material.revocations:
        store.add_crl(revocation)
        store.set_flags(X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL)
    return context


def _sendsTickets(context: SSL.Context) -> bool:
    """
    Make a handshake in memory to find out whether a server with this context sends session tickets
    after its handshake.

    Clients of libvirt 9 read L{CONFIRMATION} once, and fail if a ticket arrives instead.
    pyOpenSSL cannot turn off the tickets of TLS 1.3.  An administrator can, with C{NumTickets = 0}
    in the file named by the environment variable C{OPENSSL_CONF}.
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
    A server's certificate, and its requirements for clients' certificates.

    @ivar verify: whether clients need certificates.
    @ivar version: the newest version of TLS that is offered: C{"1.3"} if OpenSSL is configured to
        send no session tickets, which break clients of libvirt 9, otherwise C{"1.2"}.
    @ivar expiry: when the certificate expires, in seconds since 1970.
    """

    version: str
    expiry: float

    def __init__(self, findFiles: Callable[[], CertificateFiles], *, verify: bool = True) -> None:
        """
        @param findFiles: returns the paths of the files.  L{reload} calls it again, since a
            revocation list may have been added.
        @raise kaproto.security.certificates.PKIError: if the files cannot be used.
        """
        self._findFiles = findFiles
        self._crl: Path | None = None
        self.verify = verify
        self.reload()

    def __str__(self) -> str:
        return f"the certificates of {self._certificate}"

    def reload(self) -> None:
        """
        Read the files again, for new connections.  If a revocation list was in use, its file must
        still exist: a list that is just being replaced must not count as no list.

        @raise kaproto.security.certificates.PKIError: if the files cannot be used.  After this or
            any other exception the previous certificates stay in use.
        """
        files = self._findFiles()
        if self._crl is not None and files.crl is None:
            raise PKIError(
                f"{self._crl}: the list of revoked certificates is missing; put it back, or "
                "restart the server to run without one"
            )
        material = loadKeyMaterial(files)
        with _naming(files):
            tickets = _sendsTickets(_context(material, SSL.TLS_SERVER_METHOD))
            revocations = Revocations.fromLists(material.revocations, material.authorities)
            strict = lenient = _context(material, SSL.TLS_SERVER_METHOD)
            if revocations is not None:
                lenient = _context(attrs.evolve(material, revocations=[]), SSL.TLS_SERVER_METHOD)
        for context in (strict, lenient):
            if tickets:
                context.set_max_proto_version(SSL.TLS1_2_VERSION)
            if self.verify:
                context.set_verify(SSL.VERIFY_PEER, verified)
        self._strict, self._lenient, self._revocations = strict, lenient, revocations
        self.version = "1.2" if tickets else "1.3"
        self._crl, self._certificate = files.crl, files.certificate
        self.expiry = min(each.not_valid_after_utc.timestamp() for each in material.chain)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        Make the server's end of a connection.  Its handshake completes even with a bad certificate
        if the protocol is an L{ICertificateChecker}, which is notified then and checks it.
        """
        listener: object = protocol.wrappedProtocol
        if isinstance(protocol, TLSLayer):
            listener = protocol.listener()
        lenient = ICertificateChecker.providedBy(listener)
        handshake = Handshake(self._lenient if lenient else self._strict, None)
        handshake.needsCertificate = self.verify
        handshake.lenient = lenient
        if lenient:
            handshake.revocations = self._revocations
        return handshake


@implementer(IOpenSSLClientConnectionCreator)
class ClientContextFactory:
    """
    A client's certificate, if it has one, and its requirements for the server's.
    """

    def __init__(self, files: CertificateFiles, host: str, *, verify: bool = True) -> None:
        """
        @param files: the paths of the files.
        @param host: the name or IP address that the server's certificate must be for.
        @param verify: whether to check the server's certificate at all.
        @raise kaproto.security.certificates.PKIError: if the files cannot be used.
        """
        material = loadKeyMaterial(files)
        with _naming(files):
            self._context = _context(material, SSL.TLS_CLIENT_METHOD)
        self._host = host if verify else None
        if verify:
            self._context.set_verify(SSL.VERIFY_PEER, verified)

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        Make the client's end of a connection.
        """
        handshake = ClientHandshake(self._context, None)
        handshake.host = self._host
        return handshake


def examine(transport: TLSTransport) -> TLSIdentity:
    """
    @param transport: a TLS transport whose handshake has completed.
    @return: the peer's identity.
    """
    connection = transport.getHandle()
    problem = getattr(connection, "problem", None)
    certificate = connection.get_peer_certificate()
    if certificate is None:
        needed = getattr(connection, "needsCertificate", False)
        return TLSIdentity(None, None, "it has no certificate" if needed else None)
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
