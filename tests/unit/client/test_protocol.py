"""
Tests for L{kaproto.client.protocol}.
"""

from __future__ import annotations

import gc
from typing import cast

from automat import NoTransition
from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.client.protocol import KeepAliveClientProtocol
from kaproto.errors import (
    KeepAliveTimeout,
)
from kaproto.interfaces import Admission, Refused
from kaproto.peer import Peer
from kaproto.policies import Mandatory, Policy
from kaproto.rpc.protocol import KeepAliveProtocol
from kaproto.server import KeepAliveServerFactory
from kaproto.testing import MemoryTransport, Sent
from tests.support import (
    ADDRESS,
    KEEPALIVE,
    Probe,
    freezeOlder,
)
from tests.support_client import (
    ClientTestCase,
)


class HookTests(ClientTestCase):
    """
    Tests for the factory's hook that runs after each open.
    """

    def test_sync(self) -> None:
        """
        The hook is called with the open connection, before C{whenOpen} fires.
        """
        seen: list[object] = []

        def onOpen(connection: KeepAliveClientProtocol) -> None:
            seen.append((connection, connection.isAlive()))

        wire = self.connect(self.factory(onOpen))
        wire.protocol.whenOpen().addCallback(seen.append)
        self.answerAll(wire)
        self.assertEqual(seen, [(wire.protocol, True), wire.protocol])

    def test_async(self) -> None:
        """
        The hook may call the server; C{whenOpen} fires when the hook has ended.
        """
        results: list[bytes] = []

        async def onOpen(connection: KeepAliveClientProtocol) -> None:
            results.append(await connection.call(Probe.number, Probe.ECHO))

        wire = self.connect(self.factory(onOpen))
        opened = wire.protocol.whenOpen()
        self.answerAll(wire, {Probe.message(Probe.ECHO): b"abcd"})
        self.successResultOf(opened)
        self.assertEqual(results, [b"abcd"])

    def test_notBeforeTheHookEnds(self) -> None:
        """
        C{whenOpen}, when called while the hook runs, also waits for the hook.
        """
        hook: Deferred[None] = Deferred()
        wire = self.connectOpen(self.factory(lambda _connection: hook))
        opened = wire.protocol.whenOpen()
        self.assertNoResult(opened)
        hook.callback(None)
        self.successResultOf(opened)

    def test_fails(self) -> None:
        """
        A hook that fails, synchronously or later, closes the connection with its error as the
        reason.
        """
        error = ZeroDivisionError("a bug")

        def atOnce(connection: KeepAliveClientProtocol) -> None:
            raise error

        async def later(connection: KeepAliveClientProtocol) -> None:
            raise error

        for onOpen in (atOnce, later):
            self.assertIs(self.failsToOpen({}, self.factory(onOpen)), error)

    def test_endsTheProcess(self) -> None:
        """
        SystemExit in a hook is not handled as a failure to open.
        """

        def onOpen(connection: KeepAliveClientProtocol) -> None:
            raise SystemExit(3)

        freezeOlder(self)
        wire = self.connect(self.factory(onOpen))
        self.answerAll(wire)
        wire.lose()
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_lostMeanwhile(self) -> None:
        """
        When the connection is lost while the hook runs, C{whenOpen} fails, even if the hook
        succeeds later.
        """
        hook: Deferred[None] = Deferred()
        wire = self.connect(self.factory(lambda _connection: hook))
        opened = wire.protocol.whenOpen()
        self.answerAll(wire)
        wire.lose(ConnectionLost())
        self.failureResultOf(opened, ConnectionLost)
        hook.callback(None)
        self.assertEqual(self.logged(), [])

    def test_lostAndFails(self) -> None:
        """
        When the connection is lost while the hook runs, C{whenOpen} fails with that reason, even if
        the hook fails later.
        """
        hook: Deferred[None] = Deferred()
        wire = self.connect(self.factory(lambda _connection: hook))
        opened = wire.protocol.whenOpen()
        self.answerAll(wire)
        wire.lose(ConnectionLost())
        hook.errback(ZeroDivisionError())
        self.failureResultOf(opened, ConnectionLost)


class Logged(Protocol):
    """
    A wrapper that logs exceptions in C{connectionLost}, as a reactor does.
    """

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def makeConnection(self, transport: ITransport) -> None:
        """
        Forward to the protocol.
        """
        self._protocol.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """
        Forward to the protocol.
        """
        self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """
        Forward to the protocol, and log its exceptions.
        """
        with Logger().failuresHandled("connectionLost"):
            self._protocol.connectionLost(reason)


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    The endpoint of a server in memory, which the test can stop.

    @ivar transports: the two ends of each connection, the server's first.
    @ivar listening: whether connections are accepted.
    """

    def __init__(self, server: KeepAliveServerFactory, clock: Clock) -> None:
        self.transports: list[tuple[MemoryTransport, MemoryTransport]] = []
        self.listening = True
        self._server = server
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect in memory, or fail if the server is stopped.
        """
        if not self.listening:
            return fail(ConnectError())
        sent: list[Sent] = []
        server = self._server.buildProtocol(ADDRESS)
        client = protocolFactory.buildProtocol(ADDRESS)
        assert isinstance(server, KeepAliveProtocol)
        assert client is not None
        ends = (
            MemoryTransport("server", self._clock, sent, ADDRESS, ADDRESS),
            MemoryTransport("client", self._clock, sent, ADDRESS, ADDRESS),
        )
        self.transports.append(ends)
        ends[0].attach(server, ends[1])
        ends[1].attach(cast(KeepAliveProtocol, Logged(client)), ends[0])
        return succeed(client)

    def flush(self) -> None:
        """
        Deliver all written bytes on all connections.
        """
        moving = True
        while moving:
            self._clock.advance(0)
            moved = [end.deliver() for ends in self.transports for end in ends]
            moving = any(moved)


class Closed(Policy):
    """
    A policy that refuses every client.
    """

    name = "closed"

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Refuse.
        """
        return Refused("we are closed")


class ClientServiceTests(ClientTestCase):
    """
    Tests for L{KeepAliveClientFactory} under L{ClientService}, which reconnects.

    (Twisted's service has no transition for a connection that is lost while it is prepared: it logs
    a C{NoTransition} and continues.)
    """

    def setUp(self) -> None:
        """
        Create a service for a server in mode 2.
        """
        super().setUp()
        self.server = KeepAliveServerFactory(Mandatory(KEEPALIVE), clock=self.clock)
        self.endpoint = MemoryEndpoint(self.server, self.clock)
        self.hooked: list[KeepAliveClientProtocol] = []
        self.hook: Deferred[None] | None = None
        self.retries: list[int] = []
        self.service = ClientService(
            self.endpoint,
            self.factory(self.onOpen),
            retryPolicy=self.retry,
            clock=self.clock,
            prepareConnection=KeepAliveClientProtocol.whenOpen,  # type: ignore[arg-type]
        )
        self.addCleanup(self.stop)

    def onOpen(self, connection: KeepAliveClientProtocol) -> Deferred[None] | None:
        """
        Record the connection, and wait if the test says so.
        """
        self.hooked.append(connection)
        return self.hook

    def start(self) -> None:
        """
        Start the service, and deliver all bytes.
        """
        self.service.startService()
        self.endpoint.flush()

    def stop(self) -> None:
        """
        Stop the service, which closes its connection.
        """
        stopped = self.service.stopService()
        self.endpoint.flush()
        self.successResultOf(stopped)

    def lose(self) -> None:
        """
        Abort the latest connection.
        """
        self.endpoint.transports[-1][0].abortConnection()
        self.endpoint.flush()

    def retry(self, attempt: int) -> float:
        """
        @return: a minute for each failed attempt.
        """
        self.retries.append(attempt)
        return 60.0 * attempt

    def connected(self) -> KeepAliveClientProtocol:
        """
        @return: the service's current connection.
        """
        connection = self.successResultOf(self.service.whenConnected())
        assert isinstance(connection, KeepAliveClientProtocol)
        self.assertTrue(connection.isAlive())
        return connection

    def test_reconnects(self) -> None:
        """
        After a lost connection the service opens a new one, and the hook runs after each open.
        """
        self.start()
        first = self.connected()
        self.lose()
        self.assertFalse(first.isAlive())
        self.clock.advance(60)
        self.endpoint.flush()
        second = self.connected()
        self.assertIsNot(second, first)
        self.assertEqual(self.hooked, [first, second])
        self.assertEqual(self.server.counters.opened, 2)

    def test_notBeforeOpen(self) -> None:
        """
        C{whenConnected} does not fire before the connection is open.
        """
        self.service.startService()
        waiting = self.service.whenConnected()
        self.assertEqual(len(self.endpoint.transports), 1)
        self.assertNoResult(waiting)
        self.endpoint.flush()
        self.successResultOf(waiting)

    def test_deadServer(self) -> None:
        """
        The service detects a dead server by keepalive, and reconnects.
        """
        self.start()
        first = self.connected()
        first.setKeepAlive(2, 2)
        for end in self.endpoint.transports[0]:
            end.blackhole = True
        self.advance(7)
        self.assertIsInstance(self.successResultOf(first.whenClosed()), KeepAliveTimeout)
        self.advance(60)
        self.endpoint.flush()
        self.assertIsNot(self.connected(), first)

    def test_noServer(self) -> None:
        """
        While the server is down, the service retries with growing delays.
        """
        self.start()
        self.endpoint.listening = False
        self.lose()
        self.clock.pump([60, 120, 180])
        self.assertEqual(self.retries, [1, 2, 3, 4])
        self.endpoint.listening = True
        self.clock.advance(240)
        self.endpoint.flush()
        self.connected()

    def test_refused(self) -> None:
        """
        A refusal by the server counts as a failed attempt: the delays grow until the server admits
        the client.
        """
        self.server.policy = Closed()
        self.start()
        self.clock.advance(60)
        self.endpoint.flush()
        self.assertNoResult(self.service.whenConnected())
        self.server.policy = Mandatory(KEEPALIVE)
        self.clock.advance(120)
        self.endpoint.flush()
        self.assertEqual(self.hooked, [self.connected()])
        self.assertEqual(self.retries, [1, 2])
        self.assertEqual(self.server.counters.refused, 2)
        self.flushLoggedErrors(NoTransition)

    def test_hookFails(self) -> None:
        """
        A failing hook counts as a failed attempt.
        """
        self.hook = Deferred()
        self.start()
        self.hook.errback(ZeroDivisionError())
        self.endpoint.flush()
        self.assertEqual(self.retries, [1])
        self.flushLoggedErrors(NoTransition)

    def test_lostBeforeOpen(self) -> None:
        """
        A connection that is lost before it is open counts as a failed attempt.
        """
        self.service.startService()
        self.lose()
        self.assertEqual(self.retries, [1])
        self.flushLoggedErrors(NoTransition)

    def test_lostDuringHook(self) -> None:
        """
        A connection that is lost while the hook runs counts as a failed attempt.
        """
        self.hook = Deferred()
        self.start()
        self.lose()
        self.assertEqual(self.retries, [1])
        self.hook.callback(None)
        self.flushLoggedErrors(NoTransition)
