"""
Tests for L{kaproto.backends.domain}.
"""

from __future__ import annotations

from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.domain import CALLBACKS_MAX, DOMAIN, EventCallbacks, SharedDomain
from kaproto.errors import PeerFlooded, RemoteError
from kaproto.program import unpack
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.domains import LifecycleEvent


class FakeConnection:
    """
    A connection that records the events that it sends.

    @ivar events: the callback's ID and the event, for each event.
    @ivar reason: why it was disconnected, C{None} if it was not.
    """

    congested = False

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.reason: Exception | None = None

    def sendEvent(self, program: int, procedure: int, payload: bytes) -> None:
        """
        Record an event.
        """
        assert (program, procedure) == (0x20008086, 318)
        event = unpack(LifecycleEvent, payload)
        assert (event.domain, event.detail) == (DOMAIN, 0)
        self.events.append((event.callback, event.event))

    def disconnect(self, reason: Exception) -> None:
        """
        Record the reason.
        """
        self.reason = reason


class DomainTests(SynchronousTestCase):
    """
    Tests for a domain's states, running and paused.
    """

    def test_states(self) -> None:
        """
        The domain runs at the start, is paused by suspend, and runs again after resume; each state
        has libvirt's number for its reason.
        """
        domain = SharedDomain()
        states = [domain.state]
        for change in (domain.suspend, domain.resume):
            change()
            states.append(domain.state)
        self.assertEqual([(each.state, each.reason) for each in states], [(1, 1), (3, 1), (1, 5)])

    def test_wrongState(self) -> None:
        """
        A running domain cannot be resumed, nor a paused one suspended.
        """
        domain = SharedDomain()
        for change, state in ((domain.resume, "paused"), (domain.suspend, "running")):
            if state == "running":
                domain.suspend()
            error = self.assertRaises(RemoteError, change)
            self.assertEqual((error.code, error.domain), (55, 12))
            self.assertEqual(
                error.message, f"Requested operation is not valid: domain 'test' is not {state}"
            )

    def test_matches(self) -> None:
        """
        Each of libvirt's groups of flags filters the list of domains.
        """
        running, paused = SharedDomain(), SharedDomain()
        paused.suspend()
        for flags, whenRunning, whenPaused in (
            (0, True, True),
            (1, True, True),  # active
            (2, False, False),  # inactive
            (3, True, True),
            (4, True, True),  # persistent
            (8, False, False),  # transient
            (16, True, False),  # running
            (32, False, True),  # paused
            (16 | 32, True, True),
            (64 | 128, False, False),  # shut off, other
            (1 | 8, False, False),
            (256, False, False),
            (512, True, True),  # without managed save image
            (1024, False, False),
            (2048, True, True),  # without autostart
            (4096, False, False),
            (8192, True, True),  # without snapshots
            (16384, False, False),
            (32768, True, True),  # without checkpoints
            (1 << 31, True, True),  # no flag of ours
        ):
            self.assertEqual(running.matches(flags), whenRunning, flags)
            self.assertEqual(paused.matches(flags), whenPaused, flags)


class CallbackTests(SynchronousTestCase):
    """
    Tests for event callbacks.
    """

    def setUp(self) -> None:
        """
        Create a domain.
        """
        self.domain = SharedDomain()

    def connect(self) -> tuple[EventCallbacks, FakeConnection]:
        """
        @return: the callbacks of a connection, and the connection.
        """
        connection = FakeConnection()
        return EventCallbacks(self.domain, cast(KeepAliveServerProtocol, connection)), connection

    def test_lifecycle(self) -> None:
        """
        Each change is sent to every lifecycle callback of every connection, and to no callback for
        other events.
        """
        one, first = self.connect()
        other, second = self.connect()
        _silent, third = self.connect()
        callbacks = [one.register(event) for event in (0, 1, 0)]
        self.assertEqual(callbacks, [0, 1, 2])
        self.assertEqual(other.register(0), 0)
        self.domain.suspend()
        self.domain.resume()
        self.assertEqual(first.events, [(0, 3), (2, 3), (0, 4), (2, 4)])
        self.assertEqual(second.events, [(0, 3), (0, 4)])
        self.assertEqual(third.events, [])

    def test_deregistered(self) -> None:
        """
        No events are sent to a deregistered callback, and its ID is not used again.
        """
        callbacks, connection = self.connect()
        self.assertEqual([callbacks.register(0), callbacks.register(0)], [0, 1])
        callbacks.deregister(0)
        self.domain.suspend()
        callbacks.deregister(1)
        self.assertEqual(self.domain.listeners, set())
        self.domain.resume()
        self.assertEqual(connection.events, [(1, 3)])
        self.assertEqual(callbacks.register(0), 2)

    def test_unknownCallback(self) -> None:
        """
        Deregistering a callback that is not registered is an error.
        """
        callbacks, _connection = self.connect()
        error = self.assertRaises(RemoteError, callbacks.deregister, 7)
        self.assertEqual((error.code, error.domain), (8, 12))
        self.assertEqual(error.message, "invalid argument: there is no event callback 7")

    def test_tooMany(self) -> None:
        """
        A connection has at most C{CALLBACKS_MAX} callbacks at a time.
        """
        callbacks, _connection = self.connect()
        for _number in range(CALLBACKS_MAX):
            callbacks.register(0)
        error = self.assertRaises(RemoteError, callbacks.register, 0)
        self.assertEqual(error.code, 9)
        self.assertIn("64 event callbacks", error.message)
        callbacks.deregister(5)
        callbacks.register(0)

    def test_unread(self) -> None:
        """
        A client that does not read its events is disconnected; other clients still get the event.
        """
        (one, stuck), (other, reading) = self.connect(), self.connect()
        one.register(0)
        other.register(0)
        stuck.congested = True
        self.domain.suspend()
        self.assertIsInstance(stuck.reason, PeerFlooded)
        self.assertEqual(stuck.events, [])
        self.assertEqual(reading.events, [(0, 3)])
        self.assertIsNone(reading.reason)
