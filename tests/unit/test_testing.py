"""
Tests for L{kaproto.testing}.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.websocket import WebSocketClientEndpoint, WebSocketResource
from zope.interface.verify import verifyObject

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import ConnectionClosed, KeepAliveTimeout
from kaproto.keepalive import Heartbeat
from kaproto.policies import Mandatory
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.testing import (
    ConnectedPair,
    MemoryEndpoint,
    MemoryTransport,
    Sent,
    connectedPair,
    memoryPair,
)
from kaproto.watch.endpoints import TunnelClientEndpoint
from kaproto.watch.tunnelserver import tunnelServer
from kaproto.watch.websocket import watchedWebSocket, watchedWebSocketClient
from kaproto.wire.message import PING, PONG, packMessage
from kaproto.wire.programs import Procedure
from tests.support import ADDRESS, KEEPALIVE, ClockTestCase, Probe, call

Pair = ConnectedPair[KeepAliveServerProtocol, KeepAliveClientProtocol]
BUFFER_SIZE = 65536


class TestingTestCase(ClockTestCase):
    """
    A test of a pair in mode 2.
    """

    def connect(self, *, flush: bool = True) -> Pair:
        """
        Connect a pair.
        """
        self.probe = Probe()
        server = KeepAliveServerFactory(
            Mandatory(KEEPALIVE), programs=[self.probe], clock=self.clock
        )
        return self.pair(server, flush=flush)

    def reason(self, pair: Pair) -> Exception:
        """
        @return: why the client's end is closed.
        """
        return self.successResultOf(pair.client.whenClosed())


class ConnectedPairTests(TestingTestCase):
    """
    Two ends, connected.
    """

    def test_open(self) -> None:
        """
        The two have negotiated and are open, and know where the other is.
        """
        pair = self.connect()
        self.assertTrue(pair.client.isAlive())
        self.assertIs(pair.clock, self.clock)
        self.assertEqual(list(pair.server.factory.connections), [pair.server])
        self.assertEqual(str(pair.server.peer), "tcp 127.0.0.1:54321")
        self.assertEqual(pair.clientTransport.getPeer().port, 16509)  # type: ignore[attr-defined]

    def test_notFlushed(self) -> None:
        """
        On request nothing has been delivered yet.
        """
        pair = self.connect(flush=False)
        self.assertEqual(pair.server.factory.counters.accepted, 1)
        self.assertEqual(pair.writtenBy("client"), [(0, packMessage(call(Procedure.AUTH_LIST)))])
        self.assertEqual(pair.writtenBy("server"), [])
        pair.flush()
        self.assertTrue(pair.client.isAlive())

    def test_ownClasses(self) -> None:
        """
        The two ends are of the classes that the factories build.
        """

        class OwnServer(KeepAliveServerProtocol):
            pass

        class OwnClient(KeepAliveClientProtocol):
            pass

        server = KeepAliveServerFactory(clock=self.clock)
        server.protocol = OwnServer
        client = KeepAliveClientFactory(clock=self.clock)
        client.protocol = OwnClient
        pair = self.pair(server, client)
        self.assertIs(type(pair.server), OwnServer)
        self.assertIs(type(pair.client), OwnClient)

    def test_clocks(self) -> None:
        """
        The two ends must have the same clock, which the test can advance.
        """
        from twisted.internet import reactor

        for server, client in (
            (KeepAliveServerFactory(), KeepAliveClientFactory()),
            (KeepAliveServerFactory(clock=self.clock), KeepAliveClientFactory(clock=Clock())),
            (
                KeepAliveServerFactory(clock=IReactorTime(reactor)),
                KeepAliveClientFactory(clock=self.clock),
            ),
        ):
            self.assertRaises(TypeError, connectedPair, server, client)

    def test_writeSequence(self) -> None:
        """
        Several pieces are sent as one.
        """
        pair = self.connect()
        pair.serverTransport.writeSequence([PING[:5], PING[5:]])
        self.assertEqual(pair.sent[-1].data, PING)

    def test_sent(self) -> None:
        """
        All that is written is kept, with the time and by whom.
        """
        pair = self.connect()
        before = len(pair.sent)
        self.clock.advance(2.5)
        pair.server._kaproto.send(PING)
        pair.flush()
        self.assertEqual(pair.sent[before:], [Sent(2.5, "server", PING), Sent(2.5, "client", PONG)])
        self.assertEqual(pair.writtenBy("client")[-1], (2.5, PONG))

    def test_advance(self) -> None:
        """
        Time passes in small steps, in which pings are sent and answered.
        """
        pair = self.connect()
        pair.advance(9.5)
        self.assertEqual(self.clock.seconds(), 9.5)
        self.assertTrue(pair.client.isAlive())
        pings = [at for at, data in pair.writtenBy("server") if data == PING]
        self.assertEqual(len(pings), 9)
        self.assertEqual([at for at, data in pair.writtenBy("client") if data == PONG], pings)

    def test_advanceByPartOfAStep(self) -> None:
        """
        Any time can pass, also one that is no whole number of steps.
        """
        pair = self.connect()
        pair.advance(1.0001)
        self.assertApproximates(self.clock.seconds(), 1.0001, 1e-9)
        pair.advance(0)
        self.assertApproximates(self.clock.seconds(), 1.0001, 1e-9)

    def test_blackhole(self) -> None:
        """
        When the network swallows everything neither end is told, and each finds out by keepalive.
        """
        pair = self.connect()
        pair.client.setKeepAlive(2, 2)
        pair.blackhole()
        pair.advance(3.2)
        self.assertTrue(pair.serverTransport.disconnected)
        self.assertFalse(pair.clientTransport.disconnected)
        self.assertTrue(pair.client.isAlive())
        pair.advance(3)
        self.assertIsInstance(self.reason(pair), KeepAliveTimeout)

    def test_blackholeInTime(self) -> None:
        """
        When the network comes back in time, nobody has been found dead.
        """
        pair = self.connect()
        pair.blackhole()
        pair.advance(1.5)
        pair.blackhole(on=False)
        pair.advance(10)
        self.assertTrue(pair.client.isAlive())

    def test_oneWay(self) -> None:
        """
        The network may swallow what only one end writes.
        """
        pair = self.connect()
        pair.clientTransport.blackhole = True
        result = pair.client.call(Probe.number, Probe.ECHO)
        pair.server.sendEvent(Probe.number, 1, b"")
        heard: list[int] = []
        pair.client.listen(Probe.number, lambda procedure, _payload: heard.append(procedure))
        pair.flush()
        self.assertNoResult(result)
        self.assertEqual((self.probe.calls, heard), ([], [1]))
        result.addErrback(lambda _failure: None)


class MemoryTransportTests(TestingTestCase):
    """
    The transports behave as Twisted's do.
    """

    def test_nothingMovesByItself(self) -> None:
        """
        What is written arrives when the pair is flushed.
        """
        pair = self.connect()
        result = pair.client.call(Probe.number, Probe.ECHO)
        self.assertEqual(self.probe.calls, [])
        pair.flush()
        self.successResultOf(result)

    def test_backpressure(self) -> None:
        """
        An end whose peer does not read is told when much is waiting, and when it has gone.
        """
        pair = self.connect()
        paused: list[None] = []
        begins = ServerConnection.congestionBegan
        self.patch(
            ServerConnection,
            "congestionBegan",
            lambda connection: paused.append(begins(connection)),
        )
        pair.clientTransport.pauseProducing()
        self.assertFalse(pair.clientTransport.reading)
        chunk = packMessage(Probe.message(1, bytes(BUFFER_SIZE - 28))._replace(type=2))
        pair.server._kaproto.send(chunk)
        self.assertFalse(pair.server.congested)
        pair.server._kaproto.send(chunk)
        pair.server._kaproto.send(chunk)
        self.assertTrue(pair.server.congested)
        self.assertEqual(len(paused), 1)
        pair.flush()
        self.assertTrue(pair.server.congested)
        pair.clientTransport.resumeProducing()
        pair.flush()
        self.assertFalse(pair.server.congested)

    def test_backpressureWithoutProducer(self) -> None:
        """
        An end that does not want to be told is not.
        """
        pair = self.connect()
        chunk = packMessage(Probe.message(1, bytes(BUFFER_SIZE))._replace(type=2))
        pair.server._kaproto.send(chunk)
        self.assertTrue(pair.server.congested)
        pair.serverTransport.unregisterProducer()
        pair.flush()
        self.assertTrue(pair.server.congested)
        pair.server._kaproto.send(chunk)
        pair.flush()
        self.assertTrue(pair.client.isAlive())

    def test_loseConnection(self) -> None:
        """
        What was written before is delivered first, nothing that is written afterwards, and then
        both ends are told that the connection was closed.
        """
        pair = self.connect()
        heard: list[bytes] = []
        pair.client.listen(Probe.number, lambda _procedure, payload: heard.append(payload))
        pair.server.sendEvent(Probe.number, 1, b"before")
        pair.serverTransport.loseConnection()
        pair.serverTransport.write(packMessage(Probe.message(1, b"after")._replace(type=2)))
        self.assertFalse(pair.clientTransport.disconnected)
        pair.flush()
        self.assertEqual(heard, [b"before"])
        self.assertTrue(pair.clientTransport.disconnected)
        self.assertTrue(pair.serverTransport.disconnected)
        self.assertIsInstance(self.reason(pair), ConnectionClosed)

    def test_loseConnectionToOneThatDoesNotRead(self) -> None:
        """
        A connection is not closed before everything has been delivered.
        """
        pair = self.connect()
        pair.clientTransport.pauseProducing()
        pair.server.sendEvent(Probe.number, 1, b"")
        pair.serverTransport.loseConnection()
        pair.flush()
        self.assertFalse(pair.clientTransport.disconnected)
        pair.clientTransport.resumeProducing()
        pair.flush()
        self.assertTrue(pair.clientTransport.disconnected)

    def test_abortConnection(self) -> None:
        """
        What was written before is not delivered; this end learns of it in the next turn, and so
        does the other, for which the connection is lost.
        """
        pair = self.connect()
        heard: list[int] = []
        pair.client.listen(Probe.number, lambda procedure, _payload: heard.append(procedure))
        pair.server.sendEvent(Probe.number, 1, b"")
        pair.serverTransport.abortConnection()
        self.assertFalse(pair.serverTransport.disconnected)
        before = len(pair.sent)
        pair.serverTransport.write(PING)
        self.assertEqual(len(pair.sent), before)
        pair.flush()
        self.assertEqual(heard, [])
        self.assertTrue(pair.serverTransport.disconnected)
        self.assertIsInstance(self.reason(pair), ConnectionLost)

    def test_abortTwice(self) -> None:
        """
        An end is told once that the connection is gone, however often it is aborted and by whom.
        """
        pair = self.connect()
        pair.clientTransport.abortConnection()
        pair.clientTransport.abortConnection()
        pair.serverTransport.abortConnection()
        pair.flush()
        pair.clientTransport.abortConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsInstance(self.reason(pair), ConnectionAborted)

    def test_abortIntoBlackhole(self) -> None:
        """
        When the network swallows everything, the other end does not learn that the connection
        was aborted.
        """
        pair = self.connect()
        pair.blackhole()
        pair.serverTransport.abortConnection()
        pair.flush()
        self.assertTrue(pair.serverTransport.disconnected)
        self.assertFalse(pair.clientTransport.disconnected)

    def test_writeToTheDead(self) -> None:
        """
        What is written to an end that is gone does not arrive, also when the network is back.
        """
        pair = self.connect()
        pair.blackhole()
        pair.serverTransport.abortConnection()
        pair.flush()
        pair.blackhole(on=False)
        received: list[bytes] = []
        self.patch(pair.server, "dataReceived", received.append)
        pair.clientTransport.write(PING)
        pair.flush()
        self.assertEqual(received, [])

    def test_writeAfterTheEnd(self) -> None:
        """
        What is written when the connection is gone is not even noted.
        """
        pair = self.connect()
        pair.serverTransport.abortConnection()
        pair.flush()
        before = len(pair.sent)
        pair.clientTransport.write(PING)
        pair.serverTransport.write(PING)
        self.assertEqual(len(pair.sent), before)

    def test_alone(self) -> None:
        """
        A transport must have another end before anything can be delivered.
        """
        transport = MemoryTransport("client", self.clock, [], ADDRESS, ADDRESS)
        self.assertRaises(AssertionError, transport.deliver)
        self.assertIs(transport.getPeer(), ADDRESS)


class Chat(LineReceiver):
    """
    A protocol with a heartbeat of its own.
    """

    lost: BaseException | None = None

    def connectionMade(self) -> None:
        """
        Watch the peer.
        """
        assert self.transport is not None
        self.heartbeat = Heartbeat(self.transport, lambda: self.sendLine(b"PING"), died=self.died)
        self.heartbeat.start(KEEPALIVE)

    def died(self, reason: BaseException) -> None:
        """
        Keep the reason.
        """
        self.lost = reason

    def dataReceived(self, data: bytes) -> None:
        """
        Any bytes are a sign of life.
        """
        self.heartbeat.heard()
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        """
        Answer pings.
        """
        if line == b"PING":
            self.sendLine(b"PONG")


class Quiet(Protocol):
    """
    An application that knows nothing of keepalive, behind a tunnel or a web socket.
    """

    lost: BaseException | None = None

    def negotiationStarted(self, transport: object) -> None:
        """
        The web socket's handshake begins.
        """

    def negotiationFinished(self) -> None:
        """
        The web socket is open.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Keep the reason.
        """
        self.lost = reason.value


class MemoryEndpointTests(ClockTestCase):
    """
    Anything that is watched, on a clock, with a black hole.
    """

    def diesInTime(self, pair: ConnectedPair[Any, Any], *ends: Any) -> None:
        """
        Both ends live while they are idle, and find each other dead in the black hole.
        """
        terms = KEEPALIVE
        pair.advance(10 * terms.interval)
        self.assertEqual([each.lost for each in ends], [None, None])
        pair.blackhole()
        pair.advance(terms.interval * (terms.count + 1) + 0.1)
        for each in ends:
            self.assertIsInstance(each.lost, KeepAliveTimeout)

    def test_interface(self) -> None:
        """
        It is an endpoint.
        """
        verifyObject(IStreamClientEndpoint, MemoryEndpoint(Factory(), self.clock))

    def test_heartbeat(self) -> None:
        """
        A heartbeat finds the clock by itself.
        """
        factory = Factory.forProtocol(Chat)
        pair = memoryPair(factory, factory, self.clock)
        self.diesInTime(pair, pair.server, pair.client)

    def test_tunnel(self) -> None:
        """
        A tunnel's endpoint gives the application's protocol.
        """
        factory = Factory.forProtocol(Quiet)
        server = tunnelServer(factory, Mandatory(KEEPALIVE), clock=self.clock)
        memory = MemoryEndpoint(server, self.clock)
        endpoint = TunnelClientEndpoint(memory, KEEPALIVE, clock=self.clock)
        connecting = endpoint.connect(factory)
        memory.pair.flush()
        client = self.successResultOf(connecting)
        self.diesInTime(memory.pair, memory.pair.server.wrappedProtocol, client)

    def test_webSocket(self) -> None:
        """
        Web sockets connect through it, too.
        """
        made: list[Quiet] = []

        class Builder:
            def buildProtocol(self, _: object) -> Any:
                made.append(Quiet())
                return made[-1]

        root = Resource()
        watched = watchedWebSocket(Builder(), Mandatory(KEEPALIVE), clock=self.clock)
        root.putChild(b"socket", WebSocketResource(watched))
        site = Site(root, reactor=self.clock)
        site.timeOut = None
        memory = MemoryEndpoint(site, self.clock)
        endpoint = WebSocketClientEndpoint(cast(Any, memory), "ws://192.0.2.1/socket")
        client = watchedWebSocketClient(Builder(), KEEPALIVE, clock=self.clock)
        connecting = Deferred.fromCoroutine(endpoint.connect(client))
        memory.pair.flush()
        self.successResultOf(connecting)
        self.diesInTime(memory.pair, *made)
