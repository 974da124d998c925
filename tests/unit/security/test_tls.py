"""
Tests for L{kaproto.security.tls}.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kaproto.security import tls
from kaproto.security.certificates import PKIError
from kaproto.security.pki import CertificateFiles, clientFiles, serverFiles
from kaproto.security.tls import (
    CertificateRefused,
    ClientContextFactory,
    ICertificateChecker,
    ServerContextFactory,
    examine,
    explainTLS,
)
from tests.der import certificateFor, name
from tests.pki import Authority, Identity, distinguished

DAYS = dt.timedelta(days=1)


class Remembering(Protocol):
    """
    One end of a connection, which remembers what happens to it.
    """

    transport: Any
    lost: Exception | None = None

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        """
        Remember.
        """
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Remember why.
        """
        assert isinstance(reason.value, Exception)
        self.lost = reason.value


@implementer(IHandshakeListener, ICertificateChecker)
class Checking(Remembering):
    """
    One that looks at the certificate itself.
    """

    done = False

    def handshakeCompleted(self) -> None:
        """
        Remember.
        """
        self.done = True


def inPieces(receive: Callable[[bytes], None], size: int, data: bytes) -> None:
    """
    Have bytes arrive in pieces.
    """
    for start in range(0, len(data), size):
        receive(data[start : start + size])


class TLSTestCase(SynchronousTestCase):
    """
    Has an authority, and a server that it has given a certificate to.
    """

    def setUp(self) -> None:
        """
        Make them.
        """
        self.authority = Authority()
        self.server = self.authority.issue(distinguished("server"), hosts=["host.test", "10.0.0.1"])
        self.client = self.authority.issue(distinguished("alice"))
        self.directory = Path(self.mktemp())
        self.authority.write(str(self.directory), self.server)

    def serverContext(self, *, verify: bool = True) -> ServerContextFactory:
        """
        Make the server's side.
        """
        return ServerContextFactory(partial(serverFiles, self.directory), verify=verify)

    def clientFiles(
        self, identity: Identity | None, authority: Authority | None = None
    ) -> CertificateFiles:
        """
        Write a client's files.
        """
        flat = Path(self.mktemp())
        (authority or self.authority).writeFlat(str(flat), identity)
        return clientFiles(flat)

    def clientContext(
        self, identity: Identity | None, host: str = "host.test", *, verify: bool = True
    ) -> ClientContextFactory:
        """
        Make the client's side.
        """
        return ClientContextFactory(self.clientFiles(identity), host, verify=verify)

    def anyClientContext(
        self, identity: Identity, others: Sequence[Identity] = ()
    ) -> ClientContextFactory:
        """
        Make the client's side with a certificate that no honest client would try to use.
        """
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.use_certificate(identity.certificate)
        for other in others:
            context.add_extra_chain_cert(other.certificate)
        context.use_privatekey(identity.key)
        factory = self.clientContext(None, verify=False)
        factory._context = context
        return factory

    def connect(
        self,
        server: ServerContextFactory,
        client: ClientContextFactory,
        protocol: type[Remembering] = Checking,
        *,
        pieces: int = 65536,
    ) -> tuple[Any, Any]:
        """
        Connect them, and let them do all that they have to do.

        @param pieces: in how large pieces the bytes arrive.
        @return: the server's end and the client's.
        """
        clock = Clock()

        def wrapped(context: Any, kind: type[Remembering], *, isClient: bool) -> Any:
            factory = Factory.forProtocol(kind)
            return TLSMemoryBIOFactory(context, isClient, factory, clock=clock).buildProtocol(None)

        serverEnd = wrapped(server, protocol, isClient=False)
        clientEnd = wrapped(client, Remembering, isClient=True)
        ends = serverEnd.wrappedProtocol, clientEnd.wrappedProtocol
        for end in (serverEnd, clientEnd):
            end.dataReceived = partial(inPieces, end.dataReceived, pieces)
        pump = connect(
            serverEnd,
            FakeTransport(serverEnd, isServer=True),
            clientEnd,
            FakeTransport(clientEnd, isServer=False),
        )
        if ends[0].lost is None:
            ends[0].transport.write(b"hello")
        for _ in range(5):
            clock.advance(0)
            pump.flush()
        return ends


class ServerTests(TLSTestCase):
    """
    Tests for L{ServerContextFactory}, with a protocol that looks at the certificate itself.
    """

    def problem(
        self, client: ClientContextFactory, server: ServerContextFactory | None = None
    ) -> str | None:
        """
        Connect.

        @return: what the server has against the client's certificate.
        """
        end, _client = self.connect(server or self.serverContext(), client)
        self.assertTrue(end.done)
        return examine(end.transport).problem

    def test_accepted(self) -> None:
        """
        A client with a certificate that the authority has signed is known by it.
        """
        server, client = self.connect(self.serverContext(), self.clientContext(self.client))
        identity = examine(server.transport)
        self.assertIsNone(identity.problem)
        self.assertEqual(identity.dn, "C=GB,ST=London,L=London,O=Red Hat,CN=alice")
        self.assertEqual(identity.fingerprint, hashlib.sha256(self.client.der).hexdigest())
        self.assertEqual(client.received, b"hello")

    def test_none(self) -> None:
        """
        One without a certificate is found out.
        """
        self.assertEqual(self.problem(self.clientContext(None)), "it has no certificate")

    def test_noneWanted(self) -> None:
        """
        Unless none is wanted.
        """
        server, client = self.connect(
            self.serverContext(verify=False), self.clientContext(self.client)
        )
        self.assertEqual(examine(server.transport), tls.TLSIdentity(None, None, None))
        self.assertEqual(client.received, b"hello")

    def test_otherAuthority(self) -> None:
        """
        A certificate that another authority has signed is found out.
        """
        for other in (Authority("Other CA"), Authority("Test CA")):
            self.assertEqual(
                self.problem(self.anyClientContext(other.issue(distinguished("alice")))),
                "its certificate is not signed by an authority (CA) that is trusted here",
            )

    def test_signedByItself(self) -> None:
        """
        So is one that nobody has signed but itself.
        """
        self.assertEqual(
            self.problem(self.anyClientContext(Authority("alice"))),
            "its certificate is not signed by an authority (CA) that is trusted here",
        )

    def test_expired(self) -> None:
        """
        So is one that has expired.
        """
        expired = self.authority.issue(distinguished("alice"), start=-3 * DAYS, end=-DAYS)
        self.assertEqual(
            self.problem(self.anyClientContext(expired)), "its certificate has expired"
        )

    def test_notYetValid(self) -> None:
        """
        So is one that is not valid yet.
        """
        early = self.authority.issue(distinguished("alice"), start=DAYS, end=2 * DAYS)
        self.assertEqual(
            self.problem(self.anyClientContext(early)), "its certificate is not valid yet"
        )

    def test_inPieces(self) -> None:
        """
        A handshake may arrive in however small pieces, with good certificates and with bad ones.
        """
        other = Authority("Other CA").issue(distinguished("alice"))
        for pieces in (1, 100):
            for client, good in ((self.client, True), (other, False)):
                server, _client = self.connect(
                    self.serverContext(), self.anyClientContext(client), pieces=pieces
                )
                self.assertIsNone(server.lost)
                self.assertTrue(server.done)
                self.assertEqual(examine(server.transport).problem is None, good)

    def test_twoProblems(self) -> None:
        """
        Of two problems one is told.
        """
        other = Authority("Other CA").issue(distinguished("a"), start=-3 * DAYS, end=-DAYS)
        self.assertIn("is not signed by", str(self.problem(self.anyClientContext(other))))

    def test_purpose(self) -> None:
        """
        So is one that is for servers.
        """
        wrong = self.authority.issue(
            distinguished("alice"), purposes=[ExtendedKeyUsageOID.SERVER_AUTH]
        )
        self.assertIn("is not meant for", str(self.problem(self.anyClientContext(wrong))))

    def test_between(self) -> None:
        """
        An authority in between may have signed it, if it is still valid itself.
        """
        between = Authority("Between", issuer=self.authority)
        client = self.anyClientContext(between.issue(distinguished("alice")), [between])
        self.assertIsNone(self.problem(client))
        expired = Authority("Between", issuer=self.authority, start=-3 * DAYS, end=-DAYS)
        client = self.anyClientContext(expired.issue(distinguished("alice")), [expired])
        self.assertEqual(
            self.problem(client),
            "its certificate is signed by an authority whose certificate has expired",
        )

    def test_revoked(self) -> None:
        """
        A certificate on the authority's list is found out, and others are not.
        """
        self.authority.write(str(self.directory), crl=self.authority.revoke(self.client))
        self.assertEqual(
            self.problem(self.clientContext(self.client)), "its certificate has been revoked"
        )
        other = self.authority.issue(distinguished("bob"))
        self.assertIsNone(self.problem(self.clientContext(other)))

    def test_revocationUnknown(self) -> None:
        """
        With lists of some authorities, a certificate from another, of which it cannot be known
        whether it has been revoked, is not taken.
        """
        between = Authority("Between", issuer=self.authority)
        client = self.anyClientContext(between.issue(distinguished("alice")), [between])
        self.authority.write(str(self.directory), crl=self.authority.revoke())
        self.assertIn("list of revoked certificates is missing", str(self.problem(client)))

    def test_revocationOfTheSigner(self) -> None:
        """
        The list of the one that has signed it is enough.
        """
        between = Authority("Between", issuer=self.authority)
        client = self.anyClientContext(between.issue(distinguished("alice")), [between])
        both = self.authority.certificatePEM + between.certificatePEM
        (self.directory / "CA/cacert.pem").write_bytes(both)
        (self.directory / "CA/cacrl.pem").write_bytes(between.revoke())
        self.assertIsNone(self.problem(client))

    def test_unusableName(self) -> None:
        """
        A certificate in whose name a value is empty is found out, as by libvirtd.
        """
        nobody = [(NameOID.COMMON_NAME, "alice")]
        der = certificateFor(name([("2.5.4.3", 0x0C, b"")]))
        self.patch(tls, "dump_certificate", lambda _form, _certificate: der)
        end, _client = self.connect(
            self.serverContext(), self.clientContext(self.authority.issue(nobody))
        )
        identity = examine(end.transport)
        self.assertIsNone(identity.dn)
        self.assertEqual(identity.fingerprint, hashlib.sha256(der).hexdigest())
        self.assertIn("has no usable name", str(identity.problem))

    def test_version(self) -> None:
        """
        Where OpenSSL sends session tickets, TLS 1.2 is the newest that is spoken.
        """
        context = self.serverContext()
        self.assertEqual(context.version, "1.2")
        end, _client = self.connect(context, self.clientContext(self.client))
        self.assertEqual(end.transport.getHandle().get_protocol_version_name(), "TLSv1.2")

    def test_versionWithoutTickets(self) -> None:
        """
        Where it sends none, TLS 1.3 is.
        """
        reads = iter([SSL.Connection.bio_read] * 3)

        def read(connection: SSL.Connection, size: int) -> bytes:
            try:
                return next(reads)(connection, size)
            except StopIteration:
                raise SSL.WantReadError from None

        unpatched = SSL.Connection.bio_read
        self.patch(SSL.Connection, "bio_read", read)
        context = self.serverContext()
        self.patch(SSL.Connection, "bio_read", unpatched)
        self.assertEqual(context.version, "1.3")
        end, _client = self.connect(context, self.clientContext(self.client))
        self.assertEqual(end.transport.getHandle().get_protocol_version_name(), "TLSv1.3")

    def test_reload(self) -> None:
        """
        Another certificate is used from when it is read on, for connections that come then.
        """
        context = self.serverContext()
        first, _client = self.connect(context, self.clientContext(self.client))
        renewed = self.authority.issue(distinguished("renewed"), hosts=["host.test"])
        self.authority.write(str(self.directory), renewed)
        context.reload()
        _server, client = self.connect(context, self.clientContext(self.client))
        self.assertIn("CN=renewed", str(examine(client.transport).dn))
        self.assertIsNone(first.lost)

    def test_reloadFindsRevocations(self) -> None:
        """
        A list of revoked certificates that was not there before is found.
        """
        context = self.serverContext()
        self.authority.write(str(self.directory), crl=self.authority.revoke(self.client))
        context.reload()
        self.assertEqual(
            self.problem(self.clientContext(self.client), context),
            "its certificate has been revoked",
        )

    def test_reloadFails(self) -> None:
        """
        What cannot be used leaves everything as it was.
        """
        context = self.serverContext()
        (self.directory / "CA/cacert.pem").write_bytes(b"rubbish")
        self.assertRaises(PKIError, context.reload)
        self.assertIsNone(self.problem(self.clientContext(self.client), context))

    def test_unusable(self) -> None:
        """
        Without usable files there is no server.
        """
        (self.directory / "CA/cacert.pem").unlink()
        self.assertRaises(PKIError, self.serverContext)


class OtherServerTests(TLSTestCase):
    """
    Tests for L{ServerContextFactory} with a protocol that knows nothing of certificates, and has
    to be kept from clients without good ones.
    """

    def test_accepted(self) -> None:
        """
        A client with a good certificate gets through.
        """
        server, client = self.connect(
            self.serverContext(), self.clientContext(self.client), Remembering
        )
        self.assertIsNone(server.lost)
        self.assertEqual(client.received, b"hello")

    def test_none(self) -> None:
        """
        One without a certificate does not.
        """
        server, client = self.connect(self.serverContext(), self.clientContext(None), Remembering)
        self.assertIsInstance(server.lost, CertificateRefused)
        self.assertEqual(str(server.lost), "the client has no certificate")
        self.assertEqual(client.received, b"")

    def test_bad(self) -> None:
        """
        One with a bad certificate does not, and is told so.
        """
        self.authority.write(str(self.directory), crl=self.authority.revoke(self.client))
        server, client = self.connect(
            self.serverContext(), self.clientContext(self.client), Remembering
        )
        self.assertIsInstance(server.lost, CertificateRefused)
        self.assertEqual(str(server.lost), "the client's certificate has been revoked")
        self.assertIsInstance(client.lost, CertificateRefused)
        self.assertEqual(
            str(client.lost),
            "the server does not accept this client's certificate: certificate revoked",
        )

    def test_toldLate(self) -> None:
        """
        In TLS 1.3 it is told when the handshake has long been done as far as it knows.
        """
        self.patch(tls, "_sendsTickets", lambda _context: False)
        self.authority.write(str(self.directory), crl=self.authority.revoke(self.client))
        _server, client = self.connect(
            self.serverContext(), self.clientContext(self.client), Remembering
        )
        self.assertIsInstance(client.lost, CertificateRefused)

    def test_idleMemory(self) -> None:
        """
        The buffers of a connection are given back while nothing is sent, at both ends: they are
        most of what one weighs that is idle.
        """
        for factory in (self.serverContext(), self.clientContext(self.client)):
            self.assertTrue(factory._context.set_mode(0) & SSL.MODE_RELEASE_BUFFERS)


class ClientTests(TLSTestCase):
    """
    Tests for L{ClientContextFactory}.
    """

    def refusal(self, client: ClientContextFactory) -> str:
        """
        Connect.

        @return: what the client has against the server's certificate.
        """
        _server, end = self.connect(self.serverContext(), client)
        self.assertIsInstance(end.lost, CertificateRefused)
        self.assertEqual(end.received, b"")
        return str(end.lost)

    def test_accepted(self) -> None:
        """
        A server is accepted by a name or an address that is in its certificate.
        """
        for host in ("host.test", "10.0.0.1"):
            _server, end = self.connect(self.serverContext(), self.clientContext(self.client, host))
            self.assertEqual(end.received, b"hello")
            self.assertIn("CN=server", str(examine(end.transport).dn))

    def test_otherName(self) -> None:
        """
        It is not accepted by another name, and the names that there are are told.
        """
        self.assertEqual(
            self.refusal(self.clientContext(self.client, "other.test")),
            "the server's certificate is for host.test, 10.0.0.1, not for other.test; connect to "
            "it by a name that it is for",
        )

    def test_otherAddress(self) -> None:
        """
        Nor by another address.
        """
        self.assertIn("not for 10.0.0.2", self.refusal(self.clientContext(self.client, "10.0.0.2")))

    def test_noNames(self) -> None:
        """
        Nor without any name, since that in the subject does not count.
        """
        self.authority.write(
            str(self.directory), self.authority.issue([(NameOID.COMMON_NAME, "host.test")])
        )
        self.assertIn("it needs a subjectAltName", self.refusal(self.clientContext(self.client)))

    def test_otherAuthority(self) -> None:
        """
        Nor with a certificate that another authority has signed.
        """
        other = Authority("Other CA")
        files = self.clientFiles(other.issue(distinguished("alice")), other)
        self.assertEqual(
            self.refusal(ClientContextFactory(files, "host.test")),
            "the server's certificate is not signed by an authority (CA) that is trusted here",
        )

    def test_chain(self) -> None:
        """
        A server shows the authorities between itself and the one that is trusted.
        """
        between = Authority("Between", issuer=self.authority)
        server = between.issue(distinguished("server"), hosts=["host.test"])
        self.authority.write(str(self.directory), server)
        chain = server.certificatePEM + between.certificatePEM
        (self.directory / "libvirt/servercert.pem").write_bytes(chain)
        _server, end = self.connect(self.serverContext(), self.clientContext(self.client))
        self.assertEqual(end.received, b"hello")

    def test_unverified(self) -> None:
        """
        A client can do without all that.
        """
        other = Authority("Other CA")
        files = self.clientFiles(None, other)
        _server, end = self.connect(
            self.serverContext(verify=False),
            ClientContextFactory(files, "other.test", verify=False),
        )
        self.assertEqual(end.received, b"hello")

    def test_otherErrors(self) -> None:
        """
        What is not about certificates stays what it is.
        """

        def broken(connection: SSL.Connection, *arguments: object) -> bytes:
            raise SSL.Error([("SSL routines", "", "tlsv1 alert internal error")])

        def empty(connection: SSL.Connection, *arguments: object) -> bytes:
            raise SSL.Error([])

        nobody: Any = None
        connection = self.clientContext(None).clientConnectionForTLS(nobody)
        for problem in (broken, empty):
            self.patch(SSL.Connection, "recv", problem)
            error = self.assertRaises(SSL.Error, connection.recv, 1)
            self.assertNotIsInstance(error, CertificateRefused)
        self.patch(SSL.Connection, "do_handshake", broken)
        error = self.assertRaises(SSL.Error, connection.do_handshake)
        self.assertNotIsInstance(error, CertificateRefused)

    def test_cutShort(self) -> None:
        """
        A connection that ends in the middle of the handshake is lost as Twisted has it.
        """
        clock = Clock()
        factory = TLSMemoryBIOFactory(
            self.clientContext(None), True, Factory.forProtocol(Remembering), clock=clock
        )
        wrapper: Any = factory.buildProtocol(None)
        end = wrapper.wrappedProtocol
        wrapper.makeConnection(FakeTransport(wrapper, isServer=False))
        wrapper.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(end.lost, ConnectionDone | ConnectionLost)


class ExplainTests(SynchronousTestCase):
    """
    Tests for L{explainTLS}.
    """

    def test_queue(self) -> None:
        """
        Of what OpenSSL has queued up, the last is what counts.
        """
        error = SSL.Error([("a", "b", "first"), ("a", "b", "wrong version number")])
        self.assertEqual(explainTLS(error), "wrong version number")

    def test_others(self) -> None:
        """
        Anything else says itself what it is.
        """
        self.assertEqual(explainTLS(CertificateRefused("no")), "no")
        self.assertEqual(explainTLS(SSL.Error()), "")
        self.assertEqual(explainTLS(ConnectionDone("bye")), "Connection was closed cleanly: bye.")
