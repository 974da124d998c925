"""
Tests for L{kaproto.program.backend}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.interfaces import ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.program import ApplicationBackend


class ApplicationBackendTests(SynchronousTestCase):
    """
    Tests for the backend of a server that serves only an application's programs.
    """

    def test_opensAnything(self) -> None:
        """
        Any name opens a session, which is always idle and answers nothing.
        """
        backend = ApplicationBackend()
        for name in ("", "test:///default", "anything"):
            session = backend.open(Peer(), OpenRequest(name, 0))
            self.assertTrue(ISession.providedBy(session))
            session.opened(None)
            self.assertTrue(session.idle)
            self.assertRaises(KeyError, session.callReceived, 59, b"")
            session.closed(Exception("over"))

    def test_knowsNothing(self) -> None:
        """
        The backend adds no procedures and no features to the remote program.
        """
        self.assertFalse(any(ApplicationBackend().knows(number) for number in range(500)))
        self.assertEqual(ApplicationBackend().features, frozenset())
