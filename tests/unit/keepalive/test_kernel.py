"""
Tests for L{kaproto.keepalive.kernel}.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from typing import cast

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive.kernel import (
    COUNT_MAX,
    INTERVAL_MAX,
    Delivery,
    SentCounter,
    delivery,
    isReceiveBufferFull,
    setKernelKeepAlive,
)
from kaproto.keepalive.liveness import KeepAlive
from kaproto.transport import StreamTransport, writeNow
from tests.support_sockets import tcpPair, until

LARGE = bytes(8 << 20)


class SocketTestCase(SynchronousTestCase):
    """
    A test case with a transport on a real socket, without a reactor.
    """

    def connectTCP(self) -> tcp.Connection:
        """
        Connect over the loopback interface.
        """
        ours, self.peer = tcpPair(self)
        return self.transportOn(ours)

    def connectUNIX(self) -> tcp.Connection:
        """
        Connect a pair of UNIX sockets.
        """
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        return self.transportOn(ours)

    def transportOn(self, ours: socket.socket) -> tcp.Connection:
        """
        Create a transport on a socket.
        """
        transport = tcp.Connection(ours, Protocol(), MemoryReactor())
        transport.connected = True
        return transport

    def fill(self, transport: tcp.Connection) -> None:
        """
        Write until the kernel accepts no more.
        """
        transport.write(LARGE)
        before = -1
        while before != len(transport.dataBuffer) - transport.offset:
            before = len(transport.dataBuffer) - transport.offset
            transport.doWrite()

    def whenDelivered(
        self, transport: StreamTransport, condition: Callable[[Delivery], bool]
    ) -> Delivery:
        """
        @return: the kernel's counters as soon as they meet the condition.
        """
        found: list[Delivery | None] = []

        def look() -> bool:
            found[:] = [delivery(transport)]
            return found[0] is not None and condition(found[0])

        until(look)
        assert found[0] is not None
        return found[0]

    def read(self, size: int) -> None:
        """
        Read that many bytes as the peer.
        """
        while size:
            size -= len(self.peer.recv(min(size, 65536)))


class DeliveryTests(SocketTestCase):
    """
    Tests for L{delivery}.
    """

    def test_acknowledged(self) -> None:
        """
        Bytes that the peer's kernel has received are acknowledged, whether or not they were read.
        """
        transport = self.connectTCP()
        before = delivery(transport)
        assert before is not None and before.acknowledged is not None
        transport.socket.send(b"x" * 1000)
        after = self.whenDelivered(transport, lambda found: not found.inFlight)
        self.assertEqual((after.acknowledged, after.queued), (before.acknowledged + 1000, 0))

    def test_received(self) -> None:
        """
        Bytes from the peer count as received before they are read.
        """
        transport = self.connectTCP()
        self.peer.send(b"x" * 7)
        found = self.whenDelivered(transport, lambda found: found.received == 7)
        assert found.silence is not None
        self.assertLess(found.silence, 5)

    def test_fullWindow(self) -> None:
        """
        While the peer's window is full, nothing is in flight and the rest is queued; when the peer
        reads again, more is acknowledged.
        """
        transport = self.connectTCP()
        self.fill(transport)

        def isFull(found: Delivery) -> bool:
            # On the end that connected, the counter includes the SYN.
            assert found.acknowledged is not None
            whole = found.acknowledged + found.queued - len(LARGE) in (0, 1)
            return whole and not found.inFlight

        full = self.whenDelivered(transport, isFull)
        assert full.acknowledged is not None
        before = full.acknowledged
        self.read(before - 1)
        transport.doWrite()
        self.whenDelivered(transport, lambda later: (later.acknowledged or 0) > before)

    def test_unwritten(self) -> None:
        """
        Bytes in the transport's buffer count as queued.
        """
        transport = self.connectTCP()
        transport.write(b"x" * 10)
        found = delivery(transport)
        assert found is not None
        self.assertEqual(found.queued, 10)

    def test_unix(self) -> None:
        """
        A UNIX socket has a send queue, which is empty only when the peer has read everything, and a
        count of bytes not read here.
        """
        transport = self.connectUNIX()
        self.peer.send(b"x" * 7)
        transport.socket.send(b"x" * 1000)
        found = delivery(transport)
        assert found is not None
        self.assertGreaterEqual(found.queued, 1000)
        self.assertEqual((found.acknowledged, found.inFlight, found.received), (None, None, None))
        self.assertEqual((found.unread, found.allRead), (7, False))
        self.read(999)
        self.assertEqual(delivery(transport), found)
        self.read(1)
        found = delivery(transport)
        assert found is not None
        self.assertEqual((found.queued, found.allRead), (0, True))

    def test_unixWholeBuffers(self) -> None:
        """
        A UNIX socket's queue shrinks by whole buffers.
        """
        transport = self.connectUNIX()
        self.fill(transport)
        full = delivery(transport)
        self.read(65536)
        later = delivery(transport)
        assert full is not None and later is not None
        self.assertLessEqual(later.queued, full.queued - 32768)

    def test_wrapped(self) -> None:
        """
        The socket is found below TLS and other wrappers, and its counters are of encrypted bytes.
        """
        transport = self.connectTCP()
        factory = TLSMemoryBIOFactory(
            CertificateOptions(), False, WrappingFactory(Factory.forProtocol(Protocol))
        )
        tls = factory.buildProtocol(None)
        tls.makeConnection(transport)
        inner = tls.wrappedProtocol
        assert isinstance(inner, ProtocolWrapper), inner
        self.peer.send(b"\x16\x03")
        found = self.whenDelivered(inner, lambda found: found.received == 2)
        self.assertEqual(found, delivery(transport))

    def test_untold(self) -> None:
        """
        Transports without a socket, or whose connection has ended, have no counters.
        """
        self.assertIsNone(delivery(StringTransport()))
        transport = self.connectTCP()
        transport.socket.close()
        self.assertIsNone(delivery(transport))
        transport.connected = False
        self.assertIsNone(delivery(transport))

    def test_otherSystems(self) -> None:
        """
        Other systems, whose C{struct tcp_info} is different, have no counters.
        """
        transport = self.connectTCP()
        self.patch(sys, "platform", "freebsd14")
        self.assertIsNone(delivery(transport))

    def test_shortStruct(self) -> None:
        """
        A kernel without the counters still has the queue.
        """

        class Old(socket.socket):
            def getsockopt(self, *arguments: object) -> bytes:  # type: ignore[override]
                """
                Return the structure of Linux before 4.1.
                """
                return bytes(104)

        transport = self.connectTCP()
        transport.socket = Old(fileno=transport.socket.detach())
        self.addCleanup(transport.socket.close)
        found = delivery(transport)
        assert found is not None
        self.assertEqual((found.queued, found.acknowledged, found.received), (0, None, None))


class SetKernelKeepAliveTests(SocketTestCase):
    """
    Tests for L{setKernelKeepAlive}.
    """

    def options(self, transport: tcp.Connection) -> list[int]:
        """
        @return: keepalive, idle, interval, count and user timeout.
        """
        tcpOptions = (
            socket.TCP_KEEPIDLE,
            socket.TCP_KEEPINTVL,
            socket.TCP_KEEPCNT,
            socket.TCP_USER_TIMEOUT,
        )
        on = transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return [
            on,
            *(transport.socket.getsockopt(socket.IPPROTO_TCP, option) for option in tcpOptions),
        ]

    def test_options(self) -> None:
        """
        The interval is rounded up to seconds, both numbers are clamped to Linux's limits, and
        C{TCP_USER_TIMEOUT} is not changed.
        """
        for keepAlive, expected in (
            (KeepAlive(5, 5), [5, 5, 5]),
            (KeepAlive(0.2, 1), [1, 1, 1]),
            (KeepAlive(2.001, 3), [3, 3, 3]),
            (KeepAlive(2147483, 1000), [INTERVAL_MAX, INTERVAL_MAX, COUNT_MAX]),
        ):
            transport = self.connectTCP()
            self.assertIs(setKernelKeepAlive(transport, keepAlive), True)
            self.assertEqual(self.options(transport), [1, *expected, 0])

    def test_off(self) -> None:
        """
        A zero interval or count turns keepalive off.
        """
        for keepAlive in (KeepAlive(0, 5), KeepAlive(5, 0)):
            transport = self.connectTCP()
            setKernelKeepAlive(transport, KeepAlive(5, 5))
            self.assertIs(setKernelKeepAlive(transport, keepAlive), True)
            self.assertEqual(self.options(transport)[0], 0)

    def test_userTimeout(self) -> None:
        """
        C{TCP_USER_TIMEOUT} is set, in milliseconds, if it is given.
        """
        transport = self.connectTCP()
        self.assertIs(setKernelKeepAlive(transport, KeepAlive(5, 5), 2.5), True)
        self.assertEqual(self.options(transport)[-1], 2500)
        self.assertIs(setKernelKeepAlive(transport, KeepAlive(5, 5), 1e12), True)
        self.assertEqual(self.options(transport)[-1], 2**31 - 1)

    def test_otherTransports(self) -> None:
        """
        Keepalive cannot be set on UNIX sockets, without a socket or on a closed one.
        """
        self.assertIs(setKernelKeepAlive(self.connectUNIX(), KeepAlive()), False)
        self.assertIs(setKernelKeepAlive(StringTransport(), KeepAlive()), False)
        transport = self.connectTCP()
        transport.connected = False
        self.assertIs(setKernelKeepAlive(transport, KeepAlive()), False)

    def test_unsupported(self) -> None:
        """
        If the system lacks or rejects an option, the result is C{False}.
        """
        transport = self.connectTCP()
        self.patch(socket, "TCP_KEEPIDLE", 9999)
        self.assertIs(setKernelKeepAlive(transport, KeepAlive()), False)
        del socket.TCP_KEEPIDLE
        self.assertIs(setKernelKeepAlive(transport, KeepAlive()), False)


class LayoutTests(SocketTestCase):
    """
    Tests for the offsets in C{struct tcp_info}.
    """

    def test_offsets(self) -> None:
        """
        The counters are at the offsets of C{linux/tcp.h}.
        """
        transport = self.connectTCP()
        self.peer.send(b"x" * 3)
        found = self.whenDelivered(transport, lambda found: found.received == 3)
        info = transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        self.assertEqual(struct.unpack_from("QQ", info, 120), (found.acknowledged, 3))

    def test_times(self) -> None:
        """
        The times since the last data sent, the last data received and the last acknowledgement are
        not mixed up.
        """
        info = bytearray(136)
        for offset, milliseconds in ((24, 1), (44, 2000), (52, 3000), (56, 4000)):
            struct.pack_into("I", info, offset, milliseconds)
        transport = self.connectTCP()
        real = transport.socket

        class Socket:
            family = socket.AF_INET
            fileno = real.fileno

            def getsockopt(self, *_arguments: int) -> bytes:
                return bytes(info)

        transport.socket = cast(socket.socket, Socket())
        found = delivery(transport)
        assert found is not None
        self.assertEqual(found.inFlight, 1)
        self.assertEqual((found.sinceSent, found.silence, found.sinceAcknowledged), (2, 3, 4))


class SentCounterTests(SocketTestCase):
    """
    Tests for L{SentCounter}.
    """

    def test_unix(self) -> None:
        """
        Bytes are counted when the kernel accepts them, until the counter is stopped.
        """
        transport = self.connectUNIX()
        self.fill(transport)
        counter = SentCounter(transport)
        self.read(65536)
        transport.doWrite()
        self.assertGreater(counter.total, 0)
        found = delivery(transport)
        assert found is not None
        self.assertGreater(found.unsent, 1 << 20)
        self.assertEqual(found.unsent, len(transport.dataBuffer) - transport.offset)
        first = counter.total
        self.read(65536)
        transport.doWrite()
        before = counter.total
        again = delivery(transport)
        assert again is not None
        self.assertEqual(before - first, found.unsent - again.unsent)
        self.assertGreater(before, first)
        counter.stop()
        counter.stop()
        self.read(65536)
        transport.doWrite()
        self.assertEqual(counter.total, before)
        self.assertIsInstance(transport.socket, socket.socket)

    def test_pastTheTransport(self) -> None:
        """
        Bytes that L{writeNow} sends are counted.
        """
        transport = self.connectUNIX()
        counter = SentCounter(transport)
        writeNow(transport, b"ping")
        self.assertEqual(counter.total, 4)
        counter.stop()

    def test_gone(self) -> None:
        """
        A counter can be stopped after the connection has ended.
        """
        transport = self.connectUNIX()
        counter = SentCounter(transport)
        transport.connectionLost(Failure(ConnectionDone()))
        counter.stop()
        self.assertEqual(counter.total, 0)

    def test_lost(self) -> None:
        """
        A failed send is not counted, and its error reaches the transport.
        """
        transport = self.connectUNIX()
        counter = SentCounter(transport)
        self.peer.close()
        self.assertIsInstance(transport.writeSomeData(b"x"), Exception)
        self.assertEqual(counter.total, 0)
        counter.stop()

    def test_elsewhere(self) -> None:
        """
        On other transports nothing is counted.
        """
        counter = SentCounter(StringTransport())
        self.assertEqual(counter.total, 0)
        counter.stop()


class ReceiveBufferTests(SocketTestCase):
    """
    Tests for L{isReceiveBufferFull}.
    """

    def test_full(self) -> None:
        """
        The receive buffer is full when the peer can send no more, whatever the buffer's size.
        """
        for size in (None, 8192):
            transport = self.connectTCP()
            if size is not None:
                transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            self.peer.send(bytes(28))
            self.assertFalse(isReceiveBufferFull(transport))
            self.peer.setblocking(False)

            def isFull(transport: tcp.Connection = transport) -> bool:
                try:
                    while True:
                        self.peer.send(bytes(65536))
                except BlockingIOError:
                    return isReceiveBufferFull(transport)

            until(isFull)

    def test_unknown(self) -> None:
        """
        Without information the buffer counts as full.
        """
        transport = self.connectTCP()
        self.assertTrue(isReceiveBufferFull(StringTransport()))
        transport.socket.close()
        self.assertTrue(isReceiveBufferFull(transport))
        transport.connected = False
        self.assertTrue(isReceiveBufferFull(transport))
