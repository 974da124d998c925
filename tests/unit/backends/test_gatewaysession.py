"""
Tests for L{kaproto.backends.gatewaysession}.
"""

from __future__ import annotations

from kaproto.errors import ConnectionClosed, Disconnected, RemoteError
from kaproto.interfaces import IRelaySession, OpenRequest
from kaproto.peer import Peer
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.wire.message import unpackError
from tests.support import ADDRESS, errorOf
from tests.support_gateway import ThreeParties, WatchTestCase


class SessionTests(WatchTestCase):
    """
    Tests for a client's session at a gateway.
    """

    def test_session(self) -> None:
        """
        A session answers no calls itself.  Before relaying starts it is idle, and it can be closed.
        """
        parties = ThreeParties()
        opened = parties.gateway.open(Peer(ADDRESS, "tcp"), OpenRequest("test:///default", 0))
        parties.flush()
        session = IRelaySession(self.successResultOf(opened))
        self.assertTrue(session.idle)
        session.failCalls(RemoteError(1, 7, "nothing is relayed yet"))
        error = self.assertRaises(RemoteError, session.callReceived, 59, b"")
        self.assertEqual(error.message, "unknown procedure: 59")
        session.closed(ConnectionClosed("it has gone"))
        parties.flush()
        self.assertTrue(parties.toUpstream.clientTransport.disconnected)
        self.assertEqual(parties.clock.getDelayedCalls(), [])

    def test_shown(self) -> None:
        """
        The status shows that a client waits for libvirtd, for how long, and with how many calls.
        """
        near, far = self.calling(8)
        (client,) = self.parties.factory.clients
        self.assertEqual((self.state(client), client.callsUnderWay), ("answering", 8))
        self.parties.advance(120)
        self.assertRegex(self.state(client), r"^busy for 1\d\d s$")
        self.unblock(far)
        self.parties.advance(5)
        self.assertEqual((self.state(client), client.callsUnderWay), ("answering", 0))
        near.transport.loseConnection()
        self.parties.flush()
        self.assertEqual(client.callsUnderWay, 0)

    def state(self, client: ServerConnection) -> str:
        """
        @return: what the status says about libvirtd and a client.
        """
        return str(getattr(client.session, "upstreamState", None))

    def test_disconnected(self) -> None:
        """
        A client that waits for a busy libvirtd gets the administrator's reason to disconnect it.
        """
        near, _far = self.calling(8)
        (client,) = self.parties.factory.clients
        client.expel(Disconnected("enough"))
        self.parties.flush()
        self.assertEqual([each.serial for each in near.messages][:8], list(range(10, 18)))
        self.assertEqual(
            {errorOf(each)[3] for each in near.messages[:8]}, {"operation failed: enough"}
        )
        self.assertFalse(near.isAlive())


class AskedTests(WatchTestCase):
    """
    Tests for a session at a libvirtd that the gateway asks for keepalive.
    """

    ask = True

    def test_drops(self) -> None:
        """
        When libvirtd closes a connection that has as many calls under way as it reads, the error
        says what can be done about it.
        """
        for number in (4, 5):
            near, far = self.calling(number)
            far.transport.abortConnection()
            self.parties.flush()
            said = unpackError(near.messages[0].payload).message
            hint = "raise max_client_requests in libvirtd.conf, or pass --upstream-ask=no"
            self.assertEqual(hint in said, number == 5)
