"""
Tests for L{kaproto.watch.tunnelclient}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionAborted, ConnectionDone, NoProtocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from kaproto.errors import KeepAliveUnsupported
from kaproto.interfaces import ADMITTED, Admission, Refused
from kaproto.peer import Peer
from kaproto.policies import Policy
from kaproto.watch.tunnelclient import tunnelClient
from kaproto.watch.tunnelmessages import TUNNEL_PROGRAM
from kaproto.watch.tunnelwire import TunnelWire
from kaproto.wire.message import PING, Message, MessageType, Status, packMessage
from tests.unit.watch.test_tunnel import ADDRESS, MESSAGES, TERMS, Applications, TunnelTestCase


class ClientTests(TunnelTestCase):
    """
    Tests for a client whose server has no tunnel or refuses it.
    """

    def connect(self) -> tuple[Any, StringTransport]:
        """
        Connect the client, and check that it asks for a tunnel.
        """
        factory = tunnelClient(Applications(self.client), TERMS, clock=self.clock)
        protocol: Any = factory.buildProtocol(ADDRESS)
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.assertEqual(transport.value(), MESSAGES.ask(0.1))
        return protocol, transport

    def test_otherServers(self) -> None:
        """
        A server without a tunnel, whatever it answers and even if it closes, fails the connection
        with L{KeepAliveUnsupported}.
        """
        for answer, why in (
            (b"H", "in place of the answer of a tunnel"),
            (b"\0\0\0\x20\1", "in place of the answer"),
            (b"220 ready", "in place of the answer"),
            (PING, "in place of the answer"),
            (MESSAGES.ask(1), "type 0"),
            (TunnelWire(server=False).wrap(b"x"), "through a tunnel"),
            (b"\0\0\0\1" + MESSAGES.answer(1)[4:], "a message of 1 bytes"),
            (MESSAGES.refusal("no", b"")[:28], "it closed the connection"),
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
        A server that does not answer is disconnected after ten seconds.
        """
        protocol, transport = self.connect()
        self.clock.advance(10)
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(Failure(ConnectionAborted()))
        failure = self.failureResultOf(protocol.ready, KeepAliveUnsupported)
        self.assertIn("it is silent", str(failure.value))

    def test_refused(self) -> None:
        """
        The error gives the server's reason for refusing.
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
        If the policy does not advertise keepalive, connecting fails with L{KeepAliveUnsupported}.
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
        A refusal that cannot be decoded is reported as such.
        """
        protocol, _transport = self.connect()
        protocol.dataReceived(
            packMessage(Message(TUNNEL_PROGRAM, 1, 1, MessageType.REPLY, 0, Status.ERROR, b"x"))
        )
        protocol.connectionLost(Failure(ConnectionAborted()))
        failure = self.failureResultOf(protocol.ready, KeepAliveUnsupported)
        self.assertIn("cannot be decoded", str(failure.value))

    def test_noProtocol(self) -> None:
        """
        If the client's factory returns no protocol, the connection is closed.
        """
        self.client = None
        protocol, transport = self.connect()
        protocol.dataReceived(MESSAGES.answer(0.1))
        self.assertTrue(transport.disconnecting)
        self.failureResultOf(protocol.ready, NoProtocol)
        protocol.connectionLost(Failure(ConnectionAborted()))

    def test_cancelled(self) -> None:
        """
        Cancelling the pending connection closes it.
        """
        protocol, transport = self.connect()
        protocol.ready.cancel()
        self.assertTrue(transport.disconnecting)
        self.failureResultOf(protocol.ready, CancelledError)
        protocol.connectionLost(Failure(ConnectionAborted()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lostAfterwards(self) -> None:
        """
        A connection that is lost once it is ready is reported to the application only.
        """
        protocol, _transport = self.connect()
        protocol.dataReceived(MESSAGES.answer(0.1))
        self.assertIs(self.successResultOf(protocol.ready), self.client)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.client.lost[0], ConnectionDone)
