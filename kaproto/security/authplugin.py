"""
The C{scram:FILE} of C{--auth}.

Twisted imports this module whenever a program has C{--auth}, so L{kaproto.security.scramfile},
which needs the extra C{scram}, waits until it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import Interface, implementer

__all__ = ["ScramFileFactory"]


@implementer(IPlugin, ICheckerFactory)
class ScramFileFactory:
    """
    Makes a L{kaproto.security.scramfile.ScramFile}.
    """

    authType = "scram"
    authHelp = """
    A file with a line NAME:KEYS for each user, whose passwords cannot be read from it.
    python -m kaproto.security.scramfile NAME makes the lines. Serves SCRAM-SHA-256 and PLAIN, and
    needs kaproto's extra "scram".
    """
    argStringFormat = "/path/to/file"
    credentialInterfaces: ClassVar[Sequence[type[Interface]]] = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> ICredentialsChecker:
        """
        See L{ICheckerFactory}.

        @raise ValueError: when the file cannot be used, or the extra is not installed.
        """
        try:
            from kaproto.security.scramfile import ScramFile
        except ImportError as error:
            raise ValueError(
                "scram: needs the package scramp; install it with: pip install 'kaproto[scram]'"
            ) from error
        if not argstring:
            raise ValueError(
                "scram: wants the name of a file, as in --auth=scram:/etc/kaproto/users"
            )
        return ScramFile(Path(argstring))
