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
    What cannot be shared is said.
    """

    def test_listeners(self) -> None:
        """
        Sockets can be shared, whatever is around them; a terminal cannot.
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
        twistd's own way of logging cannot be handed on.
        """
        program = Options()
        self.assertIsNone(whyNotShared([], program))
        program["logger"] = "mine"
        self.assertIn("--logger", str(whyNotShared([], program)))

    def test_system(self) -> None:
        """
        Other systems do not divide connections.
        """
        self.patch(sys, "platform", "darwin")
        self.assertIn("Linux", str(whyNotShared([], None)))
