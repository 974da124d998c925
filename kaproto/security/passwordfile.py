"""
The checker for C{--auth=file:}, a file of names and passwords.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import Interface, implementer

from kaproto.security.saslprep import preparePassword
from kaproto.security.userfile import readUsers

__all__ = ["PasswordFile"]

_FOREIGN: Final = re.compile(
    r"[*!]*\$[A-Za-z0-9_-]+\$"  # crypt(3), htpasswd: $6$, $2y$, $apr1$, and !$6$ where it is locked
    r"|_[./0-9A-Za-z]{19}\Z"  # crypt(3) of BSDi
    r"|\*[0-9A-F]{40}\Z"  # MySQL
    r"|md5[0-9a-f]{32}\Z"  # PostgreSQL
    r"|\{[A-Za-z0-9.-]+\}"  # LDAP, dovecot, htpasswd -s: {SSHA}
    r"|[a-z0-9_]+\$[0-9]+\$"  # Django: pbkdf2_sha256$600000$
    r"|[a-z0-9_]+\$[^$]+\$[0-9a-f]{32,}\Z"  # older Django, Werkzeug: sha256$salt$0123...
    r"|SCRAM-SHA-"  # a line for --auth=scram:
    r"|(?:x|[*!]+)\Z"  # passwd, shadow: no password here
)


@implementer(ICredentialsChecker)
class PasswordFile:
    """
    Checks passwords against a file with one C{NAME:PASSWORD} in each line, see
    L{kaproto.security.userfile}.

    Passwords with a colon are refused, since a line with several colons is probably from a file of
    another format (passwd, shadow, htdigest).  So are passwords that look like a password hash.
    Text of hexadecimal digits only is accepted, since it may be a password as well as a hash.

    @ivar path: the file.
    """

    credentialInterfaces: ClassVar[Sequence[type[Interface]]] = (
        IUsernamePassword,
        IUsernameHashedPassword,
    )

    def __init__(self, path: Path) -> None:
        """
        @raise ValueError: see L{reload}.
        """
        self.path = path
        self._nobody = os.urandom(16).hex().encode()
        self.reload()

    def __str__(self) -> str:
        return f"the users in {self.path}"

    def reload(self) -> None:
        """
        Read the file again.

        @raise ValueError: if it cannot be used, see L{readUsers}.  The previous contents stay in
            use.
        """
        self._passwords = readUsers(self.path, _password)

    def requestAvatarId(
        self, credentials: IUsernamePassword | IUsernameHashedPassword
    ) -> Deferred[bytes | tuple[()]]:
        """
        @return: fires with the user name, or fails with L{UnauthorizedLogin}.
        """
        username: bytes = credentials.username
        password = self._passwords.get(username)
        # For an unknown name do the same comparison or hash, so that the time does not reveal it.
        matches = maybeDeferred(credentials.checkPassword, password or self._nobody)

        def check(matched: bool) -> bytes:
            if password is None or not matched:
                raise UnauthorizedLogin
            return username

        return matches.addCallback(check)


def _password(text: str) -> bytes:
    """
    Convert the text after the colon of a line.

    @raise ValueError: if it is not a password that this file may have.
    """
    if ":" in text:
        raise ValueError(
            "there are two colons, but a name or password cannot contain one; files of another "
            "format cannot be used; --auth=scram: allows any password"
        )
    if re.search(r"\s#", text):
        raise ValueError("put the comment on a separate line")
    if _FOREIGN.match(text):
        raise ValueError(
            "what follows the colon looks like the hash of a password; this file has passwords "
            "in clear; use --auth=scram: for a file that does not reveal them"
        )
    try:
        return preparePassword(text.encode()).encode()
    except ValueError as error:
        raise ValueError(f"this cannot be a password: {error}") from None
