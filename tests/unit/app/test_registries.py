"""
Tests for L{kaproto.app.registries}.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from tests.support_options import OptionsTestCase


class RegistryTests(OptionsTestCase):
    """
    Tests for C{--registry}.
    """

    def test_none(self) -> None:
        """
        By default there is no registry, and txredisapi is not needed.
        """
        with patch.dict(sys.modules, {"txredisapi": None}):
            self.assertIsNone(self.parse("--node=host1").redis)
            self.assertIn("kaproto[redis]", self.refuse("--registry=redis://localhost"))

    def test_redis(self) -> None:
        """
        A registry has a URL and a file with its password, which the URL can name too.
        """
        path = self.folder / "redis"
        path.write_text("secret\n", "utf-8")
        for arguments in (
            ("--registry=redis://localhost", f"--registry-password-file={path}"),
            (f"--registry=redis://localhost?password-file={path}",),
        ):
            redis = self.parse(*arguments).redis
            assert redis is not None
            self.assertEqual((redis[0].host, redis[1].text), ("localhost", "secret"))

    def test_mistakes(self) -> None:
        """
        The error for a mistake names its flag.
        """
        for arguments, words in (
            (["--node=a/b"], "--node=a/b: a node's name has letters"),
            (["--registry=localhost"], "--registry: it takes a URL such as redis://HOST"),
            (["--registry=redis://:x@localhost"], "--registry-password-file=PATH"),
            (
                ["--registry=redis://localhost", "--registry-password-file=/nothere"],
                "/nothere: No such file",
            ),
            (["--registry-password-file=/x"], "--registry-password-file without --registry=URL"),
        ):
            self.assertIn(words, self.refuse(*arguments))
