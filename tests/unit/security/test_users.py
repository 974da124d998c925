"""
Tests for L{kaproto.security.users}.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import (
    ANONYMOUS,
    AllowAnonymousAccess,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IAnonymous
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.users import IUser, Realm, User, makePortal


def users() -> InMemoryUsernamePasswordDatabaseDontUse:
    """
    A checker that knows Alice.
    """
    return InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")


class PortalTests(SynchronousTestCase):
    """
    Tests for L{makePortal} and L{Realm}.
    """

    def test_known(self) -> None:
        """
        Whom the checkers know is a user.  Twisted's C{unix:} names users as text, others as bytes.
        """
        names: list[Any] = [b"al\xc3\xafce", "al\u00efce"]
        for avatarId in names:
            interface, user, logout = Realm().requestAvatar(avatarId, None, IUser)
            self.assertEqual((interface, user), (IUser, User("al\u00efce")))
            logout()

    def test_nothingElse(self) -> None:
        """
        There is nothing but users, and nobody is one without a name.
        """
        for avatarId, interface in ((b"alice", IAnonymous), (ANONYMOUS, IUser)):
            self.assertRaises(NotImplementedError, Realm().requestAvatar, avatarId, None, interface)

    def test_severalCheckers(self) -> None:
        """
        Several checkers may each be for other credentials.
        """
        portal = makePortal([users(), AllowAnonymousAccess()])
        self.assertIn(IAnonymous, portal.listCredentialsInterfaces())

    def test_sameCheckersTwice(self) -> None:
        """
        Two for the same are refused, because cred would pass over one of them in silence.
        """
        with self.assertRaisesRegex(ValueError, "two checkers for IUsernamePassword"):
            makePortal([users(), users()])
