"""
Tests for L{kaproto.transport}.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress, ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.protocols import tls
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from kaproto.peer import Peer, UnixCredentials
from kaproto.testing import MemoryTransport
from kaproto.transport import (
    ACCEPTS,
    DirectWriter,
    StreamTransport,
    hasUnread,
    identify,
    paceAccepts,
    programOf,
    tlsOf,
    unixCredentials,
    writeNow,
)
from tests.support_sockets import tcpPair, until

ADDRESS = IPv4Address("TCP", "192.0.2.1", 4040)


class IdentifyTests(SynchronousTestCase):
    """
    Tests for L{identify} and L{tlsOf}.
    """

    def identify(self, address: IAddress, *, tls: bool = False) -> Peer:
        """
        Identify the peer of a transport with this address.
        """
        transport = StringTransport(peerAddress=address)
        if tls:
            directlyProvides(transport, ISSLTransport)
        return identify(transport)

    def test_tcp(self) -> None:
        """
        A TCP peer is identified by its address.
        """
        self.assertEqual(self.identify(ADDRESS), Peer(ADDRESS, "tcp"))

    def test_tls(self) -> None:
        """
        A TLS peer is distinguished from a TCP peer.
        """
        self.assertEqual(self.identify(ADDRESS, tls=True), Peer(ADDRESS, "tls"))

    def test_wrappedTLS(self) -> None:
        """
        TLS is found below other protocols, whether or not they declare it.
        """
        layer = StringTransport(peerAddress=ADDRESS)
        directlyProvides(layer, ISSLTransport)
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        wrapper.makeConnection(layer)
        silent = SimpleNamespace(transport=wrapper)
        for transport in (layer, wrapper, silent):
            self.assertIs(tlsOf(transport), layer)
        self.assertIsNone(tlsOf(StringTransport()))
        self.assertIsNone(tlsOf(None))

    def test_unix(self) -> None:
        """
        A UNIX socket is recognized by its address.
        """
        address = UNIXAddress("")
        self.assertEqual(self.identify(address), Peer(address, "unix"))


class StreamTransportTests(SynchronousTestCase):
    """
    Tests for L{StreamTransport}.
    """

    def test_everyTransportHasIt(self) -> None:
        """
        Twisted's TCP and UNIX transports, and the one in memory, have all its methods.
        """
        methods = {name for name in vars(StreamTransport) if not name.startswith("_")}
        self.assertIn("abortConnection", methods)
        for transport in (tcp.Server, tcp.Client, unix.Server, unix.Client, MemoryTransport):
            self.assertEqual(methods - set(dir(transport)), set(), transport)


class WithHandle:
    """
    A transport with a socket.
    """

    def __init__(self, handle: object) -> None:
        self.handle = handle

    def getHandle(self) -> object:
        """
        @return: the socket.
        """
        return self.handle


class ProgramTests(SynchronousTestCase):
    """
    Tests for L{programOf}, and for its use in L{identify}.
    """

    def test_own(self) -> None:
        """
        The name is the kernel's, and a UNIX peer has the name of the process that connected.
        """
        with open("/proc/self/comm", encoding="utf-8") as file:
            name = file.read().strip()
        self.assertEqual(programOf(os.getpid()), name)
        here, there = socket.socketpair()
        with here, there:
            transport = StringTransport(peerAddress=UNIXAddress(""))
            transport.getHandle = lambda: here  # type: ignore[attr-defined]
            peer = identify(transport)
        self.assertEqual(peer.program, name)
        self.assertIn(f"program={name!r}", str(peer))

    def test_odd(self) -> None:
        """
        A name may have line breaks and bytes that are not UTF-8.
        """
        self.patch(Path, "read_bytes", lambda _path: b"a\nb\xff\n")
        self.assertEqual(programOf(1), "a\nb\\xff")

    def test_unknown(self) -> None:
        """
        A process in another PID namespace, which has the number 0, or one that has ended has no
        name.
        """
        self.assertIsNone(programOf(0))
        self.assertIsNone(programOf(2**22 + 1))


class UnixCredentialsTests(SynchronousTestCase):
    """
    Tests for L{unixCredentials}.
    """

    def test_known(self) -> None:
        """
        The credentials are the kernel's.
        """
        here, there = socket.socketpair()
        with here, there:
            self.assertEqual(
                unixCredentials(WithHandle(here)),
                UnixCredentials(os.getpid(), os.getuid(), os.getgid()),
            )

    def test_nobody(self) -> None:
        """
        A peer whose ids do not exist in this namespace has the kernel's values for unknown ids.
        """

        class Strange(socket.socket):
            def getsockopt(self, *arguments: object) -> bytes:  # type: ignore[override]
                """
                Return what the kernel has for a process outside this namespace.
                """
                return bytes(4) + b"\xff" * 8

        with Strange(socket.AF_UNIX) as handle:
            self.assertEqual(
                unixCredentials(WithHandle(handle)), UnixCredentials(0, 2**32 - 1, 2**32 - 1)
            )

    def test_otherSockets(self) -> None:
        """
        Other sockets have no credentials.
        """
        with socket.socket(socket.AF_INET) as handle:
            self.assertIsNone(unixCredentials(WithHandle(handle)))
        self.assertIsNone(unixCredentials(WithHandle(object())))

    def test_noSocket(self) -> None:
        """
        Transports without a socket, or with a closed one, have no credentials.
        """
        self.assertIsNone(unixCredentials(StringTransport()))
        handle = socket.socket(socket.AF_UNIX)
        handle.close()
        self.assertIsNone(unixCredentials(WithHandle(handle)))


class HasUnreadTests(SynchronousTestCase):
    """
    Tests for L{hasUnread}.
    """

    def setUp(self) -> None:
        """
        Connect a transport on a socket.
        """
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        self.transport = tcp.Connection(ours, Protocol(), MemoryReactor())
        self.transport.connected = True

    def test_bytes(self) -> None:
        """
        Bytes that wait to be read are detected, and not consumed.
        """
        self.assertFalse(hasUnread(self.transport))
        self.peer.send(b"x")
        self.assertTrue(hasUnread(self.transport))
        self.assertEqual(self.transport.socket.recv(10), b"x")
        self.assertFalse(hasUnread(self.transport))

    def test_tls(self) -> None:
        """
        With TLS, encrypted bytes count.
        """
        options = CertificateOptions()
        wrapped = TLSMemoryBIOFactory(options, False, Factory.forProtocol(Protocol))
        layer = wrapped.buildProtocol(None)
        layer.makeConnection(self.transport)
        self.assertFalse(hasUnread(layer))
        self.peer.send(b"\x16")
        self.assertTrue(hasUnread(layer))

    def test_wrapped(self) -> None:
        """
        The socket is found below any number of protocols.
        """
        factory = WrappingFactory(WrappingFactory(Factory.forProtocol(Protocol)))
        wrapper = factory.buildProtocol(None)
        wrapper.makeConnection(self.transport)
        inner = wrapper.wrappedProtocol
        assert isinstance(inner, ProtocolWrapper), inner
        self.assertIs(hasUnread(inner), False)
        self.peer.send(b"x")
        self.assertIs(hasUnread(inner), True)

    def test_end(self) -> None:
        """
        The end of the stream counts as unread, until the transport is disconnected.
        """
        self.peer.close()
        self.assertIs(hasUnread(self.transport), True)
        self.transport.connected = False
        self.assertIs(hasUnread(self.transport), False)

    def test_reset(self) -> None:
        """
        A reset counts as unread, even at the second call.
        """
        far, near = tcpPair(self)
        transport = tcp.Connection(near, Protocol(), MemoryReactor())
        transport.connected = True
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        until(lambda: hasUnread(transport))
        self.assertIs(hasUnread(transport), True)

    def test_closed(self) -> None:
        """
        A socket closed on this side has nothing unread.
        """
        self.transport.socket.close()
        self.assertIs(hasUnread(self.transport), False)

    def test_unknown(self) -> None:
        """
        For other transports the answer is C{None}.
        """
        self.assertIsNone(hasUnread(StringTransport()))


class Accepted(StringTransport):
    """
    A transport that a port created.
    """

    def __init__(self, server: object) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.server = server


class PaceAcceptsTests(SynchronousTestCase):
    """
    Tests for L{paceAccepts}.
    """

    def test_crowd(self) -> None:
        """
        A port that accepts many connections per turn is limited to a few.
        """
        port = tcp.Port(0, Factory(), reactor=MemoryReactor())
        port.numberAccepts = 500
        clock = Clock()
        paceAccepts(Accepted(port), clock)
        self.assertEqual(port.numberAccepts, ACCEPTS)
        port.numberAccepts = 500
        clock.advance(0)
        self.assertEqual(port.numberAccepts, ACCEPTS)

    def test_few(self) -> None:
        """
        A port that accepts few connections per turn is left alone.
        """
        port = tcp.Port(0, Factory(), reactor=MemoryReactor())
        port.numberAccepts = 1
        clock = Clock()
        paceAccepts(Accepted(port), clock)
        self.assertEqual((port.numberAccepts, clock.getDelayedCalls()), (1, []))

    def test_noPort(self) -> None:
        """
        Transports without one of Twisted's ports are left alone.
        """
        paceAccepts(StringTransport(), Clock())
        other = SimpleNamespace(numberAccepts=500)
        paceAccepts(Accepted(other), Clock())
        self.assertEqual(other.numberAccepts, 500)

    def test_realPort(self) -> None:
        """
        With many connections waiting, Twisted's port accepts at most its limit, plus the 20 that it
        adds itself, from the second turn on.
        """
        factory = PacedFactory()
        port = tcp.Port(0, factory, 200, "127.0.0.1", MemoryReactor())
        port.startListening()
        self.addCleanup(port.socket.close)
        accepted = factory.accepted
        for _ in range(190):
            peer = socket.create_connection(port.socket.getsockname())
            self.addCleanup(peer.close)
        port.doRead()
        for _ in range(3):
            factory.clock.advance(0)
            before = len(accepted)
            port.doRead()
            self.assertLessEqual(len(accepted) - before, ACCEPTS + 20)
            self.assertGreater(len(accepted), before)
        for transport in accepted:
            transport.socket.close()


class PacedFactory(Factory):
    """
    A factory that paces its port.
    """

    def __init__(self) -> None:
        self.accepted: list[tcp.Server] = []
        self.clock = Clock()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        Build a protocol whose transport is recorded.
        """
        accepted, clock = self.accepted, self.clock

        class Paced(Protocol):
            def connectionMade(self) -> None:
                transport = cast(tcp.Server, self.transport)
                paceAccepts(transport, clock)
                accepted.append(transport)

        return Paced()


class WithoutPrivateBuffer(tcp.Connection):
    """
    A connection of a Twisted that has its write buffer elsewhere.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        del self._tempDataBuffer
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """
        Record the bytes.
        """
        self.written.append(data)


class Taking:
    """
    A socket that accepts at most a given number of bytes per call.
    """

    def __init__(self, socket: socket.socket, most: int) -> None:
        self.socket = socket
        self.most = most

    def sendmsg(self, pieces: Iterable[bytes]) -> int:
        """
        Send as much as is accepted.
        """
        if not self.most:
            raise BlockingIOError
        return self.socket.send(b"".join(pieces)[: self.most])


class Direct(DirectWriter, StringTransport):
    """
    A transport with its own L{DirectWriter.writeNow}.
    """

    def writeNow(self, data: bytes | memoryview, /) -> None:
        """
        Write the bytes.
        """
        self.write(bytes(data))


class WriteSoonTests(SynchronousTestCase):
    """
    Tests for L{writeNow}.
    """

    def setUp(self) -> None:
        """
        Connect a transport on a socket.
        """
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        self.peer.setblocking(False)
        self.reactor = MemoryReactor()
        self.transport = self.connect(tcp.Connection, ours)

    def connect(self, kind: type[tcp.Connection], ours: socket.socket) -> tcp.Connection:
        """
        Create a transport of that class.
        """
        transport = kind(ours, Protocol(), self.reactor)
        transport.connected = True
        return transport

    def received(self) -> bytes:
        """
        @return: the bytes the peer has received since the last call.
        """
        data = b""
        try:
            while piece := self.peer.recv(65536):
                data += piece
        except BlockingIOError:
            pass
        return data

    def writeOut(self) -> bytes:
        """
        Write as the reactor does, until the transport has nothing more to write.

        @return: the bytes the peer receives.
        """
        data = b""
        while self.transport in self.reactor.getWriters():
            self.transport.doWrite()
            data += self.received()
        return data

    def test_idle(self) -> None:
        """
        On an idle connection the bytes are sent at once, and the reactor is not asked to write.
        """
        writeNow(self.transport, b"ping")
        self.assertEqual(self.received(), b"ping")
        self.assertEqual(self.reactor.getWriters(), [])

    def test_bytesWaitingForTheReactor(self) -> None:
        """
        Bytes do not overtake those written earlier in the same turn.
        """
        self.transport.write(b"first ")
        writeNow(self.transport, b"second")
        self.assertEqual(self.received(), b"")
        self.assertEqual(self.writeOut(), b"first second")

    def test_bytesThatDidNotFit(self) -> None:
        """
        Bytes do not overtake those that the socket did not accept earlier.
        """
        large = bytes(range(256)) * 16384
        self.transport.write(large)
        self.transport.doWrite()
        data = self.received()
        self.assertLess(len(data), len(large))
        writeNow(self.transport, b"ping")
        self.assertEqual(data + self.received() + self.writeOut(), large + b"ping")

    def test_partlySent(self) -> None:
        """
        Bytes that the socket does not accept are sent later.
        """
        large = bytes(range(256)) * 16384
        writeNow(self.transport, large)
        data = self.received()
        self.assertTrue(0 < len(data) < len(large), len(data))
        self.assertEqual(data + self.writeOut(), large)

    def test_header(self) -> None:
        """
        A header precedes the bytes, whether the socket accepts both, nothing, or a part of either.
        """
        header, data = b"header", bytes(range(256))
        for took in (len(header + data), 0, 2, len(header), len(header) + 3):
            whole = self.transport.socket
            self.patch(self.transport, "socket", Taking(whole, took))
            writeNow(self.transport, data, header)
            self.patch(self.transport, "socket", whole)
            self.assertEqual(self.received() + self.writeOut(), header + data)
        self.transport.write(b"before ")
        writeNow(self.transport, data, header)
        self.assertEqual(self.writeOut(), b"before " + header + data)
        direct = Direct()
        writeNow(direct, data, header)
        self.assertEqual(direct.value(), header + data)

    def test_fullSocket(self) -> None:
        """
        If the socket accepts nothing, the bytes are sent later.
        """
        filler = b""
        try:
            while True:
                filler += b"x" * self.transport.socket.send(b"x" * 65536)
        except BlockingIOError:
            pass
        writeNow(self.transport, b"ping")
        self.assertEqual(self.received(), filler)
        self.assertEqual(self.writeOut(), b"ping")

    def test_peerGone(self) -> None:
        """
        An error is left for the reactor to find, and not raised.
        """
        self.peer.close()
        writeNow(self.transport, b"ping")
        self.assertEqual(self.reactor.getWriters(), [self.transport])

    def test_notConnected(self) -> None:
        """
        On a closed connection, bytes are discarded as by C{write}.
        """
        self.transport.connected = False
        writeNow(self.transport, b"ping")
        self.assertEqual(self.received(), b"")
        self.assertEqual(self.reactor.getWriters(), [])

    def test_tls(self) -> None:
        """
        After C{startTLS}, no plain text is written to the socket.
        """

        class Server(tcp.Connection):
            _tlsClientDefault = False

        clock = Clock()
        self.patch(tls, "_get_default_clock", lambda: clock)
        self.transport = self.connect(Server, self.transport.socket)
        self.transport.protocol.makeConnection(self.transport)
        self.transport.startTLS(CertificateOptions(), normal=False)
        handshake = self.writeOut()
        self.assertTrue(handshake.startswith(b"\x16\x03"), handshake)
        writeNow(self.transport, b"secret")
        clock.advance(0)
        self.assertNotIn(b"secret", self.received() + self.writeOut())

    def test_wrapped(self) -> None:
        """
        Bytes go to the wrapper itself, although it would hand out the socket of what it wraps.
        """
        written = []

        class Wrapper(ProtocolWrapper):
            def write(self, data: bytes) -> None:
                written.append(data)

        wrapper = Wrapper(WrappingFactory(Factory()), Protocol())
        wrapper.makeConnection(self.transport)
        self.assertIs(wrapper.socket, self.transport.socket)
        writeNow(wrapper, b"ping")
        self.assertEqual(written, [b"ping"])
        self.assertEqual(self.received(), b"")

    def test_anotherTwisted(self) -> None:
        """
        If it is unknown whether bytes wait to be sent, the transport's own C{write} is called.
        """
        transport = self.connect(WithoutPrivateBuffer, self.transport.socket)
        assert isinstance(transport, WithoutPrivateBuffer)
        writeNow(transport, b"ping")
        self.assertEqual(transport.written, [b"ping"])
        self.assertEqual(self.received(), b"")
