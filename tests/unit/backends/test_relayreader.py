"""
Tests for L{kaproto.backends.relayreader}.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable
from typing import Any, cast
from unittest import mock

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from kaproto.backends.relay import Relay
from kaproto.backends.relayreader import (
    BATCH,
    LARGE_SIZE,
    PAUSED_MAX,
    SIZE,
    TURN_SIZE,
    RelayReader,
)
from kaproto.errors import ConnectionClosed, RemoteProtocolError
from kaproto.keepalive.clock import MonotonicClock
from kaproto.rpc.reading import Pause
from kaproto.security.tls import ServerContextFactory
from kaproto.security.tlslayer import TLSFactory
from kaproto.security.tlsrecords import PIECE
from kaproto.wire.message import HEADER_SIZE, PING, PONG, TURN_MAX, packMessage
from tests.support_gateway import call, stream
from tests.support_relay import HOSTNAME, End, SocketRelayTestCase
from tests.support_tls import TLSTestCase


class RelayReaderTests(SocketRelayTestCase):
    """
    Tests for reading relayed connections without the reactor.
    """

    def assertDirect(self, *ends: End) -> None:
        """
        Check that only these ends are read by the reader.
        """
        self.assertEqual(len(self.reader), len(ends))
        for end in ends:
            self.assertNotIn(end.transport, self.reactor.getReaders())

    def test_where(self) -> None:
        """
        A reader is available if the system has epoll and the reactor can wait for file descriptors.
        """
        pacemaker = self.factory._monitor.pacemaker
        clock = mock.create_autospec(MonotonicClock, instance=True, reactor=self.reactor)
        self.assertIsNotNone(RelayReader.orNone(clock, pacemaker))
        self.assertIsNone(RelayReader.orNone(self.clock, pacemaker))
        self.assertEqual(self.reader.logPrefix(), "relayed connections")

    def test_messages(self) -> None:
        """
        Messages are relayed at once and unchanged, no matter how they are split; the reactor
        neither reads nor writes.
        """
        some = HOSTNAME + packMessage(stream(9, payload=bytes(range(250))))
        for near, far in self.ways:
            for pieces in ([some], [some[:9], some[9:40], some[40:]], [bytes([b]) for b in some]):
                for piece in pieces:
                    self.send(near, piece)
                self.assertEqual(far.read(), some)
            self.assertEqual(near._kaproto.incoming.bytesReceived, 3 * len(some))
            self.assertEqual(far._kaproto.outgoing.bytesSent, 3 * len(some))
        self.assertEqual(self.reactor.getReaders(), [self.reader])
        self.assertEqual(self.reactor.getWriters(), [])

    def test_life(self) -> None:
        """
        Any bytes are a sign of life, even half a header.
        """
        for near, _far in self.ways:
            liveness = near._kaproto.heartbeat.liveness
            for data in (b"\0", HOSTNAME[1:], PONG):
                liveness.heard, liveness.unanswered = -1, 1
                self.send(near, data)
                self.assertEqual((liveness.heard, liveness.unanswered), (0, 0))

    def test_keepAlive(self) -> None:
        """
        Pings are answered and pongs measured by this hop, and neither is relayed.
        """
        for near, far in self.ways:
            heartbeat = near._kaproto.heartbeat
            heartbeat.pingedAt = 0.0
            self.clock.advance(0.5)
            self.send(near, PONG)
            self.assertEqual(heartbeat.latency, self.clock.seconds())
            self.send(near, PING)
            self.assertEqual(near.read(), PONG)
            self.assertEqual(far.read(), b"")
            heartbeat.pingedAt = None

    def test_looksLikePong(self) -> None:
        """
        Bytes in a message that look like a pong are relayed like all others.
        """
        packed = packMessage(stream(9, payload=bytes(70000) + PONG))
        for near, far in self.ways:
            self.send(near, packed[: -len(PONG)])
            while near._kaproto.incoming.bytesReceived < len(packed) - len(PONG):
                self.reader.doRead()
            near._kaproto.heartbeat.pingedAt = 0.0
            self.send(near, PONG)
            self.assertEqual(far.read(), packed)
            self.assertEqual(near._kaproto.heartbeat.pingedAt, 0.0)

    def test_order(self) -> None:
        """
        A message does not overtake bytes that the transport has not sent yet.
        """
        for near, far in self.ways:
            far.transport.write(PING)
            self.send(near, HOSTNAME)
            self.assertEqual(far.read(), b"")
            self.assertEqual(self.writeOut(far), PING + HOSTNAME)

    def test_slowReader(self) -> None:
        """
        While one end does not read, the other is read only until the buffers are full; afterwards
        everything arrives in order, although the reader's buffer has been overwritten.
        """
        packed = packMessage(stream(9, payload=bytes(range(256)) * 8192))
        for near, far in self.ways:
            sent = received = b""
            while not near._kaproto.reading.pauses:
                sent += packed[len(sent) :][: near.far.send(packed[len(sent) :])]
                self.reader.doRead()
                self.assertLess(len(sent), len(packed))
            self.assertEqual(near._kaproto.reading.pauses, Pause.CONGESTION)
            self.assertDirect(far)
            self.assertNotIn(near.transport, self.reactor.getReaders())
            self.assertLessEqual(len(far.transport.dataBuffer), LARGE_SIZE + SIZE)
            self.send(far, HOSTNAME)
            self.assertEqual(near.read(), HOSTNAME)
            while len(received) < len(packed):
                received += self.writeOut(far)
                with contextlib.suppress(BlockingIOError):
                    sent += packed[len(sent) :][: near.far.send(packed[len(sent) :])]
                self.reader.doRead()
            self.assertEqual(received, packed)
            self.assertDirect(near, far)

    def readOnce(self, data: bytes) -> tuple[int, int]:
        """
        Send as much as the client's socket takes, and read once.

        @return: the bytes sent, and those read.
        """
        before = self.client._kaproto.incoming.bytesReceived
        sent = self.client.far.send(data)
        self.reader.doRead()
        self.upstream.read()
        return sent, self.client._kaproto.incoming.bytesReceived - before

    def test_inLong(self) -> None:
        """
        In the middle of a long message, more bytes are read at once than before it and after it.
        """
        packed = packMessage(stream(9, payload=bytes(3 * SIZE)))
        self.assertEqual(self.readOnce(packed[: SIZE + 100]), (SIZE + 100, SIZE))
        self.reader.doRead()
        rest = packed[SIZE + 100 :] + HOSTNAME * 10
        self.assertEqual(self.readOnce(rest), (len(rest), len(rest)))
        flood = HOSTNAME * (SIZE // len(HOSTNAME) + 100)
        self.assertEqual(self.readOnce(flood), (len(flood), SIZE))

    def test_manyPaused(self) -> None:
        """
        While many connections are paused, the others are read in small pieces, which bounds memory.
        """
        packed = packMessage(stream(9, payload=bytes(20 * SIZE)))
        paused = [self.connect() for _ in range(PAUSED_MAX)]
        for end in paused:
            Relay(*cast(Any, (end._kaproto, self.connect()._kaproto))).start(self.reader)
            end._kaproto.pauseReading(Pause.CONGESTION)
        done, _read = self.readOnce(packed[:SIZE])
        sent, read = self.readOnce(packed[done:])
        self.assertGreater(sent, SIZE)
        self.assertEqual(read, sent)
        done += sent
        self.upstream._kaproto.pauseReading(Pause.CALLS)
        self.assertEqual(len(self.reader.paused), PAUSED_MAX + 1)
        self.assertEqual(self.readOnce(packed[done:])[1], SIZE)
        self.upstream._kaproto.reading.resume(Pause.CALLS)
        self.assertEqual(len(self.reader.paused), PAUSED_MAX)
        for end in paused:
            end._kaproto.disconnect(ConnectionClosed("bye"))
        self.assertEqual(self.reader.paused, set())

    def test_turn(self) -> None:
        """
        However many connections are readable, a turn is bounded, and all get the same share.
        """
        sizes = []

        def receive(_buffer: bytearray, most: int) -> int:
            sizes.append(most)
            raise BlockingIOError

        self.readOnce(packMessage(stream(9, payload=bytes(3 * SIZE)))[:SIZE])
        descriptor = self.client.transport.fileno()
        self.reader._reading[descriptor] = (receive, *self.reader._reading[descriptor][1:])
        with mock.patch.object(self.reader, "_poller") as poller:
            for count in (1, 8, BATCH):
                poller.poll.return_value = [(descriptor, select.EPOLLIN)] * count
                self.reader.doRead()
                self.assertLessEqual(sum(sizes), TURN_SIZE)
                self.assertEqual(set(sizes), {min(LARGE_SIZE, TURN_SIZE // count)})
                sizes.clear()

    def test_manyAtOnce(self) -> None:
        """
        One turn relays at most C{TURN_MAX} messages.  The rest waits for the next turn, and nothing
        is read until then.
        """
        packed = HOSTNAME
        for near, far in self.ways:
            self.send(near, packed * (TURN_MAX + 3))
            self.assertEqual(far.read(), packed * TURN_MAX)
            self.send(near, packed)
            self.assertEqual(far.read(), b"")
            self.clock.advance(0)
            self.assertEqual(far.read(), packed * 3)
            self.reader.doRead()
            self.assertEqual(far.read(), packed)

    def test_end(self) -> None:
        """
        A connection that its peer closed is left to the reactor, which detects the end itself.
        """
        for end in (self.client, self.upstream):
            end.far.close()
            self.reader.doRead()
            self.assertIn(end.transport, self.reactor.getReaders())
        self.assertDirect()
        self.assertEqual(self.reactor.getReaders().count(self.reader), 0)

    def test_reset(self) -> None:
        """
        A connection with a socket error is left to the reactor too.
        """
        broken = mock.Mock(side_effect=ConnectionResetError)
        descriptor = self.client.transport.fileno()
        self.reader._reading[descriptor] = (broken, *self.reader._reading[descriptor][1:])
        self.send(self.client, b"?")
        self.assertIn(self.client.transport, self.reactor.getReaders())
        self.assertDirect(self.upstream)

    def test_spuriousEvents(self) -> None:
        """
        An event without data changes nothing, and one for a released socket is ignored.
        """
        self.reader.doRead()
        descriptors = [end.transport.fileno() for end in (self.client, self.upstream)]
        with mock.patch.object(self.reader, "_poller") as poller:
            poller.poll.return_value = [(each, select.EPOLLIN) for each in [*descriptors, 9999]]
            self.reader.doRead()
        self.assertDirect(self.client, self.upstream)

    def test_garbage(self) -> None:
        """
        An invalid message closes the connection with the reason, after the messages before it were
        relayed.
        """
        self.send(self.client, HOSTNAME + bytes(HEADER_SIZE))
        self.assertEqual(self.upstream.read(), HOSTNAME)
        self.assertIsInstance(self.client._kaproto.closing.reason, RemoteProtocolError)
        self.assertDirect(self.upstream)

    def test_undecodable(self) -> None:
        """
        A message for this hop that cannot be decoded closes the connection too.
        """
        self.send(self.client, packMessage(call(1, kind=4)))
        self.assertIsInstance(self.client._kaproto.closing.reason, RemoteProtocolError)

    def test_failure(self) -> None:
        """
        When relaying raises an exception, it is logged and the connection closed.
        """
        self.patch(
            self.client._kaproto.incoming, "trace", mock.Mock(side_effect=RuntimeError("a defect"))
        )
        self.send(self.client, HOSTNAME)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(self.client.transport._aborting)

    def test_relayed(self) -> None:
        """
        C{relayed} is called when messages were read from the connection that it is set on.
        """
        told = mock.Mock()
        self.upstream._kaproto.incoming.relayed = told
        self.send(self.client, HOSTNAME)
        told.assert_not_called()
        self.send(self.upstream, HOSTNAME)
        told.assert_called_once_with()

    def test_closing(self) -> None:
        """
        A connection that ends in any way is not read any more.
        """
        ends: tuple[Callable[[End], object], ...] = (
            lambda end: end._kaproto.disconnect(ConnectionClosed("bye")),
            lambda end: end._kaproto.abort(ConnectionClosed("bye")),
            lambda end: end.transport.connectionLost(Failure(ConnectionLost())),
        )
        for close in ends:
            client, upstream = self.connect(), self.connect()
            Relay(*cast(Any, (client._kaproto, upstream._kaproto))).start(self.reader)
            before = len(self.reader)
            client.far.sendall(HOSTNAME)
            close(client)
            self.assertEqual(len(self.reader), before - 1)
            self.reader.doRead()
            self.assertEqual(upstream.read(), b"")

    def test_closedWhilePaused(self) -> None:
        """
        A connection that ended while it was paused is not read when it resumes.
        """
        self.client._kaproto.pauseReading(Pause.CONGESTION)
        self.client.transport.connected = False
        self.client._kaproto.reading.resume(Pause.CONGESTION)
        self.assertDirect(self.upstream)

    def test_pausedBefore(self) -> None:
        """
        A connection that was paused before relaying begins is read when it resumes.
        """
        client, upstream = self.connect(), self.connect()
        client._kaproto.pauseProducing()
        Relay(*cast(Any, (client._kaproto, upstream._kaproto))).start(self.reader)
        upstream.far.sendall(HOSTNAME)
        self.reader.doRead()
        self.assertEqual(client.read(), b"")
        client._kaproto.resumeProducing()
        self.reader.doRead()
        self.assertEqual(client.read(), HOSTNAME)

    def test_fullBefore(self) -> None:
        """
        A connection with too many calls under way before relaying begins is read when it resumes.
        """
        client, upstream = self.connect(), self.connect()
        client._kaproto.pauseReading(Pause.CALLS)
        Relay(*cast(Any, (client._kaproto, upstream._kaproto))).start(self.reader)
        self.send(client, HOSTNAME)
        self.assertEqual(upstream.read(), b"")
        client._kaproto.reading.resume(Pause.CALLS)
        self.reader.doRead()
        self.assertEqual(upstream.read(), HOSTNAME)

    def test_closedBefore(self) -> None:
        """
        A connection that is closing when relaying begins is not read.
        """
        client, upstream = self.connect(), self.connect()
        client._kaproto.disconnect(ConnectionClosed("bye"))
        before = len(self.reader)
        Relay(*cast(Any, (client._kaproto, upstream._kaproto))).start(self.reader)
        self.assertEqual(len(self.reader), before + 1)

    def test_otherTransports(self) -> None:
        """
        TLS, and transports that are not Twisted's own, are read by the reactor.
        """
        secure, other = self.connect(), self.connect()
        secure.transport.TLS = True
        other._kaproto.transport = cast(Any, StringTransport())
        before = len(self.reader)
        Relay(*cast(Any, (secure._kaproto, other._kaproto))).start(self.reader)
        self.assertEqual(len(self.reader), before)
        self.assertIn(secure.transport, self.reactor.getReaders())

    def test_neverIdle(self) -> None:
        """
        A relayed connection never moves to the reader of idle connections.
        """
        self.assertIsNone(self.client._kaproto.heartbeat._isBetween)

    def test_shutdown(self) -> None:
        """
        When the reactor shuts down, the reader closes the relayed connections.
        """
        self.reader.connectionLost(Failure(ConnectionLost()))
        for end in (self.client, self.upstream):
            self.assertIsInstance(end._kaproto.closing.reason, ConnectionLost)
        self.assertDirect()


class SecureTests(SocketRelayTestCase):
    """
    Tests for relaying from a client over TLS.

    @ivar secure: the gateway's end of the client's connection.
    @ivar peer: the client's end, in OpenSSL.
    """

    def setUp(self) -> None:
        """
        Complete the client's handshake, and start relaying.
        """
        super().setUp()
        certificates = TLSTestCase("mktemp")
        certificates.setUp()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.use_certificate(certificates.client.certificate)
        context.use_privatekey(certificates.client.key)
        self.peer = SSL.Connection(context, None)
        self.peer.set_connect_state()
        self.secure = self.connectBelow(certificates.serverContext())
        self.layer = self.secure.transport
        self.below = self.layer.transport
        while not self.layer.getHandle().completed:
            with contextlib.suppress(SSL.WantReadError):
                self.peer.do_handshake()
            self.secure.far.sendall(self.peer.bio_read(1 << 16))
            self.below.doRead()
            self.decrypted()
        self.upstream = self.connect()
        self.relay = Relay(*cast(Any, (self.secure._kaproto, self.upstream._kaproto)))
        self.relay.start(self.reader)

    def connectBelow(self, context: ServerContextFactory) -> End:
        """
        Connect an end over TLS.
        """
        plain = self.connect()
        end, factory = End(), Factory.forProtocol(cast(Any, lambda: end))
        end.far = plain.far
        layer = TLSFactory(context, False, factory, cast(Any, self.clock)).buildProtocol(None)
        plain.transport.protocol = layer
        plain.transport.unregisterProducer()
        end.factory = plain.factory
        layer.makeConnection(plain.transport)
        return end

    def decrypted(self) -> bytes:
        """
        @return: the bytes that arrived at the client.
        """
        received = self.secure.read()
        if received:
            self.peer.bio_write(received)
        data = b""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                data += self.peer.recv(1 << 16)
        return data

    def encrypted(self, *parts: bytes) -> bytes:
        """
        @return: the client's bytes, one record for each part.
        """
        for part in parts:
            self.peer.send(part)
        return self.peer.bio_read(1 << 22)

    def test_messages(self) -> None:
        """
        Messages are read without the reactor and sent at once in both directions: whole, in pieces,
        and many records together.
        """
        self.send(self.secure, self.encrypted(HOSTNAME))
        self.assertEqual(self.upstream.read(), HOSTNAME)
        record = self.encrypted(HOSTNAME)
        self.send(self.secure, record[:20])
        self.assertEqual(self.upstream.read(), b"")
        self.send(self.secure, record[20:] + self.encrypted(HOSTNAME, HOSTNAME))
        self.assertEqual(self.upstream.read(), HOSTNAME * 3)
        self.send(self.upstream, HOSTNAME * 2)
        self.assertEqual(self.decrypted(), HOSTNAME * 2)
        self.assertEqual(self.reactor.getReaders(), [self.reader])
        self.assertEqual(self.reactor.getWriters(), [])

    def test_large(self) -> None:
        """
        Messages of many records arrive unchanged.
        """
        packed = packMessage(stream(9, payload=bytes(range(256)) * 250))
        self.send(self.secure, self.encrypted(*(packed[at : at + 16000] for at in (0, 16000))))
        self.send(self.secure, self.encrypted(packed[32000:48000], packed[48000:]))
        self.assertEqual(self.upstream.read(), packed)
        self.send(self.upstream, packed)
        self.assertEqual(self.decrypted(), packed)

    def test_longReads(self) -> None:
        """
        So do messages of many reads of many records.
        """
        packed = packMessage(stream(9, payload=bytes(range(256)) * 8192))
        left = self.encrypted(*(packed[at : at + 16000] for at in range(0, len(packed), 16000)))
        longest, received = 0, b""
        while left:
            with contextlib.suppress(BlockingIOError):
                left = left[self.secure.far.send(left) :]
            before = self.layer.bytesReceived
            self.reader.doRead()
            longest = max(longest, self.layer.bytesReceived - before)
            received += self.writeOut(self.upstream)
        self.assertEqual(received, packed)
        self.assertGreater(longest, PIECE)

    def test_pongAndEnd(self) -> None:
        """
        So does one that arrives together with a pong.
        """
        self.peer.send(PONG)
        self.peer.shutdown()
        self.send(self.secure, self.peer.bio_read(1 << 16))
        self.assertTrue(self.below.disconnecting)
        self.assertNotIn(self.below.fileno(), self.reader._reading)

    def test_endFails(self) -> None:
        """
        When ending raises an exception, it is logged and the connection closed.
        """
        self.patch(self.layer, "end", mock.Mock(side_effect=RuntimeError("a defect")))
        self.peer.shutdown()
        self.send(self.secure, self.peer.bio_read(1 << 16))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(self.below._aborting)

    def test_longEnd(self) -> None:
        """
        A close alert after many records closes the connection, when these have been relayed.
        """
        packed = packMessage(stream(9, payload=bytes(100000)))
        for at in range(0, len(packed), 16000):
            self.peer.send(packed[at : at + 16000])
        self.peer.shutdown()
        self.send(self.secure, self.peer.bio_read(1 << 20))
        self.reader.doRead()
        self.assertEqual(self.upstream.read(), packed)
        self.assertTrue(self.below.disconnecting)

    def test_keepAlive(self) -> None:
        """
        Pings over TLS are answered by this hop.
        """
        self.send(self.secure, self.encrypted(PING))
        self.assertEqual(self.decrypted(), PONG)
        self.assertEqual(self.upstream.read(), b"")

    def test_notEncrypted(self) -> None:
        """
        Plain text from the network, even a pong, closes the connection.
        """
        liveness = self.secure._kaproto.heartbeat.liveness
        liveness.unanswered = 1
        self.send(self.secure, PONG)
        self.assertEqual(liveness.unanswered, 1)
        self.assertNotIn(self.below, self.reactor.getReaders())
        self.assertNotIn(self.below.fileno(), self.reader._reading)

    def test_end(self) -> None:
        """
        The client's close alert closes the connection.
        """
        self.peer.shutdown()
        self.send(self.secure, self.peer.bio_read(1 << 16))
        self.assertTrue(self.below.disconnecting)
        self.assertNotIn(self.below.fileno(), self.reader._reading)

    def test_failure(self) -> None:
        """
        When decrypting raises an exception, it is logged and the connection closed.
        """
        self.patch(self.layer, "decrypt", mock.Mock(side_effect=RuntimeError("a defect")))
        self.send(self.secure, self.encrypted(HOSTNAME))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(self.below._aborting)

    def test_paused(self) -> None:
        """
        While the server does not read, the client is not read.
        """
        self.upstream._kaproto.pauseProducing()
        self.send(self.secure, self.encrypted(HOSTNAME))
        self.assertEqual(self.upstream.read(), b"")
        self.assertNotIn(self.below, self.reactor.getReaders())
        self.upstream._kaproto.resumeProducing()
        self.reader.doRead()
        self.assertEqual(self.upstream.read(), HOSTNAME)

    def test_wrapped(self) -> None:
        """
        With another protocol between TLS and the socket, the reactor reads.
        """
        self.secure._kaproto.reading._direct = None
        before = len(self.reader)
        self.below.protocol = self.client
        self.reader.read(self.secure._kaproto, self.relay._toServer)
        self.assertEqual(len(self.reader), before)
