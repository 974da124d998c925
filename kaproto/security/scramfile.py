"""
A file of names and salted keys, from which nobody can read passwords, as a checker for C{--auth}.

Run this module with a name, C{python -m kaproto.security.scramfile alice}, and it asks for a
password and prints the line that goes into the file.
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
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import Interface, implementer

from kaproto.security.scram import IScramCredentials, ScramKeys

__all__ = ["ScramFile", "main"]


@implementer(ICredentialsChecker)
class ScramFile:
    """
    Knows whom a file lists, one C{NAME:KEYS} in each line, see L{ScramKeys.fromText}.  Empty
    lines and those that begin with C{#} are passed over.

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

    def reload(self) -> None:
        """
        Read the file again.

        @raise ValueError: when it cannot be used; the message names the line.  What was read
            before then stays in use.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path}: cannot be read: {error}") from error
        users: dict[bytes, ScramKeys] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _colon, keys = line.strip().partition(":")
            try:
                _add(users, name, keys)
            except ValueError as error:
                raise ValueError(
                    f"{self.path}, line {number}: {error}; "
                    "python -m kaproto.security.scramfile NAME makes such lines"
                ) from error
        if not users:
            raise ValueError(f"{self.path}: there is nobody in it")
        self._users = users
        self._like = next(iter(users.values()))
        # The first line stays as others come and go, and with it the salts of nobody.
        self._secret = hashlib.sha256(self._like.stored + self._like.server).digest()

    def requestAvatarId(self, credentials: ICredentials) -> Deferred[bytes | tuple[()]]:
        """
        See L{ICredentialsChecker}.
        """
        if IScramCredentials.providedBy(credentials):
            return self._checkProof(credentials)
        password = cast(IUsernamePassword, credentials)
        username = password.username
        keys = self._keys(username)
        matches = keys.matches(password.password.decode("utf-8", "replace"))
        return succeed(username) if matches else fail(UnauthorizedLogin())

    def _checkProof(self, credentials: IScramCredentials) -> Deferred[bytes | tuple[()]]:
        username = credentials.username
        challenged = credentials.challenge(self._keys(username))

        def settled(proven: bool) -> bytes:
            if not proven:
                raise UnauthorizedLogin
            return username

        return challenged.addCallback(settled)

    def _keys(self, username: bytes) -> ScramKeys:
        return self._users.get(username) or ScramKeys.fake(username, self._secret, self._like)


def _add(users: dict[bytes, ScramKeys], name: str, keys: str) -> None:
    """
    @raise ValueError: when that cannot be.
    """
    if not (name and keys):
        raise ValueError("not of the form NAME:KEYS")
    if name.encode() in users:
        raise ValueError(f"{name!r} is there twice")
    users[name.encode()] = ScramKeys.fromText(keys)


def main(arguments: Sequence[str]) -> str:
    """
    @param arguments: a name, and nothing else.
    @return: what to print.
    """
    if len(arguments) != 1 or ":" in arguments[0]:
        raise SystemExit(
            "usage: python -m kaproto.security.scramfile NAME, and no colon in the name"
        )
    password = getpass.getpass(f"Password for {arguments[0]}: ")
    if getpass.getpass("Again: ") != password:
        raise SystemExit("the two are not the same; nothing done")
    try:
        return f"{arguments[0]}:{ScramKeys.fromPassword(password).toText()}"
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
