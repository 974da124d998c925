"""
Helpers for tests of TLS: both ends of a connection in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kaproto.security.handshake import ICertificateChecker
from kaproto.security.pki import CertificateFiles, clientFiles, serverFiles
from kaproto.security.tls import ClientContextFactory, ServerContextFactory, examine
from kaproto.security.tlslayer import TLSFactory
from tests.pki import Authority, Identity, distinguished

__all__ = ["Checking", "Remembering", "TLSTestCase", "inPieces"]


class Remembering(Protocol):
    """
    A protocol that records what it receives.
    """

    transport: Any
    lost: Exception | None = None

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        """
        Record the bytes.
        """
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the reason.
        """
        assert isinstance(reason.value, Exception)
        self.lost = reason.value


@implementer(IHandshakeListener, ICertificateChecker)
class Checking(Remembering):
    """
    A protocol that checks the peer's certificate itself, after the handshake.
    """

    done = False

    def handshakeCompleted(self) -> None:
        """
        Record the end of the handshake.
        """
        self.done = True


def inPieces(receive: Callable[[bytes], None], size: int, data: bytes) -> None:
    """
    Deliver bytes in pieces of this size.
    """
    for start in range(0, len(data), size):
        receive(data[start : start + size])


class TLSTestCase(SynchronousTestCase):
    """
    Base class for tests of TLS, with an authority and certificates.
    """

    def setUp(self) -> None:
        """
        Create an authority, and certificates for a server and a client.
        """
        self.authority = Authority()
        self.server = self.authority.issue(distinguished("server"), hosts=["host.test", "10.0.0.1"])
        self.client = self.authority.issue(distinguished("alice"))
        self.directory = Path(self.mktemp())
        self.authority.write(str(self.directory), self.server)

    def serverContext(self, *, verify: bool = True) -> ServerContextFactory:
        """
        @return: the server's side.
        """
        return ServerContextFactory(partial(serverFiles, self.directory), verify=verify)

    def clientFiles(
        self, identity: Identity | None, authority: Authority | None = None
    ) -> CertificateFiles:
        """
        Write a client's certificate files.
        """
        flat = Path(self.mktemp())
        (authority or self.authority).writeFlat(str(flat), identity)
        return clientFiles(flat)

    def clientContext(
        self, identity: Identity | None, host: str = "host.test", *, verify: bool = True
    ) -> ClientContextFactory:
        """
        @return: the client's side.
        """
        return ClientContextFactory(self.clientFiles(identity), host, verify=verify)

    def anyClientContext(
        self, identity: Identity, others: Sequence[Identity] = ()
    ) -> ClientContextFactory:
        """
        @return: the client's side with any certificate, even one that no honest client would use.
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
        Connect both sides in memory, do the handshake, and write something from the server.

        @param pieces: the size of the pieces in which bytes arrive.
        @return: the server's protocol and the client's.
        """
        clock = Clock()

        def wrapped(context: Any, kind: type[Remembering], *, isClient: bool) -> Any:
            factory = Factory.forProtocol(kind)
            return TLSFactory(context, isClient, factory, clock=clock).buildProtocol(None)

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

    def problem(
        self, client: ClientContextFactory, server: ServerContextFactory | None = None
    ) -> str | None:
        """
        Connect a client.

        @return: why the server rejects the client's certificate, if it does.
        """
        end, _client = self.connect(server or self.serverContext(), client)
        self.assertTrue(end.done)
        return examine(end.transport).problem
