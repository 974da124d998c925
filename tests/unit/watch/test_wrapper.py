"""
Tests for L{kaproto.watch.wrapper} and L{kaproto.watch.protocol}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.basic import LineReceiver, NetstringReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto.errors import KeepAliveTimeout, LocalProtocolError, PeerFlooded
from kaproto.interfaces import ADMITTED, Admission, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import Disable, Mandatory, Optional, Policy
from kaproto.testing import memoryPair
from kaproto.watch import (
    AMPCodec,
    IHeartbeatCodec,
    LineCodec,
    NetstringCodec,
    Words,
    watched,
    watchedClient,
    watchedEndpoint,
)
from kaproto.watch import protocol as protocolModule

TERMS = KeepAlive(1, 2)
ADDRESS = IPv4Address("TCP", "192.0.2.1", 5)


class Chat(LineReceiver):
    """
    An application without any knowledge of keepalive.
    """

    greeting: bytes | None = None

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.lost: list[Exception] = []
        self.connections = 0

    def connectionMade(self) -> None:
        """
        Count the connection, and send the greeting if there is one.
        """
        self.connections += 1
        if self.greeting is not None:
            self.sendLine(self.greeting)

    def lineReceived(self, line: bytes) -> None:
        """
        Record the line.
        """
        self.lines.append(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the reason.
        """
        assert isinstance(reason.value, Exception)
        self.lost.append(reason.value)


class ChatFactory(Factory):
    """
    A factory that always returns the same application.
    """

    noisy = False

    def __init__(self, built: Protocol | None = None) -> None:
        self.chat: Any = Chat() if built is None else built

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Return the application.
        """
        return self.chat


class WatchTestCase(SynchronousTestCase):
    """
    A test case with a watched server and a clock.
    """

    codec: IHeartbeatCodec = LineCodec()

    def setUp(self) -> None:
        """
        Create the clock and the factories.
        """
        self.clock = Clock()
        self.server, self.client = ChatFactory(), ChatFactory()
        self.events = self.enterContext(capturedLogs())

    def pair(
        self, policy: Any, *, keepAlive: KeepAlive | None = TERMS, bears: float = 0.1, **more: Any
    ) -> Any:
        """
        Connect a client, which asks for keepalive unless C{keepAlive} is C{None}.
        """
        serverFactory = watched(self.server, policy, self.codec, clock=self.clock, **more)
        clientFactory: Any = self.client
        if keepAlive is not None:
            clientFactory = watchedClient(
                self.client, keepAlive, self.codec, clock=self.clock, bears=bears
            )
        made = memoryPair(serverFactory, clientFactory, self.clock)
        made.flush()
        return made

    def logged(self) -> list[str]:
        """
        @return: the lines of the log.
        """
        return [formatEvent(event) for event in self.events]

    def pings(self, pair: Any, name: str) -> int:
        """
        @return: the number of pings that one end has sent.
        """
        return sum(data.count(self.codec.ping) for _, data in pair.writtenBy(name))


class ModeTests(WatchTestCase):
    """
    Tests for the three modes.
    """

    def test_asked(self) -> None:
        """
        A client that asks is served in every mode, and pinged except in mode 0.
        """
        for mode, policy in enumerate((Disable(TERMS), Optional(TERMS), Mandatory(TERMS))):
            self.setUp()
            pair = self.pair(policy, keepAlive=KeepAlive(0, 0))
            self.client.chat.sendLine(b"hello")
            pair.advance(10)
            self.assertEqual(self.server.chat.lines, [b"hello"])
            self.assertEqual(self.client.chat.lines, [])
            self.assertEqual(self.pings(pair, "server") > 5, mode > 0)
            self.assertEqual((self.server.chat.lost, self.client.chat.lost), ([], []))
            self.assertTrue(pair.server._peer.asked)

    def test_byNumber(self) -> None:
        """
        A mode can be given by number.
        """
        for mode, kind in enumerate((Disable, Optional, Mandatory)):
            made: Any = watched(self.server, mode, self.codec, clock=self.clock)
            self.assertIsInstance(made.policy, kind)

    def test_plainClient(self) -> None:
        """
        A client that does not ask is served in modes 0 and 1, with a warning in mode 1, and gets
        only the application's bytes.
        """
        for policy in (Disable(TERMS), Optional(TERMS)):
            self.setUp()
            self.server.chat.greeting = b"welcome"
            pair = self.pair(policy, keepAlive=None)
            self.client.chat.sendLine(b"hello")
            self.client.chat.sendLine(b"hello")
            pair.advance(10)
            self.assertEqual(self.server.chat.lines, [b"hello"] * 2)
            self.assertEqual(self.client.chat.lines, [b"welcome"])
            would = [line for line in self.logged() if "mode 2 would refuse" in line]
            self.assertEqual(len(would), policy.name == "optional")

    def test_plainClientRefused(self) -> None:
        """
        In mode 2 a client that does not ask is refused at its first message, which the application
        does not get.  The refusal is a message of the application's protocol.
        """
        pair = self.pair(Mandatory(TERMS), keepAlive=None)
        self.client.chat.sendLine(b"hello")
        pair.flush()
        self.assertEqual((self.server.chat.lines, self.server.chat.connections), ([], 0))
        (line,) = self.client.chat.lines
        self.assertTrue(line.startswith(b"ERROR "), line)
        self.assertEqual(len(self.client.chat.lost), 1)
        self.assertIn("by policy mandatory", self.logged()[-1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silentClientRefused(self) -> None:
        """
        In mode 2 a silent client is refused after C{wait} seconds.
        """
        pair = self.pair(Mandatory(TERMS), keepAlive=None, wait=3)
        pair.advance(2.9)
        self.assertEqual(self.client.chat.lost, [])
        pair.advance(0.2)
        self.assertEqual(len(self.client.chat.lost), 1)
        self.assertIn("it did not ask for keepalive within 3 s", self.logged()[-1])

    def test_refusedClientThatDoesNotClose(self) -> None:
        """
        A refused client that does not read the refusal is disconnected after five seconds.
        """
        pair = self.pair(Mandatory(TERMS), keepAlive=None)
        pair.clientTransport.reading = False
        self.client.chat.sendLine(b"hello")
        pair.advance(4.9)
        self.assertFalse(pair.serverTransport.disconnected)
        pair.advance(0.2)
        self.assertTrue(pair.serverTransport.disconnected)

    def test_greetingWaits(self) -> None:
        """
        In mode 2 the server's greeting is sent after the answer to the client's request.
        """
        self.server.chat.greeting = b"welcome"
        pair = self.pair(Mandatory(TERMS))
        self.assertEqual(self.client.chat.lines, [b"welcome"])
        self.assertEqual(pair.writtenBy("server")[0][1], b"KEEPALIVE-OK 0.1\r\n")

    def test_declined(self) -> None:
        """
        If the policy does not advertise keepalive, the client is declined and nothing is pinged.
        """

        class Silent(Policy):
            name = "silent"

            def advertises(self, peer: Peer) -> bool:
                return False

            def admit(self, peer: Peer) -> Admission | Refused:
                return ADMITTED if not peer.asked else Refused("asked")

        for codec in (LineCodec(), AMPCodec()):
            self.setUp()
            self.codec = codec
            pair = self.pair(Silent(TERMS))
            pair.advance(10)
            self.assertFalse(pair.server._peer.asked)
            self.assertEqual(self.pings(pair, "server") + self.pings(pair, "client"), 0)
        self.assertIn("does not support keepalive", self.logged()[-1])

    def test_askedAgain(self) -> None:
        """
        A repeated request or answer does not change the interval.
        """
        pair = self.pair(Optional(TERMS))
        pair.clientTransport.write(LineCodec().ask(100))
        pair.serverTransport.write(LineCodec().ask(100))
        pair.flush()
        self.assertEqual(pair.server.heartbeat.keepAlive, TERMS)
        self.assertEqual(pair.client.heartbeat.keepAlive, TERMS)

    def test_answeredOnce(self) -> None:
        """
        A peer that repeats requests or answers gets only one answer, and one line is logged.
        """

        class Silent(Policy):
            name = "silent"

            def advertises(self, peer: Peer) -> bool:
                return False

        self.codec = AMPCodec()
        pair = self.pair(Silent(TERMS))
        pair.clientTransport.write(self.codec.ask(1) * 50)
        pair.serverTransport.write(self.codec.decline() * 50 + self.codec.answer(1))
        pair.flush()
        declined = [data for _, data in pair.writtenBy("server") if data == self.codec.decline()]
        self.assertEqual(len(declined), 1)
        self.assertEqual(
            len([line for line in self.logged() if "does not support keepalive" in line]), 1
        )
        self.assertFalse(pair.client.heartbeat.keepAlive.enabled)

    def test_refusedAfterAll(self) -> None:
        """
        A policy may refuse a client even if it has asked.
        """

        class Never(Policy):
            name = "never"

            def admit(self, peer: Peer) -> Admission | Refused:
                return Refused("no")

        self.pair(Never(TERMS))
        self.assertEqual(self.client.chat.lines, [b"ERROR no"])
        self.assertEqual(self.server.chat.connections, 0)

    def test_askedLate(self) -> None:
        """
        In mode 1 a client may ask after other messages, and is pinged from then on.
        """
        pair = self.pair(Optional(TERMS), keepAlive=None)
        pair.clientTransport.write(b"hello\r\n" + LineCodec().ask(0))
        pair.flush()
        self.assertEqual(self.server.chat.lines, [b"hello"])
        self.assertEqual(pair.server.heartbeat.keepAlive, TERMS)

    def test_changesItsMind(self) -> None:
        """
        The policy is asked again when the client sends its first message, and that answer counts.
        """

        class Moody(Policy):
            name = "moody"
            answers: Iterator[Admission | Refused] = iter([Refused("no"), ADMITTED])

            def admit(self, peer: Peer) -> Admission | Refused:
                return next(self.answers)

        pair = self.pair(Moody(TERMS), keepAlive=None)
        self.client.chat.sendLine(b"hello")
        pair.flush()
        self.assertEqual(self.server.chat.lines, [b"hello"])

    def test_everyoneAnswers(self) -> None:
        """
        With a codec in which every peer answers pings, all clients are pinged and none is refused.
        """
        self.codec = LineCodec(Words(ask=None))
        pair = self.pair(Mandatory(TERMS))
        pair.advance(5)
        self.assertGreater(self.pings(pair, "server"), 2)
        self.assertEqual((self.server.chat.lost, self.server.chat.lines), ([], []))


class LifeTests(WatchTestCase):
    """
    Tests for detecting dead peers.
    """

    def test_idle(self) -> None:
        """
        Idle ends stay connected, and both measure the latency.
        """
        pair = self.pair(Mandatory(TERMS))
        pair.advance(60)
        self.assertEqual((self.server.chat.lost, self.client.chat.lost), ([], []))
        self.assertTrue(pair.server.heartbeat._isBetween())
        for end in (pair.server, pair.client):
            self.assertIsNotNone(end.heartbeat.latency)
            self.assertEqual(end.heartbeat.keepAlive, TERMS)

    def test_dead(self) -> None:
        """
        When the network no longer delivers anything, both ends detect it in time, and the
        applications get the reason.
        """
        pair = self.pair(Mandatory(TERMS))
        pair.blackhole()
        pair.advance(2.9)
        self.assertEqual((self.server.chat.lost, self.client.chat.lost), ([], []))
        pair.advance(0.2)
        for chat in (self.server.chat, self.client.chat):
            (reason,) = chat.lost
            assert isinstance(reason, KeepAliveTimeout)
        self.assertIn("tcp 127.0.0.1:54321 is dead: ", "".join(self.logged()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slowerThanWanted(self) -> None:
        """
        A peer is not pinged more often than it allows, and the log says so.
        """
        pair = self.pair(Mandatory(TERMS), keepAlive=KeepAlive(2, 2), bears=4)
        self.assertEqual(pair.server.heartbeat.keepAlive, KeepAlive(4, 2))
        self.assertEqual(pair.client.heartbeat.keepAlive, KeepAlive(2, 2))
        self.assertIn("every 4 s instead of 1 s, as it requests", "".join(self.logged()))

    def test_pause(self) -> None:
        """
        While the application pauses reading, the peer's silence does not count.
        """
        pair = self.pair(Mandatory(TERMS))
        self.server.chat.transport.pauseProducing()
        self.server.chat.transport.pauseProducing()
        self.assertFalse(pair.serverTransport.reading)
        pair.clientTransport.blackhole = True
        pair.advance(10)
        self.assertEqual(self.server.chat.lost, [])
        self.server.chat.transport.resumeProducing()
        self.server.chat.transport.resumeProducing()
        self.assertTrue(pair.serverTransport.reading)
        pair.advance(4)
        self.assertEqual(len(self.server.chat.lost), 1)

    def test_halfClose(self) -> None:
        """
        After the application has closed its direction, no pings are sent.
        """
        pair = self.pair(Mandatory(TERMS))
        closed = []
        pair.serverTransport.loseWriteConnection = lambda: closed.append(True)
        pair.server.loseWriteConnection()
        self.assertEqual(closed, [True])
        self.assertFalse(pair.server.heartbeat.keepAlive.enabled)

    def test_close(self) -> None:
        """
        Closing a connection leaves no timer and no protocol in the factory.
        """
        pair = self.pair(Mandatory(TERMS))
        self.server.chat.transport.stopProducing()
        pair.flush()
        self.assertIsInstance(self.server.chat.lost[0], ConnectionDone)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(pair.server.factory.protocols, {})


class StreamTests(WatchTestCase):
    """
    Tests for the bytes on the wire.
    """

    def test_betweenMessages(self) -> None:
        """
        Pings and pongs are sent between the application's messages, never inside one.
        """
        pair = self.pair(Mandatory(TERMS), keepAlive=KeepAlive(0, 0))
        application = self.server.chat.transport
        application.write(b"half")
        pair.clientTransport.write(self.codec.ping)
        pair.advance(10)
        written = b"".join(data for _, data in pair.writtenBy("server"))
        self.assertTrue(written.endswith(b"half"), written)
        application.writeSequence([b" a ", b"line\r", b"\nnext"])
        pair.flush()
        self.assertEqual(self.client.chat.lines, [b"half a line"])
        self.assertEqual(pair.writtenBy("server")[-1][1], b" a line\r\nPONG\r\nnext")
        application.write(b"\r\n")
        pair.advance(1.1)
        self.assertEqual(self.client.chat.lines, [b"half a line", b"next"])
        self.assertGreater(self.pings(pair, "server"), 0)

    def test_pingWaits(self) -> None:
        """
        A ping that becomes due inside a message is sent after it.
        """
        pair = self.pair(Mandatory(TERMS))
        application = self.server.chat.transport
        application.write(b"half")
        pair.server._sendPing()
        pair.server._sendPing()
        self.assertTrue(pair.server._isPingWaiting())
        application.write(b"\r\n")
        self.assertFalse(pair.server._isPingWaiting())
        self.assertEqual(pair.writtenBy("server")[-1][1], b"\r\nPING\r\n")

    def test_pausedInBetween(self) -> None:
        """
        An application that pauses while receiving gets the remaining messages after it resumes, but
        not within the call to C{resumeProducing}.
        """
        pair = self.pair(Mandatory(TERMS))
        heard: list[bytes] = []
        transport = self.server.chat.transport

        def received(data: bytes) -> None:
            heard.append(data)
            transport.pauseProducing()

        self.server.chat.dataReceived = received
        ping = self.codec.ping
        pair.clientTransport.write(b"a\r\n" + ping + b"b\r\n" + ping + b"c\r\n")
        pair.flush()
        for count in (1, 2, 3):
            self.assertEqual(heard, [b"a\r\n", b"b\r\n", b"c\r\n"][:count])
            transport.resumeProducing()
            transport.pauseProducing()
            pair.flush()
            self.assertEqual(len(heard), count)
            transport.resumeProducing()
            transport.resumeProducing()
            pair.flush()
        transport.resumeProducing()
        self.assertTrue(pair.serverTransport.reading)

    def test_pausedAndGone(self) -> None:
        """
        A connection that ends while the application has paused leaves no timer.
        """
        for resume in (False, True):
            self.setUp()
            pair = self.pair(Mandatory(TERMS))
            transport = self.server.chat.transport
            self.server.chat.dataReceived = lambda _data, transport=transport: (
                transport.pauseProducing()
            )
            pair.clientTransport.write(b"a\r\n" + self.codec.ping)
            pair.flush()
            if resume:
                transport.resumeProducing()
            pair.serverTransport.abortConnection()
            pair.flush()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_dropped(self) -> None:
        """
        The remaining messages of a dropped peer are not delivered.
        """
        pair = self.pair(Mandatory(TERMS))
        heard: list[bytes] = []
        transport = self.server.chat.transport

        def received(data: bytes) -> None:
            heard.append(data)
            transport.pauseProducing()

        self.server.chat.dataReceived = received
        pair.clientTransport.write(b"a\r\n" + self.codec.ping + b"b\r\n")
        pair.flush()
        self.clock.callLater(0, pair.server._end, ConnectionDone())
        transport.resumeProducing()
        pair.flush()
        self.assertEqual(heard, [b"a\r\n"])

    def test_pingWhileClosing(self) -> None:
        """
        Pings are not answered after the application has closed.
        """
        pair = self.pair(Mandatory(TERMS))
        self.server.chat.lineReceived = lambda _line: self.server.chat.transport.loseConnection()
        pair.clientTransport.write(b"a\r\n" + self.codec.ping)
        pair.flush()
        self.assertNotIn(self.codec.pong, [data for _, data in pair.writtenBy("server")])

    def test_reassures(self) -> None:
        """
        While the application pauses reading, its peer is sent pongs, unless the peer has not asked
        for keepalive or does not read.
        """
        pair = self.pair(Mandatory(TERMS))
        self.server.chat.transport.pauseProducing()
        pair.advance(10)
        self.assertEqual(self.client.chat.lost, [])
        pongs = [data for _, data in pair.writtenBy("server") if data == self.codec.pong]
        self.assertGreater(len(pongs), 5)
        self.patch(protocolModule, "unsent", lambda _transport: True)
        written = len(pair.sent)
        pair.blackhole()
        pair.advance(2)
        self.assertNotIn(self.codec.pong, [each.data for each in pair.sent[written:]])
        self.setUp()
        pair = self.pair(Optional(TERMS), keepAlive=None)
        self.client.chat.sendLine(b"hello")
        pair.flush()
        self.server.chat.transport.pauseProducing()
        pair.advance(10)
        self.assertEqual(pair.writtenBy("server"), [])

    def test_middleOfAMessage(self) -> None:
        """
        A client that cannot be pinged because the application's message is incomplete, such as a
        prompt, is not timed out.  After the message it can be.
        """
        pair = self.pair(Mandatory(TERMS), keepAlive=KeepAlive(0, 0))
        self.server.chat.transport.write(b"login: ")
        pair.advance(30)
        self.assertEqual(self.server.chat.lost, [])
        self.server.chat.transport.write(b"\r\n")
        pair.blackhole()
        pair.advance(4.1)
        self.assertIsInstance(self.server.chat.lost[0], KeepAliveTimeout)

    def test_wrongApplication(self) -> None:
        """
        An application whose messages do not match the codec gets an error.
        """
        self.codec = NetstringCodec()
        pair = self.pair(Mandatory(TERMS))
        error = self.assertRaises(LocalProtocolError, pair.server.write, b"hello\r\n")
        self.assertIn("does not fit its codec 'netstrings'", str(error))

    def test_wrongPeer(self) -> None:
        """
        A peer whose messages do not match the codec is dropped, and one line is logged.
        """
        self.codec = NetstringCodec()
        pair = self.pair(Optional(TERMS), keepAlive=None)
        pair.clientTransport.write(b"hello")
        pair.flush()
        pair.server.dataReceived(b"more")
        self.assertEqual(len(self.server.chat.lost), 1)
        self.assertIn("a netstring that begins with b'hello'", self.logged()[-1])

    def test_nothingAfterTheEnd(self) -> None:
        """
        An application that aborts the connection gets no further messages.
        """

        class Once(NetstringReceiver):
            def stringReceived(self, string: bytes) -> None:
                assert self.transport is not None
                self.transport.abortConnection()  # type: ignore[attr-defined]

        self.codec = NetstringCodec()
        self.server = ChatFactory(Once())
        pair = self.pair(Optional(TERMS), keepAlive=None)
        pair.clientTransport.write(b"1:a," * 3)
        pair.flush()
        self.assertTrue(pair.serverTransport.disconnected)

    def test_flood(self) -> None:
        """
        A peer that pings too often is dropped.
        """
        pair = self.pair(Optional(TERMS), keepAlive=None)
        pair.clientTransport.write(b"PING\r\n" * 101)
        pair.flush()
        (reason,) = self.server.chat.lost
        self.assertIsInstance(reason, PeerFlooded)

    def test_unreadPongs(self) -> None:
        """
        A peer that pings and does not read the pongs is dropped.
        """
        pair = self.pair(Optional(TERMS), keepAlive=None)
        self.patch(protocolModule, "unsent", lambda _: True)
        for _ in range(64):
            pair.server.dataReceived(b"PING\r\n")
        self.assertEqual(self.server.chat.lost, [])
        pair.server.dataReceived(b"PING\r\n")
        pair.advance(0.1)
        self.assertIsInstance(self.server.chat.lost[0], PeerFlooded)


class FactoryTests(WatchTestCase):
    """
    Tests for wrapped factories and endpoints.
    """

    def test_declinedByFactory(self) -> None:
        """
        A factory may decline a connection; bytes from the peer are then ignored.
        """
        self.server.chat = None
        for mode, said in ((1, b""), (1, b"hello\r\n"), (2, self.codec.ask(1) + b"hello\r\n")):
            made: Any = watched(self.server, mode, self.codec, clock=self.clock)
            protocol = made.buildProtocol(ADDRESS)
            transport = StringTransport()
            protocol.makeConnection(transport)
            protocol.dataReceived(said)
            self.assertTrue(transport.disconnecting)
            protocol.connectionLost(Failure(ConnectionDone()))

    def test_defaultClock(self) -> None:
        """
        By default the clock is the reactor's, with monotonic time.
        """
        made: Any = watched(self.server, 1, self.codec)
        self.assertNotIsInstance(made.clock, Clock)

    def test_endpoint(self) -> None:
        """
        A wrapped endpoint returns the application's protocol.
        """

        class Connected:
            def connect(self, factory: Any) -> Deferred[Any]:
                protocol = factory.buildProtocol(ADDRESS)
                protocol.makeConnection(StringTransport())
                return succeed(protocol)

        made = watchedEndpoint(
            Connected(),  # type: ignore[arg-type]
            TERMS,
            self.codec,
            clock=self.clock,
        )
        verifyObject(IStreamClientEndpoint, made)
        self.assertIs(self.successResultOf(made.connect(self.client)), self.client.chat)
