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
    A test case with a pair in mode 2.
    """

    def connect(self, *, flush: bool = True) -> Pair:
        """
        Connect a client and a server.
        """
        self.probe = Probe()
        server = KeepAliveServerFactory(
            Mandatory(KEEPALIVE), programs=[self.probe], clock=self.clock
        )
        return self.pair(server, flush=flush)

    def reason(self, pair: Pair) -> Exception:
        """
        @return: why the client's end was closed.
        """
        return self.successResultOf(pair.client.whenClosed())


class ConnectedPairTests(TestingTestCase):
    """
    Tests for L{ConnectedPair}.
    """

    def test_open(self) -> None:
        """
        The two ends have negotiated and are open, and have each other's address.
        """
        pair = self.connect()
        self.assertTrue(pair.client.isAlive())
        self.assertIs(pair.clock, self.clock)
        self.assertEqual(list(pair.server.factory.connections), [pair.server])
        self.assertEqual(str(pair.server.peer), "tcp 127.0.0.1:54321")
        self.assertEqual(pair.clientTransport.getPeer().port, 16509)  # type: ignore[attr-defined]

    def test_notFlushed(self) -> None:
        """
        With C{flush=False} nothing is delivered yet.
        """
        pair = self.connect(flush=False)
        self.assertEqual(pair.server.factory.counters.accepted, 1)
        self.assertEqual(pair.writtenBy("client"), [(0, packMessage(call(Procedure.AUTH_LIST)))])
        self.assertEqual(pair.writtenBy("server"), [])
        pair.flush()
        self.assertTrue(pair.client.isAlive())

    def test_ownClasses(self) -> None:
        """
        The two ends are instances of the factories' classes.
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
        The two ends must share one clock that the test can advance.
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
        C{writeSequence} sends its pieces as one.
        """
        pair = self.connect()
        pair.serverTransport.writeSequence([PING[:5], PING[5:]])
        self.assertEqual(pair.sent[-1].data, PING)

    def test_sent(self) -> None:
        """
        Everything written is recorded, with the time and the end.
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
        C{advance} takes small steps, in which pings are sent and answered.
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
        C{advance} accepts times that are not a multiple of a step.
        """
        pair = self.connect()
        pair.advance(1.0001)
        self.assertApproximates(self.clock.seconds(), 1.0001, 1e-9)
        pair.advance(0)
        self.assertApproximates(self.clock.seconds(), 1.0001, 1e-9)

    def test_blackhole(self) -> None:
        """
        When the network loses everything, neither end is told, and both detect it by keepalive.
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
        If the network recovers in time, neither end is dead.
        """
        pair = self.connect()
        pair.blackhole()
        pair.advance(1.5)
        pair.blackhole(on=False)
        pair.advance(10)
        self.assertTrue(pair.client.isAlive())

    def test_oneWay(self) -> None:
        """
        The network can lose what only one end writes.
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
    Tests that L{MemoryTransport} behaves as Twisted's transports do.
    """

    def test_nothingMovesByItself(self) -> None:
        """
        Bytes arrive when the pair is flushed.
        """
        pair = self.connect()
        result = pair.client.call(Probe.number, Probe.ECHO)
        self.assertEqual(self.probe.calls, [])
        pair.flush()
        self.successResultOf(result)

    def test_backpressure(self) -> None:
        """
        An end whose peer does not read is paused when many bytes are buffered, and resumed when
        they are sent.
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
        Without a registered producer, backpressure is not reported.
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
        Bytes written before C{loseConnection} are delivered, later ones are not, and both ends are
        told that the connection was closed.
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
        A connection is closed only after everything was delivered.
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
        Bytes written before C{abortConnection} are lost. Both ends are told in the next turn; for
        the other end, the connection was lost.
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
        An end is told of the abort only once, however often and by whom it is aborted.
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
        When the network loses everything, the other end is not told of the abort.
        """
        pair = self.connect()
        pair.blackhole()
        pair.serverTransport.abortConnection()
        pair.flush()
        self.assertTrue(pair.serverTransport.disconnected)
        self.assertFalse(pair.clientTransport.disconnected)

    def test_writeToTheDead(self) -> None:
        """
        Bytes written to an aborted end do not arrive after the network has recovered.
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
        Writes to a closed connection are not recorded.
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
        A transport without another end cannot deliver.
        """
        transport = MemoryTransport("client", self.clock, [], ADDRESS, ADDRESS)
        self.assertRaises(AssertionError, transport.deliver)
        self.assertIs(transport.getPeer(), ADDRESS)


class Chat(LineReceiver):
    """
    A line-based protocol with a heartbeat.
    """

    lost: BaseException | None = None

    def connectionMade(self) -> None:
        """
        Start the heartbeat.
        """
        assert self.transport is not None
        self.heartbeat = Heartbeat(self.transport, lambda: self.sendLine(b"PING"), died=self.died)
        self.heartbeat.start(KEEPALIVE)

    def died(self, reason: BaseException) -> None:
        """
        Record the reason.
        """
        self.lost = reason

    def dataReceived(self, data: bytes) -> None:
        """
        Report every byte as a sign of life.
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
    An application protocol without keepalive, for a tunnel or a web socket.
    """

    lost: BaseException | None = None

    def negotiationStarted(self, transport: object) -> None:
        """
        The web socket's handshake has started.
        """

    def negotiationFinished(self) -> None:
        """
        The web socket is open.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the reason.
        """
        self.lost = reason.value


class MemoryEndpointTests(ClockTestCase):
    """
    Tests for L{MemoryEndpoint} and L{memoryPair}, with each kind of protocol that has keepalive.
    """

    def diesInTime(self, pair: ConnectedPair[Any, Any], *ends: Any) -> None:
        """
        Check that idle ends stay connected, and that both find the other dead when the network
        loses everything.
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
        L{MemoryEndpoint} is a client endpoint.
        """
        verifyObject(IStreamClientEndpoint, MemoryEndpoint(Factory(), self.clock))

    def test_heartbeat(self) -> None:
        """
        A heartbeat uses the pair's clock.
        """
        factory = Factory.forProtocol(Chat)
        pair = memoryPair(factory, factory, self.clock)
        self.diesInTime(pair, pair.server, pair.client)

    def test_tunnel(self) -> None:
        """
        A tunnel's client endpoint returns the application's protocol.
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
        Web sockets connect through the endpoint.
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
