"""
Tests for L{kaproto.client.libvirt}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred

from kaproto.client.calls import Version
from kaproto.client.events import EVENTS_MAX, EventStream
from kaproto.client.libvirt import Connection, Domain, DomainEvent
from kaproto.errors import ConnectionClosed, KeepAliveUnsupported, RemoteError, RemoteProtocolError
from kaproto.keepalive.liveness import KeepAlive
from kaproto.wire import domains as wire
from kaproto.wire.domains import DomainState, LifecycleEventType, ListFlag, StateAndReason
from kaproto.wire.message import PONG, Message
from kaproto.wire.programs import REMOTE_PROGRAM, Feature, Procedure
from kaproto.wire.structs import pack
from tests.support import call, feature
from tests.support_client import NO, Answer, ClientTestCase, answer, event

TEST = wire.Domain("test", UUID(int=7), 1)
OTHER = wire.Domain("other", UUID(int=8), -1)
SUSPENDED = LifecycleEventType.SUSPENDED


def lifecycle(callback: int, domain: wire.Domain = TEST) -> Message:
    """
    @return: the event for a suspended domain.
    """
    return event(
        Procedure.DOMAIN_EVENT_CALLBACK_LIFECYCLE,
        pack(wire.LifecycleEvent(callback, domain, SUSPENDED, 0)),
    )


class ConnectionTestCase(ClientTestCase):
    """
    Base class for tests with an open connection.
    """

    def setUp(self) -> None:
        """
        Open a connection.
        """
        super().setUp()
        self.server = self.connectOpen()
        self.connection = Connection(self.server.protocol)
        self.domain = Domain(self.connection, TEST)

    def ask(self, *answers: Answer) -> list[Message]:
        """
        Reply to the next calls, one after the other.

        @return: the calls, with serial 0.
        """
        calls = []
        for each in answers:
            called = self.server.takeOne()
            calls.append(called._replace(serial=0))
            self.server.feed(answer(called, each))
        self.assertEqual(self.server.take(), [])
        return calls

    def subscribe(self, callback: int = 5) -> EventStream[DomainEvent]:
        """
        Register for lifecycle events.
        """
        subscribing = self.connection.lifecycleEvents()
        self.ask(pack(callback))
        return self.successResultOf(subscribing)


class CallTests(ConnectionTestCase):
    """
    Tests for procedures.
    """

    def test_procedures(self) -> None:
        """
        Each method calls its procedure with its arguments, and returns the result.
        """
        connection, domain = self.connection, self.domain
        test, other = pack(TEST), pack(wire.DomainList([TEST, OTHER], 2))
        info = wire.DomainInfo(DomainState.RUNNING, 4, 3, 2, 1)
        paused = StateAndReason(DomainState.PAUSED, 1)
        table: list[tuple[Callable[[], Deferred[Any]], int, bytes, bytes, object]] = [
            (connection.hostname, 59, b"", pack("earth"), "earth"),
            (connection.hypervisor, 3, b"", pack("QEMU"), "QEMU"),
            (connection.version, 4, b"", pack(Version(7)), Version(7)),
            (connection.libVersion, 157, b"", pack(Version(9_000_000)), Version(9_000_000)),
            (connection.capabilities, 7, b"", pack("<x/>"), "<x/>"),
            (
                connection.listAllDomains,
                273,
                pack(wire.ListAllDomains()),
                other,
                [domain, Domain(connection, OTHER)],
            ),
            (
                lambda: connection.listAllDomains(ListFlag.PAUSED),
                273,
                pack(wire.ListAllDomains(flags=32)),
                pack(wire.DomainList([], 0)),
                [],
            ),
            (lambda: connection.domainByName("test"), 23, pack("test"), test, domain),
            (domain.state, 212, test + b"\0\0\0\0", pack(paused), paused),
            (domain.info, 16, test, pack(info), info),
            (domain.xml, 14, test + b"\0\0\0\0", pack("<domain/>"), "<domain/>"),
            (lambda: domain.xml(flags=2), 14, test + b"\0\0\0\2", pack("<domain/>"), "<domain/>"),
            (domain.suspend, 34, test, b"", None),
            (domain.resume, 28, test, b"", None),
            (domain.start, 9, test, b"", None),
            (domain.shutdown, 33, test, b"", None),
            (domain.destroy, 12, test, b"", None),
        ]
        for method, procedure, arguments, result, expected in table:
            asked = method()
            self.assertEqual(self.ask(result), [call(procedure, arguments)])
            self.assertEqual(self.successResultOf(asked), expected)

    def test_error(self) -> None:
        """
        A method fails with the server's error.
        """
        suspending = self.domain.suspend()
        self.ask(RemoteError(55, 10, "domain is not running"))
        error = self.failureResultOf(suspending, RemoteError).value
        self.assertEqual(error.message, "domain is not running")

    def test_garbled(self) -> None:
        """
        A result that cannot be decoded closes the connection.
        """
        listing = self.connection.listAllDomains()
        self.ask(b"\0\0\0\1")
        self.failureResultOf(listing, RemoteProtocolError)
        self.assertRemoteProtocolError(self.server, "the result of procedure 273", "decoded")

    def test_domain(self) -> None:
        """
        Domains are equal if their UUIDs are, whatever their names.
        """
        renamed = Domain(self.connection, wire.Domain("new", TEST.uuid, -1))
        self.assertEqual(self.domain, renamed)
        self.assertEqual(hash(self.domain), hash(renamed))
        self.assertNotEqual(self.domain, Domain(self.connection, OTHER))
        self.assertEqual((renamed.name, renamed.uuid, renamed.id), ("new", TEST.uuid, -1))

    def test_states(self) -> None:
        """
        The states of all domains are queried one after the other; a domain that no longer exists is
        left out.
        """
        asking = self.connection.domainStates()
        running = StateAndReason(DomainState.RUNNING, 1)
        calls = self.ask(
            pack(wire.DomainList([OTHER, TEST], 2)),
            RemoteError(42, 10, "Domain not found"),
            pack(running),
        )
        self.assertEqual([each.procedure for each in calls], [273, 212, 212])
        self.assertEqual(self.successResultOf(asking), {self.domain: running})

    def test_statesFail(self) -> None:
        """
        Any other error for a domain makes C{domainStates} fail.
        """
        asking = self.connection.domainStates()
        self.ask(pack(wire.DomainList([TEST], 1)), RemoteError(1, 10, "a bug"))
        self.failureResultOf(asking, RemoteError)


class EventTests(ConnectionTestCase):
    """
    Tests for lifecycle events.
    """

    def test_events(self) -> None:
        """
        Events of all domains, or of one, arrive after registration.
        """
        subscribing = self.connection.lifecycleEvents()
        register = call(316, pack(wire.RegisterCallback(0)))
        self.assertEqual(self.ask(pack(5)), [register])
        stream = self.successResultOf(subscribing)
        self.server.feed(lifecycle(5), lifecycle(5, OTHER))
        self.assertEqual(
            self.successResultOf(stream.next()), DomainEvent(self.domain, SUSPENDED, 0)
        )
        self.assertEqual(self.successResultOf(stream.next()).domain.name, "other")
        subscribing = self.connection.lifecycleEvents(self.domain)
        register = call(316, pack(wire.RegisterCallback(0, TEST)))
        self.assertEqual(self.ask(pack(6)), [register])

    def test_refused(self) -> None:
        """
        When the server has no events, registration fails with its error.
        """
        subscribing = self.connection.lifecycleEvents()
        self.ask(RemoteError(39, 7, "unknown procedure: 316"))
        self.failureResultOf(subscribing, RemoteError)
        self.server.feed(lifecycle(5))
        self.assertTrue(self.connection.isAlive())

    def test_streams(self) -> None:
        """
        Each stream gets its own events until it is stopped.
        """
        first, second = self.subscribe(1), self.subscribe(2)
        first.stop()
        self.assertEqual(self.server.takeOne()._replace(serial=0), call(317, pack(1)))
        self.server.feed(lifecycle(1), lifecycle(2))
        self.failureResultOf(first.next(), ConnectionClosed)
        self.successResultOf(second.next())

    def test_earlyEvents(self) -> None:
        """
        Up to C{EVENTS_MAX} events that arrive before the reply to the registration are kept.
        """
        subscribing = self.connection.lifecycleEvents()
        for _ in range(EVENTS_MAX + 5):
            self.server.feed(lifecycle(5))
        self.server.feed(lifecycle(6))
        self.ask(pack(5))
        stream = self.successResultOf(subscribing)
        for _ in range(EVENTS_MAX):
            self.successResultOf(stream.next())
        for waiting in (stream.next(), self.subscribe(6).next()):
            self.assertNoResult(waiting)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)

    def test_garbled(self) -> None:
        """
        An event that cannot be decoded closes the connection.
        """
        self.server.feed(event(Procedure.DOMAIN_EVENT_CALLBACK_LIFECYCLE, b"\0"))
        self.assertRemoteProtocolError(self.server, "LifecycleEvent", "cannot be decoded")

    def test_lost(self) -> None:
        """
        When the connection is lost, the stream fails with the reason.
        """
        stream = self.subscribe()
        waiting = stream.next()
        self.assertIsNone(self.connection.closeReason)
        self.server.lose()
        reason = self.connection.closeReason
        self.assertIsInstance(reason, ConnectionClosed)
        self.assertIs(self.failureResultOf(waiting).value, reason)
        stream.stop()

    def test_closed(self) -> None:
        """
        A loop over a stream ends when this client closes the connection.
        """

        async def take() -> None:
            async for _event in stream:
                raise AssertionError

        stream = self.subscribe()
        looping = Deferred.fromCoroutine(take())
        closed = self.connection.close()
        self.ask(b"")
        self.server.lose()
        self.assertIsNone(self.successResultOf(looping))
        self.assertIs(self.successResultOf(closed), self.connection.closeReason)

    def test_listen(self) -> None:
        """
        An application can listen to the messages of any program, including the remote one.
        """
        heard: list[tuple[int, bytes]] = []
        self.connection.listen(REMOTE_PROGRAM, lambda *message: heard.append(message))
        self.connection.listen(0x66656564, lambda *message: heard.append(message))
        self.subscribe()
        self.server.feed(lifecycle(5), event(107, b"old"), event(1, b"feed", 0x66656564))
        self.assertEqual(heard[1:], [(107, b"old"), (1, b"feed")])
        self.assertEqual(heard[0][0], Procedure.DOMAIN_EVENT_CALLBACK_LIFECYCLE)


class KeepAliveTests(ConnectionTestCase):
    """
    Tests for the protocol's methods that the connection offers.
    """

    def test_keepAlive(self) -> None:
        """
        The connection can ping the server, and knows its latency.
        """
        self.assertTrue(self.connection.keepAliveSupported)
        self.assertIsNone(self.connection.latency)
        pinging = self.connection.ping()
        self.clock.advance(0.25)
        self.server.feed(PONG)
        self.assertEqual(self.successResultOf(pinging), 0.25)
        self.assertEqual(self.connection.latency, 0.25)
        self.connection.setKeepAlive(3, 2)
        self.assertEqual(self.connection.keepAlive, KeepAlive(3, 2))

    def test_unsupported(self) -> None:
        """
        A connection to a server without keepalive cannot ping.
        """
        server = self.connectOpen(answers={feature(Feature.PROGRAM_KEEPALIVE): NO})
        connection = Connection(server.protocol)
        self.assertFalse(connection.keepAliveSupported)
        self.assertRaises(KeepAliveUnsupported, connection.setKeepAlive, 5, 5)

    def test_call(self) -> None:
        """
        Any procedure of any program can be called with a payload in XDR.
        """
        calling = self.connection.call(0x66656564, 3, b"four", version=2)
        expected = call(3, b"four", program=0x66656564, version=2)
        self.assertEqual(self.ask(b"five"), [expected])
        self.assertEqual(self.successResultOf(calling), b"five")

    def test_whenClosed(self) -> None:
        """
        C{whenClosed} fires when the connection is lost.
        """
        closed = self.connection.whenClosed()
        self.server.lose()
        self.assertIs(self.successResultOf(closed), self.connection.closeReason)
        self.assertFalse(self.connection.isAlive())
