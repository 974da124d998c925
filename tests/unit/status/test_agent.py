"""
Tests for L{kaproto.status.agent}.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from kaproto.status.agent import CONNECTIONS_MAX, AgentFactory
from tests.support_admin import AdminTestCase


class HalfClosing(StringTransport):
    """
    A transport that can close its own direction.

    @ivar finished: whether it has.
    """

    finished = False

    def loseWriteConnection(self) -> None:
        """
        Record the close.
        """
        self.finished = True


class AgentTests(AdminTestCase):
    """
    Tests for the answers to haproxy's agent checks.
    """

    def setUp(self) -> None:
        """
        Create the agent.
        """
        super().setUp()
        self.agent = AgentFactory(self.daemon)

    def ask(self) -> tuple[Protocol, HalfClosing]:
        """
        Connect to the agent.
        """
        protocol = self.agent.buildProtocol(None)
        assert protocol is not None
        transport = HalfClosing()
        protocol.makeConnection(transport)
        return protocol, transport

    def test_answers(self) -> None:
        """
        Each connection gets one line: up, down with the reason, or drain.
        """
        self.assertEqual(self.ask()[1].value(), b"ready up\n")
        gateway = self.daemon.becomeGateway()
        gateway.health.failed("libvirtd #1 is\naway \u2026" + "x" * 200)
        answer = self.ask()[1].value()
        self.assertEqual(answer[:40], b"ready down #libvirtd  1 is\\naway ?xxxxxx")
        self.assertEqual((len(answer), answer[-1:]), (113, b"\n"))
        self.daemon.draining = True
        protocol, transport = self.ask()
        self.assertEqual((transport.value(), transport.finished), (b"drain\n", True))
        protocol.dataReceived(b"what haproxy may send")
        self.assertEqual(transport.value(), b"drain\n")
        gateway.health.close()
        self.clock.advance(5)

    def test_bounds(self) -> None:
        """
        The number of connections is limited, and each is closed after a timeout.
        """
        asked = [self.ask() for _ in range(CONNECTIONS_MAX)]
        self.assertIsNone(self.agent.buildProtocol(None))
        for protocol, _transport in asked[1:]:
            protocol.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(5)
        self.assertEqual(
            [transport.disconnected for _protocol, transport in asked],
            [True, *[False] * (CONNECTIONS_MAX - 1)],
        )
        self.assertEqual(self.agent.present, 1)
