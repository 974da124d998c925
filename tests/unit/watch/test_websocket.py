"""
Tests for L{kaproto.watch.websocket}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kaproto.errors import KeepAliveTimeout
from kaproto.interfaces import Admission, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import TICK
from kaproto.peer import Peer
from kaproto.policies import Disable, Mandatory, Policy

try:
    from wsproto.utilities import LocalProtocolError

    from kaproto.watch.websocket import watchedWebSocket, watchedWebSocketClient
except ImportError as missing:
    raise SkipTest(f"the extra websocket is not installed: {missing}") from missing

TERMS = KeepAlive(1, 2)


class Application:
    """
    An application that records every method call.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        """
        Return a method that records its name and arguments.
        """
        return lambda *arguments: self.events.append((name, *arguments))


class Applications:
    """
    A factory that always returns the same application.
    """

    def __init__(self) -> None:
        self.application = Application()

    def buildProtocol(self, _: object) -> Any:
        """
        Return the application.
        """
        return self.application


class Wire:
    """
    The transport of a fake WebSocket.
    """

    def __init__(self) -> None:
        self.transport = StringTransport()
        self.pings: list[bytes] = []
        self.closed: list[int] = []

    def ping(self, payload: bytes = b"") -> None:
        """
        Record the payload.
        """
        self.pings.append(payload)

    def loseConnection(self, code: int = 1000) -> None:
        """
        Record the code.
        """
        self.closed.append(code)


class WebSocketTests(SynchronousTestCase):
    """
    Tests for WebSockets with keepalive.
    """

    def setUp(self) -> None:
        """
        Create an application and a clock.
        """
        self.clock = Clock()
        self.wire = Wire()
        self.applications = Applications()
        self.log = self.enterContext(capturedLogs())

    def connect(self, factory: Any) -> Any:
        """
        Connect, and complete the handshake.
        """
        protocol = factory.buildProtocol("ws://192.0.2.1/")
        protocol.negotiationStarted(self.wire)
        protocol.negotiationFinished()
        return protocol

    def server(self, policy: Any) -> Any:
        """
        @return: a watched server connection.
        """
        return self.connect(watchedWebSocket(self.applications, policy, clock=self.clock))

    def pass_(self, seconds: float) -> None:
        """
        Advance the clock in small steps.
        """
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)

    def names(self) -> list[str]:
        """
        @return: the names of the methods that were called on the application.
        """
        return [event[0] for event in self.applications.application.events]

    def test_answered(self) -> None:
        """
        A peer that answers pings stays connected.  The application gets only pongs of its own
        pings.
        """
        for factory in (
            watchedWebSocket(self.applications, Mandatory(TERMS), clock=self.clock),
            watchedWebSocketClient(self.applications, TERMS, clock=self.clock),
        ):
            made = self.connect(factory)
            self.wire.pings.clear()
            for _ in range(10):
                self.pass_(1)
                for payload in self.wire.pings[-1:]:
                    made.pongReceived(payload)
            self.assertGreater(len(self.wire.pings), 3)
            self.assertIsNotNone(made.heartbeat.latency)
            made.pongReceived(b"mine")
            self.assertEqual(self.applications.application.events[-1], ("pongReceived", b"mine"))
            made.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_messages(self) -> None:
        """
        Messages postpone pings.
        """
        made = self.server(Mandatory(TERMS))
        for _ in range(10):
            self.pass_(0.5)
            made.textMessageReceived("a")
            self.pass_(0.4)
            made.bytesMessageReceived(b"b")
        self.assertEqual(self.wire.pings, [])
        self.assertEqual(self.names().count("textMessageReceived"), 10)
        self.assertEqual(self.names().count("bytesMessageReceived"), 10)

    def test_dead(self) -> None:
        """
        A peer that answers nothing is disconnected in time, and the application gets the reason.
        """
        made = self.server(2)
        self.assertEqual(made.heartbeat.keepAlive, KeepAlive())
        made.heartbeat.start(TERMS)
        self.pass_(2.9)
        self.assertFalse(self.wire.transport.disconnecting)
        self.pass_(0.2)
        self.assertTrue(self.wire.transport.disconnecting)
        made.connectionLost(Failure(ConnectionDone()))
        (_, failure) = self.applications.application.events[-1]
        self.assertIsInstance(failure.value, KeepAliveTimeout)
        self.assertIn(" is dead: ", formatEvent(self.log[-1]))

    def test_closing(self) -> None:
        """
        No pings are sent during the closing handshake, but a peer that does not complete it is
        disconnected in time.
        """

        def closing(payload: bytes = b"") -> None:
            raise LocalProtocolError("cannot be sent in state LOCAL_CLOSING")

        self.patch(self.wire, "ping", closing)
        made = self.server(Mandatory(TERMS))
        self.pass_(3.1)
        self.assertTrue(self.wire.transport.disconnecting)
        made.connectionLost(Failure(ConnectionDone()))

    def test_disabled(self) -> None:
        """
        In mode 0 no pings are sent.
        """
        self.server(Disable(TERMS))
        self.pass_(10)
        self.assertEqual(self.wire.pings, [])

    def test_refused(self) -> None:
        """
        If the policy refuses a client, the WebSocket is closed with code 1008, policy violation.
        """

        class Never(Policy):
            name = "never"

            def advertises(self, peer: Peer) -> bool:
                return False

            def admit(self, peer: Peer) -> Admission | Refused:
                return Refused("not you")

        self.server(Never(TERMS))
        self.assertEqual(self.wire.closed, [1008])
        self.assertEqual(self.names(), ["negotiationStarted"])
        self.assertIn("by policy never: not you", formatEvent(self.log[-1]))
