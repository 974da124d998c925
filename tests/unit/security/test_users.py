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
    @return: a checker with one user.
    """
    return InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")


class PortalTests(SynchronousTestCase):
    """
    Tests for L{makePortal} and L{Realm}.
    """

    def test_known(self) -> None:
        """
        A user whom the checkers know gets an avatar. Twisted's C{unix:} names users as text, other
        checkers as bytes.
        """
        names: list[Any] = [b"al\xc3\xafce", "al\u00efce"]
        for avatarId in names:
            interface, user, logout = Realm().requestAvatar(avatarId, None, IUser)
            self.assertEqual((interface, user), (IUser, User("al\u00efce")))
            logout()

    def test_nothingElse(self) -> None:
        """
        The realm has no avatars of other kinds, and none for anonymous users.
        """
        for avatarId, interface in ((b"alice", IAnonymous), (ANONYMOUS, IUser)):
            self.assertRaises(NotImplementedError, Realm().requestAvatar, avatarId, None, interface)

    def test_severalCheckers(self) -> None:
        """
        A portal may have checkers for different credentials.
        """
        portal = makePortal([users(), AllowAnonymousAccess()])
        self.assertIn(IAnonymous, portal.listCredentialsInterfaces())

    def test_sameCheckersTwice(self) -> None:
        """
        Two checkers for the same credentials are refused: cred would silently ignore one.
        """
        with self.assertRaisesRegex(ValueError, "two checkers for IUsernamePassword"):
            makePortal([users(), users()])
