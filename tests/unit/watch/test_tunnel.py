"""
Tests for L{kaproto.watch.tunnel}, L{kaproto.watch.tunnelwire} and L{kaproto.watch.endpoints}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kaproto.errors import KeepAliveTimeout, KeepAliveUnsupported, RemoteProtocolError
from kaproto.interfaces import ADMITTED, Admission, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import Disable, Mandatory, Optional, Policy
from kaproto.testing import memoryPair
from kaproto.watch.endpoints import TunnelClientEndpoint, TunnelServerEndpoint
from kaproto.watch.interfaces import Control, Kind
from kaproto.watch.tunnel import tunnelClient, tunnelServer
from kaproto.watch.tunnelwire import _PIECE, END, TUNNEL_PROGRAM, TunnelCodec, TunnelWire
from kaproto.wire.message import PING, PONG, Message, MessageType, Status, packMessage
from tests.unit.watch.test_framing import pieces

TERMS = KeepAlive(1, 2)
CODEC = TunnelCodec()
ADDRESS = IPv4Address("TCP", "192.0.2.1", 5)


class Application(Protocol):
    """
    Keeps what it is sent.
    """

    greeting = b""

    def __init__(self) -> None:
        self.heard = b""
        self.connections = 0
        self.lost: list[BaseException] = []

    def connectionMade(self) -> None:
        """
        Greet.
        """
        self.connections += 1
        if self.greeting:
            assert self.transport is not None
            self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        """
        Keep it.
        """
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Keep the reason.
        """
        assert reason.value is not None
        self.lost.append(reason.value)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Application):
    """
    An application that goes on when its peer has nothing more to say.
    """

    ended = 0

    def readConnectionLost(self) -> None:
        """
        Note it.
        """
        self.ended += 1

    def writeConnectionLost(self) -> None:
        """
        Twisted tells this, too.
        """


class Applications(Factory):
    """
    Builds one application.
    """

    noisy = False

    def __init__(self, application: Any) -> None:
        self.application = application

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        The application.
        """
        return self.application


class TunnelTestCase(SynchronousTestCase):
    """
    Two applications with a tunnel between them, on a clock.
    """

    def setUp(self) -> None:
        """
        Make them.
        """
        self.clock = Clock()
        self.server: Any = Application()
        self.client: Any = Application()
        self.events = self.enterContext(capturedLogs())

    def pair(self, policy: Any = None, *, plain: bool = False, **more: Any) -> Any:
        """
        Connect the two.

        @param plain: whether the client knows no tunnel.
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
        The log.
        """
        return "\n".join(formatEvent(event) for event in self.events)


class TunnelTests(TunnelTestCase):
    """
    A tunnel with both its ends.
    """

    def test_bytes(self) -> None:
        """
        What one application writes the other gets, and each knows who the other is.
        """
        pair = self.pair()
        self.assertIs(self.successResultOf(pair.client.ready), self.client)
        self.client.transport.write(b"hello")
        self.client.transport.write(b"")
        self.server.transport.writeSequence([b"wel", b"come"])
        pair.flush()
        self.assertEqual((self.server.heard, self.client.heard), (b"hello", b"welcome"))
        self.assertEqual(self.server.transport.getPeer(), pair.serverTransport.getPeer())

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
        A server that speaks first is heard at once, whatever the mode, and so is a producer.
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
        Both find out when the network swallows everything.
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
        In mode 0 nobody is pinged by the server; in all modes the client's pings are answered.
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
        More than one message can hold is cut into several.
        """
        wire = TunnelWire(server=True)
        data = wire.wrap(bytes(_PIECE + 5))
        self.assertEqual(len(data), _PIECE + 5 + 2 * 28)

    def test_close(self) -> None:
        """
        Closing and aborting are what they are without a tunnel.
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
        Each direction can end by itself, and pings go on.
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
        An application that has no use for half a connection is disconnected.
        """
        for end, other in (("client", "server"), ("server", "client")):
            self.setUp()
            pair = self.pair()
            getattr(self, end).transport.loseWriteConnection()
            pair.flush()
            self.assertIsInstance(getattr(self, other).lost[0], ConnectionDone)


class PlainClientTests(TunnelTestCase):
    """
    A client that knows no tunnel.
    """

    def test_served(self) -> None:
        """
        In mode 1 it is served at its first byte, unwatched, and the log says that mode 2 would
        refuse it.
        """
        pair = self.pair(Optional(TERMS), plain=True)
        self.client.transport.write(b"GET")
        pair.flush()
        self.server.transport.write(b"200")
        pair.advance(20)
        self.assertEqual((self.server.heard, self.client.heard), (b"GET", b"200"))
        self.assertEqual(self.server.lost, [])
        self.assertIn("mode 2 would refuse", self.logged())

    def test_similar(self) -> None:
        """
        A client whose first bytes are like those of a tunnel's is recognized where they differ.
        """
        pair = self.pair(Optional(TERMS), plain=True)
        start = CODEC.ask(1)[:7]
        self.client.transport.write(start)
        pair.flush()
        self.assertEqual(self.server.heard, b"")
        self.client.transport.write(b"x")
        pair.flush()
        self.assertEqual(self.server.heard, start + b"x")

    def test_silent(self) -> None:
        """
        Where the server speaks first, it is heard after a while; a client that has said too little
        to tell is served then, too.
        """
        for said in (b"", CODEC.ask(1)[:5]):
            self.setUp()
            self.server.greeting = b"220 ready"
            pair = self.pair(Optional(TERMS), plain=True)
            if said:
                pair.clientTransport.write(said)
            pair.advance(0.9)
            self.assertEqual((self.server.connections, self.client.heard), (1, b""))
            pair.advance(0.2)
            self.assertEqual((self.server.heard, self.client.heard), (said, b"220 ready"))

    def test_clientFirst(self) -> None:
        """
        With no time to wait, the server's application is held back until the client speaks.
        """
        self.server.greeting = b"hi"
        pair = self.pair(Optional(TERMS), plain=True, wait=0)
        pair.advance(60)
        self.assertEqual(self.client.heard, b"")
        self.client.transport.write(b"x")
        pair.flush()
        self.assertEqual(self.client.heard, b"hi")

    def test_heldBack(self) -> None:
        """
        Held back are also a producer and the end of the connection.
        """

        class Producer:
            calls: list[str] = []  # noqa: RUF012

            def pauseProducing(self) -> None:
                self.calls.append("pause")

            def resumeProducing(self) -> None:
                self.calls.append("resume")

        pair = self.pair(Optional(TERMS), plain=True)
        producer = Producer()
        transport = self.server.transport
        transport.registerProducer(producer, True)
        transport.write(b"220 ready")
        transport.loseConnection()
        self.assertEqual((producer.calls, transport.disconnecting), (["pause"], 1))
        pair.advance(1.1)
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertEqual(self.client.heard, b"220 ready")
        self.assertEqual(len(self.client.lost), 1)

    def test_producers(self) -> None:
        """
        A pull producer is asked once the client is known; one that has gone is not.
        """
        pair = self.pair(Optional(TERMS), plain=True)
        transport = self.server.transport
        transport.registerProducer(object(), False)
        transport.unregisterProducer()
        producer: Any = object()
        transport.registerProducer(producer, False)
        pair.advance(1.1)
        self.assertIs(pair.serverTransport._producer, producer)
        transport.unregisterProducer()
        transport.registerProducer(producer, False)
        self.assertIs(pair.serverTransport._producer, producer)

    def test_refused(self) -> None:
        """
        In mode 2 it is closed at its first byte, and the application sees nothing.
        """
        pair = self.pair(plain=True)
        self.client.transport.write(b"GET")
        pair.flush()
        self.assertEqual((self.server.connections, self.client.heard), (0, b""))
        self.assertEqual(len(self.client.lost), 1)
        self.assertIn("by policy mandatory", self.logged())

    def test_silentRefused(self) -> None:
        """
        One that says nothing is closed after ten seconds.
        """
        pair = self.pair(plain=True)
        pair.advance(9.9)
        self.assertEqual(self.client.lost, [])
        pair.advance(0.2)
        self.assertEqual((len(self.client.lost), self.client.heard), (1, b""))

    def test_halfClose(self) -> None:
        """
        Its half-closed connection is the transport's own.
        """
        pair = self.pair(Optional(TERMS), plain=True)
        self.client.transport.write(b"x")
        pair.flush()
        closed = []
        pair.serverTransport.loseWriteConnection = lambda: closed.append(True)
        self.server.transport.loseWriteConnection()
        self.assertEqual(closed, [True])


class ClientTests(TunnelTestCase):
    """
    A client of a tunnel, with servers that know none or do not want it.
    """

    def connect(self) -> tuple[Any, StringTransport]:
        """
        Connect to somebody.
        """
        factory = tunnelClient(Applications(self.client), TERMS, clock=self.clock)
        protocol: Any = factory.buildProtocol(ADDRESS)
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.assertEqual(transport.value(), CODEC.ask(0.1))
        return protocol, transport

    def test_otherServers(self) -> None:
        """
        A server that answers something else, early or late, or nothing, or closes, does not speak
        keepalive.
        """
        for answer, why in (
            (b"H", "in place of the answer of a tunnel"),
            (b"\0\0\0\x20\1", "in place of the answer"),
            (b"220 ready", "in place of the answer"),
            (PING, "in place of the answer"),
            (CODEC.ask(1), "type 0"),
            (TunnelWire(server=False).wrap(b"x"), "through a tunnel"),
            (b"\0\0\0\1" + CODEC.answer(1)[4:], "a message of 1 bytes"),
            (CODEC.refusal("no", b"")[:28], "it closed the connection"),
        ):
            protocol, transport = self.connect()
            protocol.dataReceived(answer)
            self.assertEqual(transport.disconnecting, "closed" not in why, answer)
            protocol.connectionLost(Failure(ConnectionDone()))
            failure = self.failureResultOf(protocol.ready, KeepAliveUnsupported)
            self.assertIn("does not speak keepalive", str(failure.value))
            self.assertIn(why, str(failure.value))
            self.assertEqual(self.client.connections, 0)

    def test_silentServer(self) -> None:
        """
        A server that says nothing is not waited for without end.
        """
        protocol, transport = self.connect()
        self.clock.advance(10)
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(Failure(ConnectionAborted()))
        failure = self.failureResultOf(protocol.ready, KeepAliveUnsupported)
        self.assertIn("it is silent", str(failure.value))

    def test_refused(self) -> None:
        """
        A server that refuses says why.
        """

        class Never(Policy):
            name = "never"

            def admit(self, peer: Peer) -> Admission | Refused:
                return Refused("not you")

        pair = self.pair(Never(TERMS))
        pair.flush()
        failure = self.failureResultOf(pair.client.ready, KeepAliveUnsupported)
        self.assertIn("refused the tunnel: not you", str(failure.value))

    def test_notOffered(self) -> None:
        """
        A policy that does not advertise keepalive offers no tunnel.
        """

        class Silent(Policy):
            name = "silent"

            def advertises(self, peer: Peer) -> bool:
                return False

            def admit(self, peer: Peer) -> Admission | Refused:
                return ADMITTED

        pair = self.pair(Silent(TERMS))
        failure = self.failureResultOf(pair.client.ready, KeepAliveUnsupported)
        self.assertIn("does not offer keepalive", str(failure.value))

    def test_badRefusal(self) -> None:
        """
        A refusal that cannot be read is one.
        """
        protocol, _transport = self.connect()
        protocol.dataReceived(
            packMessage(Message(TUNNEL_PROGRAM, 1, 1, MessageType.REPLY, 0, Status.ERROR, b"x"))
        )
        protocol.connectionLost(Failure(ConnectionAborted()))
        failure = self.failureResultOf(protocol.ready, KeepAliveUnsupported)
        self.assertIn("cannot be decoded", str(failure.value))

    def test_lostAfterwards(self) -> None:
        """
        A connection that is lost after it was ready is the application's affair.
        """
        protocol, _transport = self.connect()
        protocol.dataReceived(CODEC.answer(0.1))
        self.assertIs(self.successResultOf(protocol.ready), self.client)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.client.lost[0], ConnectionDone)


class WireTests(SynchronousTestCase):
    """
    The bytes in a tunnel.
    """

    @given(st.lists(st.binary(max_size=30)), st.data())
    def test_transparent(self, written: list[bytes], data: st.DataObject) -> None:
        """
        However it is cut, the application's stream arrives as it was, without what is between.
        """
        sender, receiver = TunnelWire(server=False), TunnelWire(server=True)
        stream = CODEC.ask(2.5)
        pings = 0
        for each in written:
            stream += sender.wrap(each)
            if data.draw(st.booleans()):
                stream += PING + PONG
                pings += 1
        stream += END
        heard, controls = b"", []
        for part in pieces(data, stream):
            for found in receiver.feed(part):
                if isinstance(found, Control):
                    controls.append(found)
                else:
                    heard += found
        between = [Control(Kind.PING), Control(Kind.PONG)] * pings
        self.assertEqual(heard, b"".join(written))
        self.assertEqual(controls, [Control(Kind.ASK, 2.5), *between, Control(Kind.END)])
        self.assertTrue(receiver.between)

    @given(st.booleans(), st.booleans(), st.binary(max_size=200), st.data())
    def test_anything(self, server: bool, opened: bool, stream: bytes, data: st.DataObject) -> None:
        """
        Any bytes pass as they are, are a tunnel's, or an error.
        """
        wire = TunnelWire(server=server)
        if opened:
            list(wire.feed(CODEC.ask(1) if server else CODEC.answer(1)))
        heard = b""
        try:
            for part in pieces(data, stream):
                for found in wire.feed(part):
                    if isinstance(found, bytes):
                        heard += found
        except RemoteProtocolError:
            return
        if wire.plain:
            self.assertEqual(heard, stream)
        self.assertLessEqual(len(wire._partial), 8300)

    def test_notInATunnel(self) -> None:
        """
        What no peer may send is an error.
        """
        ask = CODEC.ask(1)
        for message in (
            ask + ask,
            ask + CODEC.answer(1),
            ask + PING[:12] + b"\0\0\0\3" + PING[16:],
            ask + packMessage(Message(1, 1, 1, 0, 0, 0)),
            ask + b"\0\0\0\1" + PING[4:],
            ask + b"\x7f\0\0\0" + TunnelWire(server=False).wrap(b"x")[4:],
        ):
            wire = TunnelWire(server=True)
            self.assertRaises(RemoteProtocolError, list, wire.feed(message))

    def test_badOpening(self) -> None:
        """
        A first message that is none is an error.
        """
        for kind, payload in ((MessageType.REPLY, b"\0\0\0\1"), (MessageType.STREAM, b"\0\0\0\1")):
            message = packMessage(Message(TUNNEL_PROGRAM, 1, 1, kind, 0, 0, payload))
            self.assertRaises(RemoteProtocolError, list, TunnelWire(server=True).feed(message))


class EndpointTests(TunnelTestCase):
    """
    The endpoint strings.
    """

    def test_server(self) -> None:
        """
        A server's string names the policy; the rest is the inner endpoint's.
        """
        endpoint: Any = serverFromString(
            MemoryReactorClock(),
            "keepalive:tcp:40:interface=\\:\\:1:policy=2:interval=0.5:count=3:wait=2",
        )
        verifyObject(IStreamServerEndpoint, endpoint)
        self.assertIsInstance(endpoint, TunnelServerEndpoint)
        self.assertEqual(endpoint.policy, Mandatory(KeepAlive(0.5, 3)))
        self.assertEqual(endpoint.wait, 2)
        self.assertIsInstance(endpoint._wrapped, TCP4ServerEndpoint)
        self.assertEqual(endpoint._wrapped._interface, "::1")

    def test_defaults(self) -> None:
        """
        By default clients without a tunnel are served.
        """
        endpoint: Any = serverFromString(MemoryReactorClock(), "keepalive:tcp:40")
        self.assertEqual((endpoint.policy, endpoint.wait), (Optional(KeepAlive(5, 5)), 1))
        client: Any = clientFromString(MemoryReactorClock(), "keepalive:tcp:192.0.2.1:40")
        self.assertEqual((client.keepAlive, client.wait), (KeepAlive(5, 5), 10))
        self.assertFalse(client.plain)

    def test_listen(self) -> None:
        """
        Listening is listening on the inner endpoint, with anything beneath it.
        """
        reactor = MemoryReactorClock()
        endpoint: Any = serverFromString(reactor, "keepalive:tcp:40")
        beneath = []

        def wrap(inner: Any) -> Any:
            beneath.append(inner)
            return inner

        self.successResultOf(endpoint.beneath(wrap).listen(Factory()))
        self.assertEqual(len(beneath), 1)
        self.assertEqual(reactor.tcpServers[0][0], 40)

    def test_client(self) -> None:
        """
        Connecting gives the application's protocol.
        """
        endpoint: Any = clientFromString(
            MemoryReactorClock(), "keepalive:tcp:host=192.0.2.1:port=40:count=2:plain=yes"
        )
        verifyObject(IStreamClientEndpoint, endpoint)
        self.assertIsInstance(endpoint, TunnelClientEndpoint)
        self.assertIsInstance(endpoint._wrapped, TCP4ClientEndpoint)
        self.assertEqual((endpoint.keepAlive, endpoint.plain), (KeepAlive(5, 2), True))

    def connecting(self, answers: list[bytes], *, plain: bool) -> tuple[Deferred[Any], list[Any]]:
        """
        Connect to servers that answer this and close.
        """
        built: list[Any] = []

        class Inner:
            def connect(self, factory: Any) -> Deferred[Any]:
                protocol = factory.buildProtocol(ADDRESS)
                built.append(protocol)
                protocol.makeConnection(StringTransport())
                answer = answers.pop(0)
                if answer:
                    protocol.dataReceived(answer)
                    if answer[0]:
                        protocol.connectionLost(Failure(ConnectionDone()))
                return succeed(protocol)

        inner: Any = Inner()
        endpoint = TunnelClientEndpoint(inner, TERMS, clock=self.clock, plain=plain)
        return endpoint.connect(Applications(self.client)), built

    def test_connect(self) -> None:
        """
        Through a tunnel; or with C{plain=yes}, over a second connection without one.
        """
        connecting, _built = self.connecting([CODEC.answer(1)], plain=False)
        self.assertIs(self.successResultOf(connecting), self.client)
        connecting, _built = self.connecting([b"HTTP"], plain=False)
        self.failureResultOf(connecting, KeepAliveUnsupported)
        connecting, built = self.connecting([b"HTTP", b""], plain=True)
        self.assertIs(self.successResultOf(connecting), self.client)
        self.assertIs(built[1], self.client)

    def test_mistakes(self) -> None:
        """
        Mistakes are errors that show what is right.
        """
        for rest, reason in {
            "": "not before ''",
            ":keepalive:tcp:1": "not before 'keepalive'",
            ":tcp:1:policy=3": "there is no policy '3'",
            ":tcp:1:interval=x": "interval= is a number of seconds, not 'x'",
            ":tcp:1:interval=nan": "not 'nan'",
            ":tcp:1:interval=-1": "not '-1'",
            ":tcp:1:wait=inf": "not 'inf'",
            ":tcp:1:count=1.5": "count= is a whole number of pings, not '1.5'",
            ":tcp:1:intervall=5": "takes policy=, interval=, count=, wait=, and the rest",
            ":tcp:1:interface=::1": "interface=\\:\\:1",
            ":nothing:1": "Unknown endpoint type",
        }.items():
            error = self.assertRaises(
                ValueError, serverFromString, MemoryReactorClock(), f"keepalive{rest}"
            )
            self.assertIn(reason, str(error))
        error = self.assertRaises(
            ValueError, clientFromString, MemoryReactorClock(), "keepalive:tcp:a:1:plain=1"
        )
        self.assertIn("plain= is yes or no", str(error))

    def test_plugin(self) -> None:
        """
        Twisted finds it, for servers and clients.
        """
        for interface in (
            IStreamServerEndpointStringParser,
            IStreamClientEndpointStringParserWithReactor,
        ):
            plugins: Any = getPlugins(interface)
            found = [each for each in plugins if each.prefix == "keepalive"]
            self.assertEqual(len(found), 1)
            verifyObject(interface, found[0])
