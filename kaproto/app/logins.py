"""
Makes portals from the credentials checkers that C{--auth} names.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.cred.strcred import InvalidAuthType
from zope.interface import Interface

from kaproto.security.authplugin import makeChecker
from kaproto.security.users import makePortal

__all__ = ["Logins"]


class Logins:
    """
    Makes portals.  Listeners that name the same checker share it.
    """

    def __init__(self, supported: Sequence[type[Interface]]) -> None:
        """
        @param supported: the kinds of credentials that clients can send.
        """
        self._supported = frozenset(supported)
        self._checkers: dict[str, ICredentialsChecker] = {}

    @property
    def checkers(self) -> Sequence[ICredentialsChecker]:
        """
        The checkers of all portals.
        """
        return list(self._checkers.values())

    def portal(self, descriptions: Sequence[str]) -> Portal:
        """
        @param descriptions: the values of C{--auth}, such as C{file:/etc/kaserver/passwords}.
        @raise ValueError: naming the flag, when one of them does not name a checker of passwords,
            or two of them check the same kind of credentials.
        """
        checkers = [self._checker(each) for each in descriptions]
        try:
            return makePortal(checkers)
        except ValueError as error:
            raise ValueError(f"--auth: {error}") from error

    def _checker(self, description: str) -> ICredentialsChecker:
        if description not in self._checkers:
            self._checkers[description] = self._make(description)
        return self._checkers[description]

    def _make(self, description: str) -> ICredentialsChecker:
        # The rest of the description may be a secret.
        flag = f"--auth={description.partition(':')[0]}"
        try:
            checker = makeChecker(description)
        except InvalidAuthType as error:
            raise ValueError(f"{flag}: there is no such checker; --help-auth lists them") from error
        except Exception as error:
            raise ValueError(f"{flag}: {error}") from error
        if self._supported.isdisjoint(checker.credentialInterfaces):
            raise ValueError(f"{flag}: it does not check passwords")
        return checker
