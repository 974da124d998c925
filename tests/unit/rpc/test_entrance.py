"""
Tests for L{kaproto.rpc.entrance}.
"""

from __future__ import annotations

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

from kaproto.errors import AuthenticationFailed
from kaproto.rpc.entrance import Entrance
from kaproto.security.admission import AccessControl
from kaproto.security.users import makePortal
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.programs import Procedure
from tests.support import ClockTestCase, call


class EntranceTests(ClockTestCase):
    """
    Tests for a client that has to log in.  TLS is tested in L{tests.unit.security.test_access}.
    """

    def setUp(self) -> None:
        """
        Connect a client.
        """
        super().setUp()
        portal = makePortal([InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")])
        self.factory = KeepAliveServerFactory(
            clock=self.clock, accessControl=AccessControl(portal=portal)
        )
        self.connected = self.accept(self.factory)
        self.connection = self.connected.protocol._kaproto
        entrance = self.connection._entrance
        assert entrance is not None
        self.entrance: Entrance = entrance

    def test_letIn(self) -> None:
        """
        After the login the client is no longer anonymous, and the timeout for opening starts.
        Another handshake event does not restart it.
        """
        self.assertTrue(self.entrance.isAnonymous)
        self.assertIs(self.connection.authentication, self.entrance.authentication)
        self.assertEqual(self.factory.clients.anonymous, 1)
        self.advance(9)
        self.connection.handshakeCompleted()
        self.entrance.authenticated("alice")
        self.assertEqual(self.factory.clients.anonymous, 0)
        self.assertEqual(self.connection.peer.user, "alice")
        self.assertIsNone(self.connection.authentication)
        self.connection.handshakeCompleted()
        self.advance(9)
        self.assertFalse(self.connected.closing)
        self.advance(2)
        self.assertTrue(self.connected.aborted)

    def test_heldDeadline(self) -> None:
        """
        Waiting for a turn to log in does not use up the client's time.  No deadline is set while
        closing.
        """
        self.advance(9)
        left = self.entrance.limits.hold()
        self.assertAlmostEqual(left, self.factory.limits.loginTimeout - 9, 1)
        self.advance(1000)
        self.assertFalse(self.connected.closing)
        self.entrance.limits.resume(left)
        self.advance(left - 0.5)
        self.assertFalse(self.connected.closing)
        self.advance(1)
        self.assertTrue(self.connected.aborted)
        self.entrance.limits.resume(left)
        self.connected.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_heldForLoginsOnly(self) -> None:
        """
        Only the login deadline is held while waiting for a turn.
        """
        self.entrance.authenticated("alice")
        self.assertAlmostEqual(self.entrance.limits.hold(), self.factory.limits.openTimeout)
        self.advance(self.factory.limits.openTimeout + 1)
        self.assertTrue(self.connected.aborted)

    def test_failed(self) -> None:
        """
        Failed logins are counted.  After the last one the connection closes with the reply to the
        current call, and the first reason is kept.
        """
        self.entrance.authenticationFailed()
        self.assertEqual(self.factory.counters.unauthenticated, 1)
        for reason in ("first", "second"):
            self.entrance.endSoon(AuthenticationFailed(reason))
        self.connected.ask(call(Procedure.AUTH_LIST))
        self.assertEqual(str(self.connection.closing.reason), "first")
        self.entrance.endSoon(AuthenticationFailed("third"))
