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
    Keeps what happens to it.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        """
        Every method keeps its name and its arguments.
        """
        return lambda *arguments: self.events.append((name, *arguments))


class Applications:
    """
    Builds one.
    """

    def __init__(self) -> None:
        self.application = Application()

    def buildProtocol(self, _: object) -> Any:
        """
        The application.
        """
        return self.application


class Wire:
    """
    The wire's end of a web socket.
    """

    def __init__(self) -> None:
        self.transport = StringTransport()
        self.pings: list[bytes] = []
        self.closed: list[int] = []

    def ping(self, payload: bytes = b"") -> None:
        """
        Keep it.
        """
        self.pings.append(payload)

    def loseConnection(self, code: int = 1000) -> None:
        """
        Keep the code.
        """
        self.closed.append(code)


class WebSocketTests(SynchronousTestCase):
    """
    Web sockets that are watched.
    """

    def setUp(self) -> None:
        """
        Make an application.
        """
        self.clock = Clock()
        self.wire = Wire()
        self.applications = Applications()
        self.log = self.enterContext(capturedLogs())

    def connect(self, factory: Any) -> Any:
        """
        Connect, and finish the handshake.
        """
        protocol = factory.buildProtocol("ws://192.0.2.1/")
        protocol.negotiationStarted(self.wire)
        protocol.negotiationFinished()
        return protocol

    def server(self, policy: Any) -> Any:
        """
        A server's end.
        """
        return self.connect(watchedWebSocket(self.applications, policy, clock=self.clock))

    def pass_(self, seconds: float) -> None:
        """
        Let time pass in small steps.
        """
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)

    def names(self) -> list[str]:
        """
        What happened to the application.
        """
        return [event[0] for event in self.applications.application.events]

    def test_answered(self) -> None:
        """
        Whoever answers pings lives, and the application hears nothing of it but what is its own.
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
        Messages are signs of life.
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
        Whoever answers nothing is dead in time, and the application is told why.
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
        Nobody is pinged in the closing handshake; a peer that does not let it end is dead in time.
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
        In mode 0 nobody is pinged.
        """
        self.server(Disable(TERMS))
        self.pass_(10)
        self.assertEqual(self.wire.pings, [])

    def test_refused(self) -> None:
        """
        A policy may refuse a client: the socket is closed for a violation of policy.
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
