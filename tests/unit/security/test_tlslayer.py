"""
Tests for L{kaproto.security.tlslayer}.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, cast
from unittest import SkipTest, mock

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols import tls as tlsModule
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect

from kaproto.errors import PeerFlooded, RemoteProtocolError
from kaproto.security import tls
from kaproto.security.tls import CONFIRMATION, ServerContextFactory, examine
from kaproto.security.tlslayer import HANDSHAKE_MAX, UNASKED_MAX, TLSFactory
from kaproto.server import KeepAliveServerFactory
from kaproto.transport import writeNow
from kaproto.wire.message import PING, packMessage
from kaproto.wire.programs import Procedure
from tests.pki import Authority, Identity, distinguished
from tests.rawtls import CIPHER, RawTLS12, RawTLS13
from tests.support import call, freezeOlder
from tests.support_tls import Checking, TLSTestCase

MOST = 40_000
"""
The most bytes that may be buffered for a peer that does not read.
"""


class Transport(StringTransport):
    """
    The transport below TLS.
    """

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Do nothing.
        """


class Client:
    """
    A client's OpenSSL connection, whose peer is the layer under test.

    @ivar connection: the OpenSSL connection.
    @ivar layer: the peer.
    """

    def __init__(self, context: SSL.Context, layer: Any) -> None:
        self.connection = SSL.Connection(context, None)
        self.connection.set_connect_state()
        self.layer = layer
        self.transport = Transport(peerAddress=IPv4Address("TCP", "192.0.2.1", 1))
        layer.makeConnection(self.transport)

    def flight(self) -> bytes:
        """
        Read what the peer has written.

        @return: the bytes to answer.
        """
        written = self.transport.value()
        self.transport.clear()
        if written:
            self.connection.bio_write(written)
        with contextlib.suppress(SSL.WantReadError):
            self.connection.do_handshake()
        try:
            return self.connection.bio_read(1 << 20)
        except SSL.WantReadError:
            return b""

    def handshake(self) -> None:
        """
        Complete the handshake.
        """
        while flight := self.flight():
            self.layer.dataReceived(flight)

    def received(self) -> bytes:
        """
        @return: the data that the peer has sent.
        """
        self.flight()
        data = b""
        with contextlib.suppress(SSL.WantReadError, SSL.ZeroReturnError):
            while True:
                data += self.connection.recv(1 << 16)
        return data


class LayerTestCase(TLSTestCase):
    """
    A test case with a server's TLS layer, for which the test plays the network.
    """

    def setUp(self) -> None:
        """
        Create a clock.
        """
        super().setUp()
        self.clock = Clock()

    def context(self, identity: Identity | None = None) -> SSL.Context:
        """
        @return: a client's context.
        """
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_cipher_list(CIPHER)
        identity = identity or self.client
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
        return context

    def layer(
        self,
        factory: Any = None,
        *,
        kind: type[TLSMemoryBIOFactory] = TLSFactory,
        context: ServerContextFactory | None = None,
    ) -> Any:
        """
        @return: a server's TLS layer.
        """
        factory = factory or Factory.forProtocol(Checking)
        made: Any = kind(
            context or self.serverContext(), False, factory, cast(IReactorTime, self.clock)
        )
        return made.buildProtocol(None)


class HandshakeTests(LayerTestCase):
    """
    Tests for the limit on bytes received before the handshake completes.
    """

    def test_endless(self) -> None:
        """
        An endless handshake message ends the connection, no matter how its bytes are split.
        """
        part = b"\x16\x03\x01\x40\x00" + bytes(0x4000)
        hello = b"\x16\x03\x01\x00\x04\x01\x01\xff\xff" + part * 4
        for pieces in (len(hello), 1000):
            layer = self.layer()
            client = Client(self.context(), layer)
            sent = 0
            while not client.transport.disconnecting and sent < len(hello):
                layer.dataReceived(hello[sent : sent + pieces])
                sent += pieces
            self.assertLess(sent, HANDSHAKE_MAX + pieces + 1)
            layer.connectionLost(Failure(ConnectionDone()))

    def test_said(self) -> None:
        """
        The protocol is told the reason.
        """
        layer = self.layer()
        protocol = layer.wrappedProtocol
        client = Client(self.context(), layer)
        client.layer.dataReceived(b"\x16\x03\x01\x40\x00\x01\x01\xff\xff" + bytes(0x4000 - 4))
        self.assertFalse(client.transport.disconnecting)
        client.layer.dataReceived(b"\x16\x03\x01\x40\x00" + bytes(0x4000))
        self.assertTrue(client.transport.disconnecting)
        layer.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(protocol.lost, RemoteProtocolError)
        self.assertIn("without completing the TLS handshake", str(protocol.lost))

    def test_muchBehind(self) -> None:
        """
        Data that arrives together with the end of the handshake does not count.
        """
        self.patch(tls, "_sendsTickets", lambda _context: False)
        layer = self.layer()
        protocol = layer.wrappedProtocol
        client = Client(self.context(), layer)
        layer.dataReceived(client.flight())
        last = client.flight()
        for _ in range(4):
            client.connection.send(bytes(16000))
        layer.dataReceived(last + client.connection.bio_read(1 << 20))
        self.assertEqual(len(protocol.received), 64000)

    def test_bytesReceived(self) -> None:
        """
        A partial record counts in C{bytesReceived}, although the protocol receives nothing yet.
        """
        layer = self.layer()
        protocol = layer.wrappedProtocol
        client = Client(self.context(), layer)
        client.handshake()
        before = layer.bytesReceived
        client.connection.send(b"hello")
        record = client.connection.bio_read(1 << 20)
        layer.dataReceived(record[:10])
        self.assertEqual((layer.bytesReceived - before, protocol.received), (10, b""))
        layer.dataReceived(record[10:])
        self.assertEqual(layer.bytesReceived - before, len(record))
        self.assertEqual(protocol.received, b"hello")


class WriteNowTests(LayerTestCase):
    """
    Tests for L{writeNow}, which encrypts and writes without waiting for the reactor.
    """

    def setUp(self) -> None:
        """
        Connect a client.
        """
        super().setUp()
        self.tls = self.layer()
        self.peer = Client(self.context(), self.tls)

    def test_atOnce(self) -> None:
        """
        Bytes reach the transport in the same turn, after those written before.
        """
        self.peer.handshake()
        large = bytes(range(256)) * 1000
        self.tls.write(b"first")
        writeNow(self.tls, memoryview(b" second "))
        writeNow(self.tls, large)
        self.assertEqual(self.peer.received(), b"first second " + large)

    def test_duringHandshake(self) -> None:
        """
        Bytes written during the handshake wait for its end.
        """
        writeNow(self.tls, b"early")
        self.clock.advance(0)
        self.peer.handshake()
        self.assertEqual(self.peer.received(), b"early")

    def test_output(self) -> None:
        """
        However much OpenSSL has to send, all of it is sent.
        """
        self.peer.handshake()
        for _ in range(200):
            self.tls.getHandle().send(bytes(1000))
        self.tls._flushSendBIO()
        self.assertEqual(self.peer.received(), bytes(200000))

    def test_largeAtOnce(self) -> None:
        """
        A protocol can write any number of bytes when it is connected.
        """

        class Talkative(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(bytes(100000))

        peer = Client(self.context(), self.layer(Factory.forProtocol(Talkative)))
        peer.handshake()
        self.assertEqual(peer.received(), bytes(100000))

    def test_afterEnd(self) -> None:
        """
        Bytes after the peer's close alert, or after an error, change nothing.
        """
        self.peer.handshake()
        self.peer.connection.shutdown()
        self.tls.dataReceived(self.peer.connection.bio_read(1 << 16))
        self.assertTrue(self.peer.transport.disconnecting)
        self.peer.transport.clear()
        with mock.patch.object(self.peer.transport, "loseConnection") as lose:
            self.tls.dataReceived(b"more")
        lose.assert_not_called()
        self.assertEqual(self.peer.transport.value(), b"")

    def test_late(self) -> None:
        """
        After the connection has ended, nothing is decrypted or written.
        """
        self.peer.handshake()
        protocol = self.tls.wrappedProtocol
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.peer.transport.clear()
        self.peer.connection.send(b"late")
        self.tls.dataReceived(self.peer.connection.bio_read(1 << 16))
        writeNow(self.tls, b"late")
        self.assertEqual((protocol.received, self.peer.transport.value()), (b"", b""))

    def test_busy(self) -> None:
        """
        If OpenSSL accepts no more bytes, these and later ones wait until it does.
        """
        self.peer.handshake()
        handshake = self.tls.getHandle()
        with mock.patch.object(handshake, "send", side_effect=SSL.WantReadError):
            writeNow(self.tls, b"first ")
            writeNow(self.tls, b"second")
        self.assertEqual(self.peer.received(), b"")
        self.peer.connection.send(b"x")
        self.tls.dataReceived(self.peer.connection.bio_read(1 << 16))
        self.assertEqual(self.peer.received(), b"first second")

    def test_broken(self) -> None:
        """
        An error from OpenSSL ends the connection, and later writes are discarded.
        """
        self.peer.handshake()
        broken = SSL.Error([("SSL routines", "", "internal error")])
        with mock.patch.object(self.tls.getHandle(), "send", side_effect=broken):
            writeNow(self.tls, b"x")
        self.assertTrue(self.peer.transport.disconnecting)
        writeNow(self.tls, b"x")
        self.assertEqual(self.peer.received(), b"")

    def test_closed(self) -> None:
        """
        Writes to a closed connection are discarded.
        """
        self.peer.handshake()
        self.tls.loseConnection()
        writeNow(self.tls, b"x")
        self.tls.connectionLost(Failure(ConnectionDone()))
        writeNow(self.tls, b"x")
        self.tls.dataReceived(b"x")
        self.clock.advance(0)
        self.assertEqual(self.peer.received(), b"")


class ReloadTests(LayerTestCase):
    """
    Tests for a server that reloads its files.
    """

    def test_amidHandshakes(self) -> None:
        """
        A reload during a handshake applies to the next one.
        """
        context = self.serverContext()
        revoked = self.authority.issue(distinguished("revoked"))
        for number in range(10):
            clients = [
                Client(self.context(identity), self.layer(context=context))
                for identity in (self.client, revoked)
            ]
            for client in clients:
                client.layer.dataReceived(client.flight())
            lists = self.authority.revoke(*([revoked] if number % 2 else []))
            self.authority.write(str(self.directory), crl=lists)
            context.reload()
            problems = []
            for client in clients:
                client.handshake()
                self.assertTrue(client.layer.wrappedProtocol.done)
                problems.append(examine(client.layer).problem)
            before = "its certificate has been revoked" if number and not number % 2 else None
            self.assertEqual(problems, [None, before], number)


class UnaskedTests(LayerTestCase):
    """
    Tests for peers that send TLS messages which OpenSSL answers by itself, and do not read the
    answers.
    """

    def flood(self, layer: Any, client: Client, message: Callable[[], bytes]) -> int:
        """
        Send a message repeatedly, until the connection is closed.

        @return: how many bytes are buffered for the peer.
        """
        protocol = layer.wrappedProtocol
        for _ in range(100):
            if client.transport.disconnecting:
                break
            layer.dataReceived(b"".join(message() for _ in range(100)))
        waiting = len(client.transport.value())
        layer.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(protocol.lost, PeerFlooded)
        self.assertIn(f"more than {UNASKED_MAX} TLS messages", str(protocol.lost))
        return waiting

    def test_renegotiation(self) -> None:
        """
        In TLS 1.2 a client that requests renegotiation too often is disconnected.
        """
        layer = self.layer()
        client = Client(self.context(), layer)
        client.handshake()
        client.flight()
        records = RawTLS12(client.connection)
        layer.dataReceived(records.application(b"hello"))
        self.assertEqual(layer.wrappedProtocol.received, b"hello")
        self.assertLess(self.flood(layer, client, records.hello), MOST)

    def test_keyUpdates(self) -> None:
        """
        In TLS 1.3 a client that requests key updates too often is disconnected.
        """
        if not hasattr(SSL.Context, "set_tls13_ciphersuites"):
            raise SkipTest("this pyOpenSSL cannot choose the cipher that the test speaks itself")
        self.patch(tls, "_sendsTickets", lambda _context: False)
        layer = self.layer()
        context = self.context()
        records = RawTLS13(context)
        client = Client(context, layer)
        client.handshake()
        client.flight()
        layer.dataReceived(records.application(b"hello"))
        layer.dataReceived(records.keyUpdate() + records.application(b", again"))
        self.assertEqual(layer.wrappedProtocol.received, b"hello, again")
        self.assertLess(self.flood(layer, client, records.keyUpdate), MOST)

    def test_own(self) -> None:
        """
        Messages of the protocols do not count.
        """
        layer = self.layer()
        client = Client(self.context(), layer)
        client.handshake()
        records = RawTLS12(client.connection)
        for _ in range(2 * UNASKED_MAX):
            layer.wrappedProtocol.transport.write(b"hello")
            self.clock.advance(0)
            layer.dataReceived(records.application(b"hello"))
        self.assertEqual(len(layer.wrappedProtocol.received), 10 * UNASKED_MAX)
        self.assertFalse(client.transport.disconnecting)


class Opaque(Protocol):
    """
    A wrapper that hides the protocol it wraps, unlike Twisted's.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def connectionMade(self) -> None:
        """
        Connect the inner protocol.
        """
        self._inner.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """
        Forward the bytes.
        """
        self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forward the reason.
        """
        self._inner.connectionLost(reason)


class OpaqueFactory(Factory):
    """
    Wraps another factory's protocols in L{Opaque}.
    """

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def buildProtocol(self, addr: object) -> Any:
        """
        Build and wrap a protocol.
        """
        return Opaque(self._factory.buildProtocol(addr))


class WrappedTests(LayerTestCase):
    """
    Tests for kaproto's server above TLS with other protocols in between, or above Twisted's own
    TLS.
    """

    stacks: ClassVar[list[tuple[type[TLSMemoryBIOFactory], list[Callable[[Any], Any]], bool]]] = [
        (TLSFactory, [], True),
        (TLSFactory, [WrappingFactory], True),
        (TLSFactory, [WrappingFactory, WrappingFactory], True),
        (TLSFactory, [OpaqueFactory], False),
        (TLSFactory, [WrappingFactory, OpaqueFactory], False),
        (TLSMemoryBIOFactory, [], True),
        (TLSMemoryBIOFactory, [WrappingFactory], False),
        (TLSMemoryBIOFactory, [OpaqueFactory], False),
    ]
    """
    For each stack: its TLS layer, the wrappers from bottom to top, and whether the client gets the
    confirmation before it sends anything.
    """

    def setUp(self) -> None:
        """
        Create a server that accepts only C{alice}.
        """
        super().setUp()
        self.factory = KeepAliveServerFactory(clock=cast(IReactorTime, self.clock))
        self.factory.accessControl.tlsAllowedDNs = ["*,CN=alice"]

    def visit(
        self,
        kind: type[TLSMemoryBIOFactory],
        wrappers: list[Callable[[Any], Any]],
        identity: Identity,
    ) -> tuple[bytes, bytes]:
        """
        Connect and make a call, perhaps before the server's confirmation.

        @return: what the server sends before the call, and after it.
        """
        factory: Any = self.factory
        for wrap in reversed(wrappers):
            factory = wrap(factory)
        layer = self.layer(factory, kind=kind)
        client = Client(self.context(identity), layer)
        try:
            client.handshake()
            self.clock.advance(0)
            before = client.received()
            client.connection.send(packMessage(call(Procedure.AUTH_LIST)))
            layer.dataReceived(client.connection.bio_read(1 << 20))
            self.clock.advance(0)
            return before, client.received()
        finally:
            self.assertEqual(len(self.factory.connections), 1)
            layer.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.factory.connections, [])

    def test_accepted(self) -> None:
        """
        An allowed client is served, even where it does not get the confirmation before its call.
        """
        for kind, wrappers, told in self.stacks:
            before, after = self.visit(kind, wrappers, self.client)
            self.assertEqual(before, CONFIRMATION if told else b"", (kind, wrappers))
            self.assertTrue((before + after).startswith(CONFIRMATION))
            self.assertEqual((before + after)[1:5], b"\0\0\0\x24")

    def test_otherName(self) -> None:
        """
        A client with another name is refused in every stack.
        """
        mallory = self.authority.issue(distinguished("mallory"))
        for kind, wrappers, _told in self.stacks:
            self.assertEqual(self.visit(kind, wrappers, mallory), (b"", b""), (kind, wrappers))
        self.assertEqual(self.factory.journal.counters.unauthenticated, len(self.stacks))

    def test_otherAuthority(self) -> None:
        """
        A client with a stranger's certificate is refused: by the server if it can check
        certificates, else in the handshake.
        """
        stranger = Authority("Stranger").issue(distinguished("alice"))
        for kind, wrappers, told in self.stacks:
            if told:
                self.assertEqual(self.visit(kind, wrappers, stranger), (b"", b""))
            else:
                error = self.assertRaises(SSL.Error, self.visit, kind, wrappers, stranger)
                self.assertIn("unknown ca", str(error))

    def test_client(self) -> None:
        """
        A wrapped client protocol is told that the handshake has completed.
        """
        protocols: list[Checking] = []

        class Noting(Checking):
            def connectionMade(self) -> None:
                protocols.append(self)

        server = self.layer()
        factory = TLSFactory(
            self.clientContext(self.client),
            True,
            WrappingFactory(Factory.forProtocol(Noting)),
            cast(IReactorTime, self.clock),
        )
        layer: Any = factory.buildProtocol(None)
        pump = connect(
            server,
            FakeTransport(server, isServer=True),
            layer,
            FakeTransport(layer, isServer=False),
        )
        for _ in range(3):
            pump.flush()
        self.assertTrue(protocols[0].done)


class FreedTests(LayerTestCase):
    """
    Tests that closed connections are freed without the garbage collector.
    """

    def setUp(self) -> None:
        """
        Exclude older objects from garbage collection.
        """
        super().setUp()
        freezeOlder(self)

    def assertFreed(self, end: Callable[[Client], None], *, handshake: bool = True) -> None:
        """
        Connect to kaproto's server, end the connection and check that it is freed.

        @param end: ends the connection.
        @param handshake: whether to complete the handshake first.
        """
        factory = KeepAliveServerFactory(clock=cast(IReactorTime, self.clock))
        layer = self.layer(factory)
        client = Client(self.context(), layer)
        if handshake:
            client.handshake()
            self.clock.advance(0)
            client.received()
        protocol = layer.wrappedProtocol
        kept = [weakref.ref(each) for each in (protocol, layer.getHandle())]
        if hasattr(tlsModule, "_NullAggregator"):
            # Before Twisted 26.10 the layer itself, without what it held, is in a cycle.
            kept.append(weakref.ref(layer))
        end(client)
        del client.layer, client.transport, protocol
        gc.collect()
        enabled = gc.isenabled()
        gc.disable()
        try:
            layer.connectionLost(Failure(ConnectionDone()))
            del layer
            # Before version 26.10 Twisted keeps small writes until the next turn.
            self.clock.advance(0)
            self.assertEqual({each() for each in kept}, {None})
        finally:
            if enabled:
                gc.enable()

    def test_ends(self) -> None:
        """
        A connection is freed at once, however it ends.
        """

        def say(data: bytes) -> Callable[[Client], None]:
            def end(client: Client) -> None:
                client.connection.send(data)
                client.layer.dataReceived(client.connection.bio_read(1 << 20))

            return end

        def shutDown(client: Client) -> None:
            client.connection.shutdown()
            client.layer.dataReceived(client.connection.bio_read(1 << 20))

        def speakPlain(client: Client) -> None:
            client.layer.dataReceived(b"GET / HTTP/1.1\r\n\r\n")

        def vanish(_client: Client) -> None:
            pass

        for end in (
            vanish,
            shutDown,
            speakPlain,
            say(bytes(100)),
            say(packMessage(call(Procedure.AUTH_LIST))),
            say(PING * 200),
            say(packMessage(call(Procedure.CONNECT_OPEN, b"\0\0\0\1\xff"))),
        ):
            self.assertFreed(end)
        for end in (vanish, speakPlain):
            self.assertFreed(end, handshake=False)
