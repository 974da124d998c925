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
    A transport on a real socket, without a reactor.
    """

    def connectTCP(self) -> tcp.Connection:
        """
        Connect over the loopback interface.
        """
        ours, self.peer = tcpPair(self)
        return self.transportOn(ours)

    def connectUNIX(self) -> tcp.Connection:
        """
        Connect by a pair of UNIX sockets.
        """
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        return self.transportOn(ours)

    def transportOn(self, ours: socket.socket) -> tcp.Connection:
        """
        Make the transport.
        """
        transport = tcp.Connection(ours, Protocol(), MemoryReactor())
        transport.connected = True
        return transport

    def fill(self, transport: tcp.Connection) -> None:
        """
        Write until neither side's kernel takes any more.
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
        @return: what the kernel says as soon as the condition is true of it.
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
        Have the peer read that many bytes.
        """
        while size:
            size -= len(self.peer.recv(min(size, 65536)))


class DeliveryTests(SocketTestCase):
    """
    Tests for L{delivery}.
    """

    def test_acknowledged(self) -> None:
        """
        Bytes that the peer's kernel has taken are acknowledged, read or not.
        """
        transport = self.connectTCP()
        before = delivery(transport)
        assert before is not None and before.acknowledged is not None
        transport.socket.send(b"x" * 1000)
        after = self.whenDelivered(transport, lambda found: not found.inFlight)
        self.assertEqual((after.acknowledged, after.queued), (before.acknowledged + 1000, 0))

    def test_received(self) -> None:
        """
        Bytes that the peer has sent are received before anybody reads them.
        """
        transport = self.connectTCP()
        self.peer.send(b"x" * 7)
        found = self.whenDelivered(transport, lambda found: found.received == 7)
        assert found.silence is not None
        self.assertLess(found.silence, 5)

    def test_fullWindow(self) -> None:
        """
        While the peer's window is full nothing is in flight: the rest waits in our buffers, and
        when the peer reads again it is taken.
        """
        transport = self.connectTCP()
        self.fill(transport)

        def isFull(found: Delivery) -> bool:
            # The opener's count has its SYN in it.
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
        What the reactor has not been able to write yet is queued as well.
        """
        transport = self.connectTCP()
        transport.write(b"x" * 10)
        found = delivery(transport)
        assert found is not None
        self.assertEqual(found.queued, 10)

    def test_unix(self) -> None:
        """
        On a UNIX socket there are the send queue, which is empty only when the peer's program has
        read everything, and what this one has not read.
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
        It falls by whole buffers.
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
        TLS and any other wrapper are looked through.  On TLS the encrypted bytes count.
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
        Transports without a socket, or whose connection is gone, tell nothing.
        """
        self.assertIsNone(delivery(StringTransport()))
        transport = self.connectTCP()
        transport.socket.close()
        self.assertIsNone(delivery(transport))
        transport.connected = False
        self.assertIsNone(delivery(transport))

    def test_otherSystems(self) -> None:
        """
        Neither do other systems, whose C{struct tcp_info} is another.
        """
        transport = self.connectTCP()
        self.patch(sys, "platform", "freebsd14")
        self.assertIsNone(delivery(transport))

    def test_shortStruct(self) -> None:
        """
        A kernel that knows nothing of the counters still says what is queued.
        """

        class Old(socket.socket):
            def getsockopt(self, *arguments: object) -> bytes:  # type: ignore[override]
                """
                Answer as Linux before 4.1 does.
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
        Read back what the kernel has.
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
        The interval is rounded up to whole seconds, both numbers are kept within Linux's bounds,
        and C{TCP_USER_TIMEOUT} is left alone.
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
        A zero in either switches it off again.
        """
        for keepAlive in (KeepAlive(0, 5), KeepAlive(5, 0)):
            transport = self.connectTCP()
            setKernelKeepAlive(transport, KeepAlive(5, 5))
            self.assertIs(setKernelKeepAlive(transport, keepAlive), True)
            self.assertEqual(self.options(transport)[0], 0)

    def test_userTimeout(self) -> None:
        """
        C{TCP_USER_TIMEOUT}, in milliseconds, is for those who ask for it.
        """
        transport = self.connectTCP()
        self.assertIs(setKernelKeepAlive(transport, KeepAlive(5, 5), 2.5), True)
        self.assertEqual(self.options(transport)[-1], 2500)
        self.assertIs(setKernelKeepAlive(transport, KeepAlive(5, 5), 1e12), True)
        self.assertEqual(self.options(transport)[-1], 2**31 - 1)

    def test_otherTransports(self) -> None:
        """
        UNIX sockets have no such thing, nor have transports without a socket, or a closed one.
        """
        self.assertIs(setKernelKeepAlive(self.connectUNIX(), KeepAlive()), False)
        self.assertIs(setKernelKeepAlive(StringTransport(), KeepAlive()), False)
        transport = self.connectTCP()
        transport.connected = False
        self.assertIs(setKernelKeepAlive(transport, KeepAlive()), False)

    def test_unsupported(self) -> None:
        """
        Where the system lacks an option, or refuses it, that is told.
        """
        transport = self.connectTCP()
        self.patch(socket, "TCP_KEEPIDLE", 9999)
        self.assertIs(setKernelKeepAlive(transport, KeepAlive()), False)
        del socket.TCP_KEEPIDLE
        self.assertIs(setKernelKeepAlive(transport, KeepAlive()), False)


class LayoutTests(SocketTestCase):
    """
    Where the counters stand in C{struct tcp_info}.
    """

    def test_offsets(self) -> None:
        """
        They are at the offsets of C{linux/tcp.h}.
        """
        transport = self.connectTCP()
        self.peer.send(b"x" * 3)
        found = self.whenDelivered(transport, lambda found: found.received == 3)
        info = transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        self.assertEqual(struct.unpack_from("QQ", info, 120), (found.acknowledged, 3))

    def test_times(self) -> None:
        """
        The times since data was sent and received, and something acknowledged, are told apart.
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
        Bytes count when the kernel has them, from the beginning of the count to its end.  What is
        left of the queue are those that the peer has not read.
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
        Bytes that are sent without waiting for the reactor count as well.
        """
        transport = self.connectUNIX()
        counter = SentCounter(transport)
        writeNow(transport, b"ping")
        self.assertEqual(counter.total, 4)
        counter.stop()

    def test_gone(self) -> None:
        """
        The count can be stopped when the connection has ended.
        """
        transport = self.connectUNIX()
        counter = SentCounter(transport)
        transport.connectionLost(Failure(ConnectionDone()))
        counter.stop()
        self.assertEqual(counter.total, 0)

    def test_lost(self) -> None:
        """
        A send that fails counts nothing, and is the transport's to deal with.
        """
        transport = self.connectUNIX()
        counter = SentCounter(transport)
        self.peer.close()
        self.assertIsInstance(transport.writeSomeData(b"x"), Exception)
        self.assertEqual(counter.total, 0)
        counter.stop()

    def test_elsewhere(self) -> None:
        """
        Of other transports nothing is counted.
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
        A peer that has sent a few answers can send more; one that has sent until it could not,
        cannot, and with a small buffer neither.
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
        Where nothing is known the buffer may be full.
        """
        transport = self.connectTCP()
        self.assertTrue(isReceiveBufferFull(StringTransport()))
        transport.socket.close()
        self.assertTrue(isReceiveBufferFull(transport))
        transport.connected = False
        self.assertTrue(isReceiveBufferFull(transport))
