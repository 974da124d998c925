"""
Tests for L{kaproto.workers.sharing}.
"""

from __future__ import annotations

import sys

from twisted.python.usage import Options
from twisted.trial.unittest import SynchronousTestCase

from kaproto.workers.sharing import whyNotShared


class SharingTests(SynchronousTestCase):
    """
    Tests for listeners and settings that workers cannot share.
    """

    def test_listeners(self) -> None:
        """
        Sockets can be shared with any endpoint around them; standard input cannot.
        """
        for shared in (
            "tcp:0",
            "tcp6:0",
            "unix:/x",
            "systemd:domain=UNIX:index=0",
            "libvirttls:16514",
            "proxy:libvirttls:16514:from=192.0.2.0/24",
            "keepalive:tcp:0:policy=2",
        ):
            self.assertIsNone(whyNotShared([shared], None), shared)
        self.assertIn("--listen=stdio: cannot", str(whyNotShared(["tcp:0", "stdio:"], None)))

    def test_program(self) -> None:
        """
        A logger given to C{twistd} cannot be passed on to workers.
        """
        program = Options()
        self.assertIsNone(whyNotShared([], program))
        program["logger"] = "mine"
        self.assertIn("--logger", str(whyNotShared([], program)))

    def test_system(self) -> None:
        """
        Workers need Linux, because other systems do not distribute connections among sockets.
        """
        self.patch(sys, "platform", "darwin")
        self.assertIn("Linux", str(whyNotShared([], None)))
