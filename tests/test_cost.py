"""
Tests for the cost of keepalive round trips.  Costs are counted, not timed, so that the tests detect
a costlier round trip on any machine.

An idle client costs a server nothing but these round trips.  Each bound is the number found when
the test was written, with a little room for other versions of Python.
"""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable
from contextlib import suppress as ignoring
from functools import partial
from types import FrameType
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocol, IReactorFDSet
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactor
from twisted.logger import capturedLogs
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from kaproto.client import KeepAliveClientFactory
from kaproto.keepalive.idlereader import IdleReader
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import TICK
from kaproto.policies import Mandatory
from kaproto.rpc.reading import Pause
from kaproto.security.handshake import Handshake
from kaproto.security.tls import CONFIRMATION
from kaproto.security.tlslayer import TLSFactory
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.testing import connectedPair
from kaproto.wire.message import PING, PONG, packMessage
from kaproto.wire.programs import Feature, Procedure
from tests.support import call, feature, opening
from tests.support_relay import HOSTNAME, SocketRelayTestCase
from tests.support_tls import TLSTestCase

PONG_CALLS = 2
"""
Python functions called for a pong: C{dataReceived}, and C{now} for its time.
"""

IDLE_PONGS_CALLS = 2
"""
Python functions called for any number of pongs from idle clients that arrive at once: C{doRead},
and C{now} for their time.
"""

PING_CALLS = 9
"""
Python functions called for a ping, from the wheel's slot to the socket and back into a slot.
"""

OPEN_CALLS = 202
"""
Python functions called from a client's connection until it is open.
"""

RELAYED_CALLS = 13
"""
Python functions called in a gateway for a call and its reply, from socket to socket.  Four of them
are the reader's, and are called once for all connections that are read at the same time.
"""

RELAYED_TOGETHER_CALLS = 3
"""
Python functions called for each further call, and its reply, that arrive together with others.
"""

BLOCKS_LEFT = 50
"""
The number of memory blocks by which the process may grow in a thousand round trips.
"""


CALLS = [
    packMessage(each)
    for each in (call(Procedure.AUTH_LIST), feature(Feature.PROGRAM_KEEPALIVE), opening())
]
"""
A client's messages until it is open.
"""


def callsOf(run: Callable[[], object]) -> list[str]:
    """
    @return: the names of kaproto's Python functions that are called.
    """
    names: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_globals["__name__"].startswith("kaproto."):
            names.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return names


class IdleReactor:
    """
    A reactor that counts how often it must wait until a socket is writable.
    """

    def __init__(self) -> None:
        self.waits = 0

    def addWriter(self, writer: object) -> None:
        """
        Count a transport that could not send everything at once.
        """
        self.waits += 1

    def removeWriter(self, writer: object) -> None:
        """
        Do nothing.
        """

    def removeReader(self, reader: object) -> None:
        """
        Do nothing.
        """


class CountingSocket:
    """
    A socket that counts its system calls.
    """

    def __init__(self, wrapped: socket.socket) -> None:
        self.sends = self.receives = 0
        self._wrapped = wrapped
        self.fileno = wrapped.fileno

        self.recv = wrapped.recv

    def recv_into(self, buffer: bytearray, size: int) -> int:
        """
        Count a C{recv}.
        """
        self.receives += 1
        return self._wrapped.recv_into(buffer, size)

    def send(self, data: bytes | memoryview) -> int:
        """
        Count a C{send}.
        """
        self.sends += 1
        return self._wrapped.send(data)


class Accepted(Connection):
    """
    A connection accepted by a port.
    """

    def getPeer(self) -> IPv4Address:
        """
        @return: a fixed address.
        """
        return IPv4Address("TCP", "192.0.2.1", 5)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Do nothing, since the UNIX socket that stands in for a TCP socket has no such option.
        """


def accepted(case: SynchronousTestCase, protocol: IProtocol) -> Any:
    """
    @param protocol: the connection's protocol.
    @return: an L{Accepted} of a L{CountingSocket}, C{counts}, and an L{IdleReactor}; C{far} is the
        client's socket.
    """
    near, far = socket.socketpair()
    case.addCleanup(near.close)
    case.addCleanup(far.close)
    transport: Any = Accepted(near, protocol, cast(IReactorFDSet, IdleReactor()))
    transport.socket = transport.counts = CountingSocket(near)
    transport.far = far
    transport.connected = True
    return transport


class OpenTests(SynchronousTestCase):
    """
    Tests for the cost of a client that connects, asks for keepalive, and opens, in one call after
    the other.
    """

    def setUp(self) -> None:
        """
        Create a server, and a client that has connected over a real socket.
        """
        factory = KeepAliveServerFactory(Mandatory(KeepAlive(1, 3)), clock=Clock())
        self.protocol = cast(KeepAliveServerProtocol, factory.buildProtocol(None))
        self.transport = accepted(self, self.protocol)
        self.socket = self.transport.counts
        self.reactor = self.transport.reactor

    def open(self) -> None:
        """
        Make the client's calls, one after the other.
        """
        self.protocol.makeConnection(self.transport)
        for message in CALLS:
            self.protocol.dataReceived(message)

    def test_systemCalls(self) -> None:
        """
        Each reply takes one system call, and the reactor never waits for the socket.
        """
        self.open()
        self.assertTrue(self.protocol.peer.opened)
        self.assertEqual(self.socket.sends, len(CALLS))
        self.assertEqual(self.reactor.waits, 0)

    def test_together(self) -> None:
        """
        Replies to calls that arrive together are sent together.
        """
        self.open()
        self.socket.sends = 0
        self.protocol.dataReceived(CALLS[1] * 3)
        self.assertEqual(self.socket.sends, 0)
        self.assertGreater(self.reactor.waits, 0)
        self.transport.doWrite()
        self.assertEqual(self.socket.sends, 1)

    def test_calls(self) -> None:
        """
        Opening calls at most C{OPEN_CALLS} functions.
        """
        names = callsOf(self.open)
        self.assertTrue(self.protocol.peer.opened)
        self.assertLessEqual(len(names), OPEN_CALLS, names)


class TLSOpenTests(TLSTestCase):
    """
    Tests for the cost of opening over TLS.
    """

    def test_systemCalls(self) -> None:
        """
        The server sends its part of the handshake in two pieces, the last of which has the byte
        that accepts the client, and each reply in one piece.  The reactor never waits for the
        socket.  OpenSSL is called once for each piece of the client's handshake.
        """
        handshakes: list[Handshake] = []
        advance = Handshake.do_handshake

        def note(handshake: Handshake) -> None:
            handshakes.append(handshake)
            advance(handshake)

        self.patch(Handshake, "do_handshake", note)
        clock = Clock()
        factory = KeepAliveServerFactory(Mandatory(KeepAlive(1, 3)), clock=clock)
        tls = TLSFactory(self.serverContext(), False, factory, clock=clock)
        layer: Any = tls.buildProtocol(None)
        transport = accepted(self, layer)
        layer.makeConnection(transport)
        context = self.clientContext(self.client)
        client = context.clientConnectionForTLS(cast(TLSMemoryBIOProtocol, None))
        client.set_connect_state()

        def exchange() -> None:
            transport.far.sendall(client.bio_read(65536))
            transport.doRead()
            client.bio_write(transport.far.recv(65536))

        for _ in range(2):
            with ignoring(SSL.WantReadError):
                client.do_handshake()
            exchange()
        client.do_handshake()
        self.assertEqual(client.recv(2), CONFIRMATION)
        for message in CALLS:
            client.send(message)
            exchange()
        self.assertTrue(layer.wrappedProtocol.peer.opened)
        self.assertEqual(transport.counts.sends, 2 + len(CALLS))
        self.assertEqual(transport.reactor.waits, 0)
        self.assertEqual(handshakes.count(layer.getHandle()), 2)
        self.assertEqual([each.getTime() for each in clock.getDelayedCalls()], [TICK])


class RelayedTests(SocketRelayTestCase):
    """
    Tests for the cost of a call through a gateway, and its reply.
    """

    def countSystemCalls(self) -> list[CountingSocket]:
        """
        Wrap the sockets of both connections in L{CountingSocket}.
        """
        sockets = []
        for end in (self.client, self.upstream):
            end._kaproto.pauseReading(Pause.CONGESTION)
            end.transport.socket = CountingSocket(end.transport.socket)
            end._kaproto.reading.resume(Pause.CONGESTION)
            sockets.append(end.transport.socket)
        return sockets

    def roundTrip(self, messages: int = 1) -> None:
        """
        Relay calls, and their replies.
        """
        for near in (self.client, self.upstream):
            near.far.sendall(HOSTNAME * messages)
            self.reader.doRead()

    def test_systemCalls(self) -> None:
        """
        A call and its reply each take one system call to receive and one to send, no matter how
        many messages arrive at once, and the reactor waits for neither socket.
        """
        sockets = self.countSystemCalls()
        for messages in (1, 16):
            self.roundTrip(messages)
            for each in sockets:
                self.assertEqual((each.receives, each.sends), (1, 1))
                each.receives = each.sends = 0
        self.assertEqual(self.reactor.getReaders(), [self.reader])
        self.assertEqual(self.reactor.getWriters(), [])
        self.assertEqual(self.upstream.read(), HOSTNAME * 17)

    def test_calls(self) -> None:
        """
        A call alone takes at most C{RELAYED_CALLS} functions, and each further call that arrives
        with others C{RELAYED_TOGETHER_CALLS}.
        """
        self.roundTrip()
        one, two, three = (callsOf(partial(self.roundTrip, messages)) for messages in (1, 2, 3))
        self.assertLessEqual(len(one), RELAYED_CALLS, one)
        self.assertLessEqual(len(three) - len(two), RELAYED_TOGETHER_CALLS, three)

    def test_memory(self) -> None:
        """
        Relaying leaves no memory behind.
        """
        for _ in range(10):
            self.roundTrip()
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(1000):
            self.roundTrip()
            self.client.read()
            self.upstream.read()
        gc.collect()
        self.assertLessEqual(sys.getallocatedblocks() - before, BLOCKS_LEFT)


class RoundTripTests(SynchronousTestCase):
    """
    Tests for the cost of a ping and its pong.
    """

    def setUp(self) -> None:
        """
        Create an idle client that is pinged every second over a real socket.
        """
        self.clock = Clock()
        server = KeepAliveServerFactory(Mandatory(KeepAlive(1, 3)), clock=self.clock)
        pair = connectedPair(server, KeepAliveClientFactory(clock=self.clock))
        self.server: KeepAliveServerProtocol = pair.server
        near, self.far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(self.far.close)
        self.socket = CountingSocket(near)
        self.reactor = IdleReactor()
        transport = Connection(near, self.server, cast(IReactorFDSet, self.reactor))
        transport.socket = cast(socket.socket, self.socket)
        transport.connected = True
        self.server.transport = self.server._kaproto.heartbeat.transport = transport

    def roundTrip(self) -> None:
        """
        Wait until the client is pinged, and answer.
        """
        for _ in range(round(1 / TICK) + 1):
            self.clock.advance(TICK)
        self.assertEqual(self.far.recv(100), PING)
        self.server.dataReceived(PONG)

    def test_systemCalls(self) -> None:
        """
        A ping takes one system call, and the reactor never waits for the socket.
        """
        for _ in range(10):
            self.roundTrip()
        self.assertEqual(self.socket.sends, 10)
        self.assertEqual(self.reactor.waits, 0)

    def test_pong(self) -> None:
        """
        A pong calls at most C{PONG_CALLS} functions.
        """
        self.roundTrip()
        names = callsOf(lambda: self.server.dataReceived(PONG))
        self.assertLessEqual(len(names), PONG_CALLS, names)

    def test_idlePong(self) -> None:
        """
        The pong of an idle client does not reach its connection, and leaves the client idle.
        """
        heartbeat = self.server._kaproto.heartbeat
        idle = IdleReader(cast(IReactorFDSet, MemoryReactor()), heartbeat.pacemaker)
        heartbeat._monitor.idleReader = idle
        self.roundTrip()
        self.assertEqual(len(idle), 1)
        heartbeat.liveness.unanswered = 1
        self.far.sendall(PONG)
        names = callsOf(idle.doRead)
        self.assertEqual(heartbeat.liveness.unanswered, 0)
        self.assertEqual(len(idle), 1)
        self.assertLessEqual(len(names), IDLE_PONGS_CALLS, names)
        idle.release(heartbeat)

    def test_ping(self) -> None:
        """
        A ping calls at most C{PING_CALLS} functions from the wheel to the socket.
        """
        self.roundTrip()
        heartbeat = self.server._kaproto.heartbeat
        pacemaker = heartbeat.pacemaker
        due = pacemaker.now + 1

        def ping() -> None:
            pacemaker._callOne(heartbeat, due)
            self.assertEqual(pacemaker._pings, [heartbeat])
            pacemaker._pings.pop().sendPing()

        names = callsOf(ping)
        self.assertEqual(self.far.recv(100), PING)
        self.assertLessEqual(len(names), PING_CALLS, names)

    def test_memory(self) -> None:
        """
        Round trips leave no memory behind.
        """
        for _ in range(10):
            self.roundTrip()
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(1000):
            self.roundTrip()
        gc.collect()
        self.assertLessEqual(sys.getallocatedblocks() - before, BLOCKS_LEFT)

    def test_log(self) -> None:
        """
        Round trips are not logged.
        """
        with capturedLogs() as events:
            for _ in range(10):
                self.roundTrip()
        self.assertEqual(events, [])
