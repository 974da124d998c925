"""
The mechanism PLAIN (RFC 4616) for a server.
"""

from __future__ import annotations

import hmac
from typing import Final

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed
from twisted.cred.portal import Portal
from zope.interface import implementer

from kaproto.security.mechanism import WRONG, Admit, Answer, IKnown, SASLFailed
from kaproto.security.saslprep import prepareName, preparePassword
from kaproto.security.users import IUser

__all__ = ["Plain"]


@implementer(IUsernamePassword, IKnown)
class _Password:
    """
    A user name and a password.  C{repr} does not show the password.
    """

    __slots__ = ("known", "password", "username")

    def __init__(self, username: bytes, password: bytes, *, known: bool) -> None:
        self.username = username
        self.password = password
        self.known = known

    def checkPassword(self, password: bytes) -> bool:
        """
        @return: whether the client gave this password.
        """
        return hmac.compare_digest(self.password, password)


class Plain:
    """
    The mechanism PLAIN (RFC 4616).  The client sends its password in clear, so this is only for
    connections that are encrypted or local.
    """

    def __init__(self, portal: Portal, admit: Admit) -> None:
        self._portal = portal
        self._admit = admit

    async def respond(self, data: bytes | None) -> Answer:
        """
        Check the only message of this mechanism, C{IDENTITY NUL NAME NUL PASSWORD}.

        @raise SASLFailed: if the client is not authenticated.
        """
        if data is None:
            return Answer(b"", None)
        parts = data.split(b"\0", _PLAIN_PARTS)
        if len(parts) != _PLAIN_PARTS:
            raise SASLFailed("malformed message")
        identity, username, password = parts
        try:
            name = prepareName(username)
        except ValueError as error:
            raise SASLFailed(f"this cannot be a user name: {error}") from None
        if identity not in (b"", username):
            raise SASLFailed("asks to act as another user", name)
        try:
            prepared = preparePassword(password)
        except ValueError as error:
            raise SASLFailed(f"this cannot be a password: {error}", name) from None
        known = await self._admit(name)
        credentials = _Password(name.encode(), prepared.encode(), known=known)
        # An error raised by awaiting forms a cycle with its traceback, which would keep the
        # connection in memory until the garbage collector runs.
        login = self._portal.login(credentials, None, IUser)
        result = await login.addErrback(lambda failure: failure.trap(LoginFailed) and None)
        if result is None:
            raise SASLFailed(WRONG, name)
        return Answer(None, str(IUser(result[1]).name))

    def abandon(self) -> None:
        """
        There is nothing to release.
        """


_PLAIN_PARTS: Final = 3
