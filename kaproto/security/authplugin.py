"""
The kinds of C{--auth} that kaproto adds to Twisted's own.

Twisted imports this module whenever a program has C{--auth}, so L{kaproto.security.scramfile},
which needs the extra C{scram}, is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from twisted.cred import strcred
from twisted.cred.checkers import (
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import Interface, implementer

from kaproto.security.passwordfile import PasswordFile

__all__ = ["ScramFileFactory", "makeChecker"]


def makeChecker(description: str) -> ICredentialsChecker:
    """
    Make a credentials checker, as L{twisted.cred.strcred.makeChecker} does, with two differences.

      - C{file:PATH} makes a L{PasswordFile}.  Twisted's own checker cuts passwords at a colon, and
        takes comments for users and password hashes for passwords.
      - The users of C{memory:} are converted to bytes.  Twisted's own checker compares text with
        the bytes that clients send, so no login would succeed.

    @raise twisted.cred.strcred.InvalidAuthType: if there is no such kind of checker.
    @raise ValueError: if the file cannot be used.
    """
    kind, _colon, path = description.partition(":")
    if kind == "file":
        return PasswordFile(_path("file", path))
    checker = ICredentialsChecker(strcred.makeChecker(description))
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        checker.users = {_encoded(name): _encoded(word) for name, word in checker.users.items()}
    return checker


def _encoded(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _path(kind: str, path: str) -> Path:
    if not path:
        raise ValueError(f"it takes the path of a file, as in --auth={kind}:/etc/kaserver/users")
    return Path(path)


@implementer(IPlugin, ICheckerFactory)
class ScramFileFactory:
    """
    Makes a L{kaproto.security.scramfile.ScramFile} for C{--auth=scram:PATH}.
    """

    authType = "scram"
    authHelp = """
    A file with a line NAME:KEYS for each user. It does not reveal the passwords.
    python -m kaproto.security.scramfile NAME makes the lines. Serves SCRAM-SHA-256 and PLAIN, and
    needs kaproto's extra "scram".
    """
    argStringFormat = "/path/to/file"
    credentialInterfaces: ClassVar[Sequence[type[Interface]]] = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> ICredentialsChecker:
        """
        @param argstring: the path of the file.
        @raise ValueError: if the file cannot be used, or the extra is not installed.
        """
        try:
            from kaproto.security.scramfile import ScramFile
        except ImportError as error:
            raise ValueError(
                "it needs the package scramp; install it with: pip install 'kaproto[scram]'"
            ) from error
        return ScramFile(_path("scram", argstring))
