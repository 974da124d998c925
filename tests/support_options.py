"""
Helpers for tests of the command line of C{twistd kaserver}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.options import Options
from tests.pki import Authority, distinguished

__all__ = ["TCP", "UNIX", "AccessTestCase", "OptionsTestCase"]

TCP = "--listen=tcp:16509:interface=127.0.0.1"
UNIX = "--listen=unix:/x/y"


class OptionsTestCase(SynchronousTestCase):
    """
    Base class for tests of command lines.

    @ivar folder: a folder for files named in command lines.
    """

    def setUp(self) -> None:
        """
        Create a reactor in memory and a folder, and set C{RUNTIME_DIRECTORY}.
        """
        self.reactor = MemoryReactorClock()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.enterContext(patch.dict(os.environ, {"RUNTIME_DIRECTORY": "/run/ours"}))

    def parse(self, *arguments: str) -> Options:
        """
        Parse a command line.
        """
        options = Options(self.reactor)
        options.parseOptions(list(arguments))
        return options

    def refuse(self, *arguments: str) -> str:
        """
        @return: the error message for an invalid command line.
        """
        return str(self.assertRaises(UsageError, self.parse, *arguments))

    def printed(self, *arguments: str) -> str:
        """
        @return: the output of a command line that only prints something.
        """
        output = StringIO()
        self.patch(sys, "stdout", output)
        ended = self.assertRaises(SystemExit, self.parse, *arguments)
        self.assertIn(ended.code, (0, None))
        return output.getvalue()

    def config(self, text: str) -> str:
        """
        @return: the flag that names a configuration file with this text.
        """
        path = self.folder / "kaserver.toml"
        path.write_text(text)
        return f"--config={path}"

    def descriptions(self, options: Options) -> Sequence[str]:
        """
        @return: the endpoint descriptions of the listeners.
        """
        return [each.description for each in options.listeners]


class AccessTestCase(OptionsTestCase):
    """
    Base class for tests of access control.

    @ivar tls: the flag for a TLS listener.
    @ivar auth: the flag that requires a login.
    """

    def setUp(self) -> None:
        """
        Create certificates and a password file.
        """
        super().setUp()
        self.authority = Authority()
        self.authority.write(str(self.folder), self.authority.issue(distinguished("server")))
        self.tls = f"--listen=libvirttls:16514:pki={self.folder}"
        self.users = self.folder / "users"
        self.users.write_text("alice:sesame\n")
        self.auth = f"--auth=file:{self.users}"
