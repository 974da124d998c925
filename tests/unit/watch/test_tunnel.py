"""
Tests for L{kaproto.watch.tunnel}.
"""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer

from kaproto.errors import KeepAliveTimeout
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Disable, Mandatory, Optional
from kaproto.testing import memoryPair
from kaproto.watch.tunnelclient import tunnelClient
from kaproto.watch.tunnelmessages import TunnelMessages
from kaproto.watch.tunnelserver import tunnelServer
from kaproto.watch.tunnelwire import DATA_MAX, TunnelWire
from kaproto.wire.message import PING

TERMS = KeepAlive(1, 2)
MESSAGES = TunnelMessages()
ADDRESS = IPv4Address("TCP", "192.0.2.1", 5)


class Application(Protocol):
    """
    An application that records the bytes it receives.
    """

    greeting = b""

    def __init__(self) -> None:
        self.heard = b""
        self.connections = 0
        self.lost: list[BaseException] = []

    def connectionMade(self) -> None:
        """
        Count the connection, and send the greeting if there is one.
        """
        self.connections += 1
        if self.greeting:
            assert self.transport is not None
            self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        """
        Record the bytes.
        """
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the reason.
        """
        assert reason.value is not None
        self.lost.append(reason.value)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Application):
    """
    An application that stays connected when its peer closes one direction.
    """

    ended = 0

    def readConnectionLost(self) -> None:
        """
        Count the end of the peer's stream.
        """
        self.ended += 1

    def writeConnectionLost(self) -> None:
        """
        Do nothing: the end of our own stream is not recorded.
        """


class TLSTransport(StringTransport):
    """
    A TLS transport with a peer certificate.
    """

    def __init__(self) -> None:
        super().__init__(peerAddress=ADDRESS)  # type: ignore[no-untyped-call]
        alsoProvides(self, ISSLTransport)

    def getPeerCertificate(self) -> object:
        """
        @return: a stand-in for the peer's certificate.
        """
        return "a certificate"


class Applications(Factory):
    """
    A factory that always returns the same application.
    """

    noisy = False

    def __init__(self, application: Any) -> None:
        self.application = application

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Return the application.
        """
        return self.application


class TunnelTestCase(SynchronousTestCase):
    """
    A test case with two applications, a tunnel between them, and a clock.
    """

    def setUp(self) -> None:
        """
        Create the clock and the applications.
        """
        self.clock = Clock()
        self.server: Any = Application()
        self.client: Any = Application()
        self.events = self.enterContext(capturedLogs())

    def pair(self, policy: Any = None, *, plain: bool = False, **more: Any) -> Any:
        """
        Connect the two.

        @param plain: connect the client without a tunnel.
        """
        server = tunnelServer(
            Applications(self.server), policy or Mandatory(TERMS), clock=self.clock, **more
        )
        client: Any = Applications(self.client)
        if not plain:
            client = tunnelClient(client, TERMS, clock=self.clock)
        made = memoryPair(server, client, self.clock)
        made.flush()
        return made

    def logged(self) -> str:
        """
        @return: the log as one text.
        """
        return "\n".join(formatEvent(event) for event in self.events)


class TunnelTests(TunnelTestCase):
    """
    Tests for a tunnel with both ends.
    """

    def test_bytes(self) -> None:
        """
        The applications' bytes arrive, and the server's application sees the client's address.
        """
        pair = self.pair()
        self.assertIs(self.successResultOf(pair.client.ready), self.client)
        self.client.transport.write(b"hello")
        self.client.transport.write(b"")
        self.server.transport.writeSequence([b"wel", b"come"])
        pair.flush()
        self.assertEqual((self.server.heard, self.client.heard), (b"hello", b"welcome"))
        self.assertEqual(self.server.transport.getPeer(), pair.serverTransport.getPeer())

    def test_certificate(self) -> None:
        """
        The application's transport has the addresses and the certificate of the underlying one.
        """
        factory = tunnelServer(Applications(self.server), Mandatory(TERMS), clock=self.clock)
        protocol: Any = factory.buildProtocol(ADDRESS)
        protocol.makeConnection(TLSTransport())
        protocol.dataReceived(MESSAGES.ask(1))
        transport = self.server.transport
        self.assertTrue(ISSLTransport.providedBy(transport))
        self.assertEqual(transport.getPeerCertificate(), "a certificate")
        self.assertEqual(transport.getPeer(), ADDRESS)
        protocol.connectionLost(Failure(ConnectionDone()))

    def test_idle(self) -> None:
        """
        Idle ends ping each other and stay connected.
        """
        pair = self.pair()
        pair.advance(60)
        self.assertEqual((self.server.lost, self.client.lost), ([], []))
        for name in ("server", "client"):
            pings = [data for _, data in pair.writtenBy(name) if data == PING]
            self.assertGreater(len(pings), 20)

    def test_greeting(self) -> None:
        """
        A server can speak first in every mode, with or without a producer.
        """
        for policy in (Optional(TERMS), Mandatory(TERMS)):
            self.setUp()
            self.server.greeting = b"220 ready"
            server = tunnelServer(Applications(self.server), policy, clock=self.clock)
            client = tunnelClient(Applications(self.client), TERMS, clock=self.clock)
            pair = memoryPair(server, client, self.clock)
            if self.server.transport is not None:
                self.server.transport.registerProducer(object(), False)
            pair.flush()
            self.assertEqual(self.client.heard, b"220 ready")
            self.client.transport.write(b"HELO")
            pair.flush()
            self.assertEqual(self.server.heard, b"HELO")

    def test_dead(self) -> None:
        """
        Both ends detect that the network no longer delivers anything.
        """
        pair = self.pair()
        pair.blackhole()
        pair.advance(3.1)
        for application in (self.server, self.client):
            (reason,) = application.lost
            self.assertIsInstance(reason, KeepAliveTimeout)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_modes(self) -> None:
        """
        In mode 0 the server sends no pings; the client's pings are answered in all modes.
        """
        for policy in (Disable(TERMS), Optional(TERMS), Mandatory(TERMS)):
            self.setUp()
            pair = self.pair(policy)
            pair.advance(10)
            self.assertEqual((self.server.lost, self.client.lost), ([], []))
            pings = [data for _, data in pair.writtenBy("server") if data == PING]
            self.assertEqual(bool(pings), policy.name != "disable")

    def test_large(self) -> None:
        """
        Data that is too long for one message is split.
        """
        wire = TunnelWire(server=True)
        data = wire.wrap(bytes(DATA_MAX + 5))
        self.assertEqual(len(data), DATA_MAX + 5 + 2 * 28)

    def connectSocket(self) -> tuple[Any, Any, socket.socket]:
        """
        Connect the server's end of a tunnel to a real socket.

        @return: the tunnel, Twisted's connection and the peer's socket.
        """
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        theirs.setblocking(False)
        connection = tcp.Connection(ours, Protocol(), MemoryReactorClock())
        connection.connected = True
        connection.getPeer = lambda: ADDRESS  # type: ignore[method-assign]
        factory = tunnelServer(Applications(self.server), Mandatory(TERMS), clock=self.clock)
        protocol: Any = factory.buildProtocol(ADDRESS)
        protocol.makeConnection(connection)
        self.addCleanup(protocol.connectionLost, Failure(ConnectionDone()))
        protocol.dataReceived(MESSAGES.ask(1))
        connection.doWrite()
        theirs.recv(65536)
        return protocol, connection, theirs

    def test_roomForHeaders(self) -> None:
        """
        Message headers do not change backpressure: an application that writes 64 KiB pieces is
        paused after the second, as without a tunnel, and each piece is sent whole.
        """
        protocol, connection, _peer = self.connectSocket()
        with self.assertRaises(BlockingIOError):
            while connection.socket.send(bytes(65536)):
                pass
        paused: list[int] = []
        producer: Any = SimpleNamespace(pauseProducing=lambda: paused.append(len(written)))
        protocol.registerProducer(producer, True)
        written: list[bytes] = []
        for _ in range(2):
            written.append(bytes(tcp.Connection.bufferSize))
            protocol.write(written[-1])
        self.assertEqual(paused, [2])
        message = protocol._wire.wrap(written[0])
        self.assertEqual(connection.bufferSize, len(message))
        self.assertGreaterEqual(connection.SEND_LIMIT, 2 * len(message))

    def test_writing(self) -> None:
        """
        A large piece is sent at once, and small pieces together in the reactor's next turn, in
        order.
        """
        small, large = b"word", bytes(16384)
        protocol, connection, peer = self.connectSocket()
        wrap = TunnelWire(server=True).wrap
        protocol.write(large)
        self.assertEqual(peer.recv(65536), wrap(large))
        for piece in (small, small, large):
            protocol.write(piece)
        self.assertRaises(BlockingIOError, peer.recv, 65536)
        connection.doWrite()
        self.assertEqual(peer.recv(65536), wrap(small) * 2 + wrap(large))

    def test_readingMore(self) -> None:
        """
        During a bulk transfer the connection reads more than Twisted's usual 64 KiB at once, and
        afterwards as usual.
        """
        protocol, connection, _peer = self.connectSocket()
        transfer = protocol._wire.wrap(bytes(65536))
        usual = connection.bufferSize
        for piece in (transfer, transfer * 2, protocol._wire.wrap(b"a word")):
            protocol.dataReceived(piece)
            self.assertEqual(connection.bufferSize > usual, len(piece) >= usual)
        self.assertEqual(self.server.heard, bytes(3 * 65536) + b"a word")

    def test_close(self) -> None:
        """
        Closing and aborting work as without a tunnel.
        """
        pair = self.pair()
        self.server.transport.write(b"bye")
        self.server.transport.loseConnection()
        pair.flush()
        self.assertEqual(self.client.heard, b"bye")
        self.assertIsInstance(self.client.lost[0], ConnectionDone)
        self.setUp()
        pair = self.pair()
        self.client.transport.abortConnection()
        pair.flush()
        self.assertIsInstance(self.client.lost[0], ConnectionAborted)
        self.assertIsInstance(self.server.lost[0], ConnectionLost)

    def test_halfClose(self) -> None:
        """
        Each direction can be closed by itself, and pings continue.
        """
        self.server, self.client = HalfCloseable(), HalfCloseable()
        pair = self.pair()
        self.client.transport.loseWriteConnection()
        self.client.transport.loseWriteConnection()
        pair.advance(10)
        self.assertEqual((self.server.ended, self.client.ended), (1, 0))
        self.server.transport.write(b"and now?")
        pair.flush()
        self.assertEqual((self.client.heard, self.server.lost), (b"and now?", []))
        self.server.transport.loseWriteConnection()
        pair.flush()
        self.assertEqual(self.client.ended, 1)
        self.assertEqual((len(self.server.lost), len(self.client.lost)), (1, 1))

    def test_noUseForHalf(self) -> None:
        """
        An application that does not support half-closed connections is disconnected.
        """
        for end, other in (("client", "server"), ("server", "client")):
            self.setUp()
            pair = self.pair()
            getattr(self, end).transport.loseWriteConnection()
            pair.flush()
            self.assertIsInstance(getattr(self, other).lost[0], ConnectionDone)
