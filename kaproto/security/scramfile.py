"""
The checker for C{--auth=scram:}, a file of names and salted keys, which does not reveal passwords.

C{python -m kaproto.security.scramfile alice} asks for a password and prints the line for the file.
"""

from __future__ import annotations

import getpass
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from kaproto.security.hashing import offReactor
from kaproto.security.mechanism import IKnown
from kaproto.security.saslprep import prepareName
from kaproto.security.scram import IScramCredentials
from kaproto.security.scramkeys import ScramKeys
from kaproto.security.userfile import readUsers

__all__ = ["ScramFile", "main"]

_USAGE = (
    "usage: python -m kaproto.security.scramfile NAME\n"
    "NAME has no colon, no # in front and no white space around it"
)


@implementer(ICredentialsChecker)
class ScramFile:
    """
    Checks passwords and SCRAM's proofs against a file with one C{NAME:KEYS} in each line, see
    L{kaproto.security.userfile} and L{ScramKeys.fromText}.

    A client cannot find out which users exist: unknown names get fake keys, which match no
    password.

    @ivar path: the file.
    """

    credentialInterfaces: ClassVar[Sequence[type[Interface]]] = (
        IScramCredentials,
        IUsernamePassword,
    )

    def __init__(self, path: Path) -> None:
        """
        @raise ValueError: see L{reload}.
        """
        self.path = path
        self.reload()

    def __str__(self) -> str:
        return f"the users in {self.path}"

    def reload(self) -> None:
        """
        Read the file again.

        @raise ValueError: if it cannot be used, see L{readUsers}.  The previous contents stay in
            use.
        """
        users = readUsers(self.path, _keys)
        # The secret for fake salts is derived from the first line, which usually stays when users
        # are added or removed.  If the salt of a name changed, that would show that it is fake.
        first = next(iter(users.values()))
        self._secret = hashlib.sha256(first.stored + first.server).digest()
        self._shapes = frozenset(keys.shape for keys in users.values())
        self._users = users

    def requestAvatarId(self, credentials: ICredentials) -> Deferred[bytes | tuple[()]]:
        """
        @return: fires with the user name, or fails with L{UnauthorizedLogin}.
        """
        username: bytes = cast(IUsernamePassword, credentials).username
        # Make fake keys for known names too, so that the time does not reveal unknown ones.
        fake = ScramKeys.fake(username, self._secret, self._shapes)
        keys = self._users.get(username, fake)
        if IScramCredentials.providedBy(credentials):
            proven = credentials.challenge(keys)
        else:
            password = cast(IUsernamePassword, credentials).password
            known = IKnown.providedBy(credentials) and credentials.known
            text = password.decode("utf-8", "replace")
            proven = offReactor(keys.matches, text, stranger=not known)

        def check(right: bool) -> bytes:
            if not right:
                raise UnauthorizedLogin
            return username

        return proven.addCallback(check)


def _keys(text: str) -> ScramKeys:
    """
    @raise ValueError: if the text is malformed.
    """
    try:
        return ScramKeys.fromText(text)
    except ValueError as error:
        raise ValueError(
            f"{error}; python -m kaproto.security.scramfile NAME makes such lines"
        ) from None


def main(arguments: Sequence[str]) -> str:
    """
    @param arguments: a user name.
    @return: the line to print.
    @raise SystemExit: if the name or the password cannot be used.
    """
    if len(arguments) != 1 or ":" in arguments[0] or arguments[0] != arguments[0].strip(" #"):
        raise SystemExit(_USAGE)
    try:
        name = prepareName(arguments[0].encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise SystemExit(f"this cannot be a user name: {error}") from None
    password = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("Again: ") != password:
        raise SystemExit("the passwords differ; nothing was done")
    try:
        return f"{name}:{ScramKeys.fromPassword(password).toText()}"
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
