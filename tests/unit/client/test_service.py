"""
Tests for L{kaproto.client.service}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from kaproto.client import service as module
from kaproto.client.libvirt import Connection, Domain, DomainEvent
from kaproto.client.protocol import KeepAliveClientProtocol
from kaproto.client.service import KeepAliveClientService, Snapshot
from kaproto.errors import ConnectionClosed, RemoteError
from kaproto.keepalive.liveness import KeepAlive
from kaproto.wire import domains as wire
from kaproto.wire.domains import DomainState, LifecycleEventType, StateAndReason
from kaproto.wire.programs import Procedure
from kaproto.wire.structs import pack
from tests.support import Wire
from tests.support_client import ClientTestCase, answer, event

TEST = wire.Domain("test", UUID(int=7), 1)
PAUSED = StateAndReason(DomainState.PAUSED, 1)
SUSPENDED = pack(wire.LifecycleEvent(5, TEST, LifecycleEventType.SUSPENDED, 0))


class ServiceTestCase(ClientTestCase):
    """
    Base class for tests of a service whose connections the test makes.
    """

    def setUp(self) -> None:
        """
        Replace C{connect}.
        """
        super().setUp()
        self.connecting: list[Deferred[Connection]] = []
        self.arguments: dict[str, Any] = {}
        self.failures: list[int] = []
        patching = patch.object(module, "connect", self.connect_)
        patching.start()
        self.addCleanup(patching.stop)

    def connect_(self, reactor: object, uri: str, **arguments: object) -> Deferred[Connection]:
        """
        Record an attempt to connect.
        """
        self.arguments = {"uri": uri, **arguments}
        self.connecting.append(Deferred())
        return self.connecting[-1]

    def retry(self, failures: int) -> float:
        """
        Record the number of failures, and retry in 10 seconds.
        """
        self.failures.append(failures)
        return 10

    def start(
        self, onOpen: Callable[[Connection], Awaitable[object] | None] | None = None
    ) -> KeepAliveClientService:
        """
        Start a service.
        """
        service = KeepAliveClientService(
            self.clock, "test+tcp://host/default", onOpen=onOpen, retryPolicy=self.retry
        )
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def connected(self) -> Wire[KeepAliveClientProtocol]:
        """
        Let the latest attempt to connect succeed.
        """
        server = self.connectOpen()
        self.connecting[-1].callback(Connection(server.protocol))
        return server

    def answerOne(self, server: Wire[KeepAliveClientProtocol], result: bytes = b"") -> int:
        """
        Answer one call.

        @return: the call's procedure.
        """
        called = server.takeOne()
        server.feed(answer(called, result))
        return called.procedure

    def subscribed(self) -> Wire[KeepAliveClientProtocol]:
        """
        Connect, register for events, and report that C{test} is paused.
        """
        server = self.connected()
        self.assertEqual(self.answerOne(server, pack(5)), 316)
        self.assertEqual(self.answerOne(server, pack(wire.DomainList([TEST], 1))), 273)
        self.assertEqual(self.answerOne(server, pack(PAUSED)), 212)
        return server


class ConnectionTests(ServiceTestCase):
    """
    Tests for connecting and reconnecting.
    """

    def test_connects(self) -> None:
        """
        The service connects once, and keeps the connection as long as it is alive.
        """
        service = self.start()
        first = service.whenConnected()
        self.assertNoResult(first)
        self.assertIsNone(service.connection)
        self.connected()
        connection = self.successResultOf(first)
        self.assertIs(service.connection, connection)
        self.advance(60)
        self.assertIs(self.successResultOf(service.whenConnected()), connection)
        service.startService()
        self.assertEqual(len(self.connecting), 1)
        self.assertEqual(self.logged(), [])

    def test_arguments(self) -> None:
        """
        The service passes its arguments to C{connect}; by default it pings.
        """
        KeepAliveClientService(MemoryReactorClock(), "qemu:///system").startService()
        expected: dict[str, object] = {
            "uri": "qemu:///system",
            "name": None,
            "readOnly": False,
            "keepAlive": KeepAlive(5, 5),
            "login": None,
            "timeout": 30,
        }
        self.assertEqual(self.arguments, expected)
        changed: dict[str, Any] = {"name": "x", "readOnly": True, "timeout": 3}
        changed["keepAlive"] = KeepAlive(0, 0)
        KeepAliveClientService(MemoryReactorClock(), "qemu:///system", **changed).startService()
        self.assertEqual(self.arguments, expected | changed)

    def test_backoff(self) -> None:
        """
        The delay depends on the number of failures, each of which is logged; a success resets the
        number.
        """
        service = self.start()
        for _ in range(3):
            self.connecting[-1].errback(ConnectionRefusedError("refused"))
            self.clock.advance(9)
            attempts = len(self.connecting)
            self.clock.advance(1)
            self.assertEqual(len(self.connecting), attempts + 1)
        server = self.connected()
        server.lose()
        self.assertIsNone(service.connection)
        self.clock.advance(10)
        self.connecting[-1].errback(ConnectionRefusedError())
        self.assertEqual(self.failures, [1, 2, 3, 0, 1])
        self.assertEqual(self.logged()[0], "no connection to test+tcp://host/default: refused")
        self.assertEqual(
            self.logged()[3],
            "lost the connection to test+tcp://host/default: the peer closed the connection",
        )

    def test_onOpen(self) -> None:
        """
        C{whenConnected} fires when the hook has ended.
        """
        hook: Deferred[None] = Deferred()
        opened: list[Connection] = []

        def onOpen(connection: Connection) -> Deferred[None]:
            opened.append(connection)
            return hook

        service = self.start(onOpen)
        waiting = service.whenConnected()
        self.connected()
        self.assertEqual(len(opened), 1)
        self.assertNoResult(waiting)
        hook.callback(None)
        self.assertEqual([self.successResultOf(waiting)], opened)

    def test_onOpenNow(self) -> None:
        """
        The hook may be synchronous.
        """
        service = self.start(lambda _connection: None)
        self.connected()
        self.successResultOf(service.whenConnected())

    def test_onOpenFails(self) -> None:
        """
        A failing hook closes the connection and counts as a failed attempt.
        """

        def onOpen(connection: Connection) -> None:
            raise ZeroDivisionError("a bug")

        service = self.start(onOpen)
        server = self.connected()
        self.assertEqual(self.answerOne(server), Procedure.CONNECT_CLOSE)
        self.assertIsNone(service.connection)
        self.assertEqual(self.failures, [1])
        self.assertIn("a bug", self.logged()[0])

    def test_cancelWaiting(self) -> None:
        """
        Waiting for the connection can be cancelled.
        """
        service = self.start()
        waiting = service.whenConnected()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.connected()
        self.successResultOf(service.whenConnected())

    def test_deadConnection(self) -> None:
        """
        C{whenConnected} does not fire with a connection that is closing.
        """
        service = self.start()
        server = self.connected()
        connection = self.successResultOf(service.whenConnected())
        connection.close()
        waiting = service.whenConnected()
        self.assertNoResult(waiting)
        self.answerOne(server)
        server.lose()
        self.clock.advance(10)
        self.connected()
        self.assertIsNot(self.successResultOf(waiting), connection)

    def test_brokenPolicy(self) -> None:
        """
        A retry policy that raises an exception stops the service, and the exception is logged.
        """
        service = KeepAliveClientService(
            self.clock, "test+tcp://host/default", retryPolicy=lambda _failures: 1 / 0
        )
        service.startService()
        self.connecting[-1].errback(ConnectionRefusedError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        service.startService()
        self.assertEqual(len(self.connecting), 2)


class StopTests(ServiceTestCase):
    """
    Tests for stopping the service in each of its states.
    """

    def assertStopped(self, stopped: Deferred[None]) -> None:
        """
        Check that the service has stopped, without a timer or another attempt.
        """
        self.assertIsNone(self.successResultOf(stopped))
        attempts = len(self.connecting)
        self.clock.advance(60)
        self.assertEqual(len(self.connecting), attempts)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_beforeStart(self) -> None:
        """
        A service that was not started can be stopped.
        """
        service = KeepAliveClientService(self.clock, "test+tcp://host/default")
        self.assertStopped(service.stopService())

    def test_connecting(self) -> None:
        """
        Stopping cancels an attempt to connect, and C{whenConnected} fails.
        """
        service = self.start()
        waiting = service.whenConnected()
        stopped = service.stopService()
        self.failureResultOf(waiting, CancelledError)
        self.assertStopped(stopped)

    def test_waitingToRetry(self) -> None:
        """
        Stopping cancels the next attempt.
        """
        service = self.start()
        self.connecting[-1].errback(ConnectionRefusedError())
        self.assertStopped(service.stopService())

    def test_connected(self) -> None:
        """
        Stopping closes the connection first.
        """
        service = self.start()
        server = self.connected()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.assertEqual(self.answerOne(server), Procedure.CONNECT_CLOSE)
        server.lose()
        self.assertStopped(stopped)
        self.assertEqual(self.logged(), [])

    def test_inHook(self) -> None:
        """
        The hook may stop the service, synchronously or later.
        """

        def atOnce(connection: Connection) -> None:
            stopped.append(service.stopService())

        async def later(connection: Connection) -> None:
            await connection.hostname()
            stopped.append(service.stopService())

        for hook in (atOnce, later):
            stopped: list[Deferred[None]] = []
            service = self.start(hook)
            server = self.connected()
            if hook is later:
                self.answerOne(server, pack("earth"))
            self.assertEqual(self.answerOne(server), Procedure.CONNECT_CLOSE)
            server.lose()
            self.assertStopped(stopped[0])
            self.assertIsNone(service.connection)

    def test_hookOutlives(self) -> None:
        """
        A hook that ends after the service has stopped does not restart it.
        """
        for result in (None, Failure(ValueError("too late"))):
            hook: Deferred[None] = Deferred()
            service = self.start(lambda _connection, hook=hook: hook)  # type: ignore[misc]
            server = self.connected()
            stopped = service.stopService()
            self.answerOne(server)
            server.lose()
            hook.callback(result)
            self.assertStopped(stopped)

    def test_byWhoWaits(self) -> None:
        """
        A caller of C{whenConnected} may stop the service as soon as it fires.
        """

        async def useOnce() -> None:
            await service.whenConnected()
            stopped.append(service.stopService())

        stopped: list[Deferred[None]] = []
        service = self.start()
        using = Deferred.fromCoroutine(useOnce())
        server = self.connected()
        self.assertIsNone(self.successResultOf(using))
        self.answerOne(server)
        server.lose()
        self.assertStopped(stopped[0])

    def test_again(self) -> None:
        """
        A stopped service can be started again.
        """
        service = self.start()
        service.stopService()
        service.startService()
        self.connected()
        self.successResultOf(service.whenConnected())
        self.assertEqual(len(self.connecting), 2)


class EventTests(ServiceTestCase):
    """
    Tests for lifecycle events over several connections.
    """

    def setUp(self) -> None:
        """
        Iterate over events.
        """
        super().setUp()
        self.service = self.start()
        self.events: list[DomainEvent | Snapshot] = []
        self.taking = Deferred.fromCoroutine(self.take())

    async def take(self) -> None:
        """
        Record events until there are no more.
        """
        async for each in self.service.lifecycleEvents():
            self.events.append(each)

    def test_registersAgain(self) -> None:
        """
        The service registers for events on every connection, and begins with a snapshot of all
        states; after a loss, the snapshot has the reason and the time without events.
        """
        server = self.subscribed()
        connection = self.successResultOf(self.service.whenConnected())
        states = {Domain(connection, TEST): PAUSED}
        self.assertEqual(self.events, [Snapshot(states)])
        happened = event(Procedure.DOMAIN_EVENT_CALLBACK_LIFECYCLE, SUSPENDED)
        server.feed(happened)
        self.assertEqual(len(self.events), 2)
        server.lose()
        self.clock.advance(10)
        self.subscribed().feed(happened)
        _first, suspended, again, later = self.events
        assert isinstance(again, Snapshot)
        self.assertIsInstance(again.lost, ConnectionClosed)
        self.assertEqual(again, Snapshot(states, again.lost, 10))
        self.assertEqual(suspended, later)

    def test_early(self) -> None:
        """
        Events that arrive before the states are not lost.
        """
        server = self.connected()
        self.answerOne(server, pack(5))
        server.feed(event(Procedure.DOMAIN_EVENT_CALLBACK_LIFECYCLE, SUSPENDED))
        self.assertEqual(self.events, [])
        self.answerOne(server, pack(wire.DomainList([], 0)))
        kinds = [type(each) for each in self.events]
        self.assertEqual(kinds, [Snapshot, DomainEvent])

    def test_lostWhileRegistering(self) -> None:
        """
        The time without events counts from the last connection that had events, not from later
        failed ones.
        """
        self.connected().lose()
        self.clock.advance(10)
        self.subscribed().lose()
        self.clock.advance(10)
        self.connected().lose()
        self.clock.advance(10)
        self.subscribed()
        self.assertNoResult(self.taking)
        first, second = self.events
        assert isinstance(first, Snapshot)
        assert isinstance(second, Snapshot)
        self.assertEqual((first.lost, first.seconds), (None, 0))
        self.assertEqual(second.seconds, 20)

    def test_noEvents(self) -> None:
        """
        When the server has no events, its error is raised, and the connection stays open.
        """
        server = self.connected()
        server.feed(answer(server.takeOne(), RemoteError(39, 7, "unknown procedure: 316")))
        self.failureResultOf(self.taking, RemoteError)
        self.successResultOf(self.service.whenConnected())

    def test_stopped(self) -> None:
        """
        The events end when the service is stopped.
        """
        server = self.subscribed()
        self.service.stopService()
        self.answerOne(server)
        server.lose()
        self.clock.advance(60)
        self.assertIsNone(self.successResultOf(self.taking))

    def test_stoppedBefore(self) -> None:
        """
        The events also end when the service is stopped before it connects.
        """
        self.service.stopService()
        self.assertIsNone(self.successResultOf(self.taking))


class SlowTests(ServiceTestCase):
    """
    Tests for lifecycle events that are taken one by one.
    """

    def test_lostBefore(self) -> None:
        """
        The time without events counts from the loss, even if the next event is requested later.
        """

        async def take() -> DomainEvent | Snapshot:
            return await anext(events)

        events = self.start().lifecycleEvents()
        first = Deferred.fromCoroutine(take())
        self.subscribed().lose()
        self.successResultOf(first)
        self.clock.advance(10)
        second = Deferred.fromCoroutine(take())
        self.subscribed()
        snapshot = self.successResultOf(second)
        assert isinstance(snapshot, Snapshot)
        self.assertEqual(snapshot.seconds, 10)
