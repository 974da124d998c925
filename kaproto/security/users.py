"""
Users for L{twisted.cred}: an avatar, a realm, and a portal of credentials checkers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import IRealm, Portal
from zope.interface import Attribute, Interface, implementer

__all__ = ["IUser", "Realm", "User", "makePortal"]


class IUser(Interface):
    """
    The avatar that a portal must have for a user.
    """

    name: str = Attribute("The name that policies match and libvirt shows.")


@implementer(IUser)
@attrs.frozen
class User:
    """
    A user who has logged in.
    """

    name: str


@implementer(IRealm)
class Realm:
    """
    A realm that accepts every user the checkers authenticate.
    """

    def requestAvatar(
        self, avatarId: bytes | str | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], User, Callable[[], None]]:
        """
        @param avatarId: the user's name, in most of Twisted's checkers as bytes.
        @return: a L{User}.
        @raise NotImplementedError: for anonymous clients, and for interfaces other than L{IUser}.
        """
        if IUser not in interfaces or not isinstance(avatarId, bytes | str):
            raise NotImplementedError("kaproto's realm has no anonymous users")
        if isinstance(avatarId, bytes):
            avatarId = avatarId.decode("utf-8", "surrogateescape")
        return IUser, User(avatarId), _logout


def _logout() -> None:
    """
    Release nothing: a L{User} holds no resources.
    """


def makePortal(checkers: Iterable[ICredentialsChecker]) -> Portal:
    """
    @raise ValueError: if two checkers are for the same credentials, since cred would ask only the
        last.
    """
    portal = Portal(Realm())
    for checker in checkers:
        for interface in checker.credentialInterfaces:
            if interface in portal.checkers:
                raise ValueError(
                    f"two checkers for {interface.__name__}; only one of them would be asked"
                )
        portal.registerChecker(checker)
    return portal
