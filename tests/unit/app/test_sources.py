"""
Tests for L{kaproto.app.sources}.
"""

from __future__ import annotations

import tomllib

from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Disable, Mandatory
from tests.support_options import OptionsTestCase


class SourcesTests(OptionsTestCase):
    """
    Tests for the precedence of command line, C{--config} and defaults.
    """

    def test_flagsWin(self) -> None:
        """
        The command line overrides the file, and the file the defaults.  C{--listen} replaces all
        listeners of the file.
        """
        config = self.config(
            'mode = 2\ninterval = 7\ninsecure = true\n[[listen]]\nendpoint = "unix:/a"\n'
            '[[listen]]\nendpoint = "unix:/b"'
        )
        options = self.parse(config, "--interval=3")
        self.assertEqual(options.policy, Mandatory(KeepAlive(3, 5)))
        self.assertTrue(options["insecure"])
        self.assertEqual(self.descriptions(options), ["unix:/a", "unix:/b"])
        options = self.parse(config, "--mode=0", "--listen=unix:/c")
        self.assertEqual(options.policy, Disable(KeepAlive(7, 5)))
        self.assertEqual(self.descriptions(options), ["unix:/c"])

    def test_mistakes(self) -> None:
        """
        Errors name the file and the key.
        """
        for text, words in (
            ("count = 0", "count takes a whole number from 1 up, not 0"),
            ("mod = 1", "there is no key 'mod'; is mode meant?"),
            ("mode = 3", "mode=3: there is no policy '3': it is one of 0, 1, 2"),
            ("mode = ", "is not TOML: "),
            (
                'except = "users=bob"',
                "except=users=bob: there is no condition 'users'; is user=bob meant?",
            ),
            ('admin = "tcp:1"', "admin=tcp:1: administration is over a UNIX socket only"),
            ('upstream = "/run/sock"', "upstream=/run/sock: is --upstream=unix:/run/sock meant?"),
            (
                '[[listen]]\nendpint = "tcp:0"',
                "[[listen]] has no key 'endpint'; is endpoint meant?",
            ),
            (
                '[[listen]]\nendpoint = "tcp:x"',
                "listen=tcp:x: ports, backlogs and indexes are numbers",
            ),
        ):
            config = self.config(text)
            self.assertTrue(self.refuse(config).startswith(f"{config}: {words}"), text)
        self.assertIn("--config=/nothere: ", self.refuse("--config=/nothere"))
        # A mistake on the command line is not reported as the file's.
        config = self.config("mode = 1")
        self.assertTrue(self.refuse(config, "--mode=3").startswith("--mode=3: "))

    def test_check(self) -> None:
        """
        C{--check} prints the effective settings with their sources, as a file that gives the same
        settings when read.
        """
        config = self.config('mode = "mandatory"\nupstream = "qemu:///system"')
        text = self.printed(config, "--count=3", "--check")
        self.assertRegex(text, r'(?m)^mode = "mandatory" +# .*/kaserver.toml$')
        self.assertRegex(text, r"(?m)^count = 3 +# --count$")
        self.assertRegex(text, r"(?m)^interval = 5.0 +# default$")
        understood = self.parse(self.config(text))
        self.assertEqual(understood.policy, Mandatory(KeepAlive(5, 3)))
        self.assertEqual(self.descriptions(understood), ["unix:/run/ours/libvirt-sock:mode=660"])
        self.assertNotIn("config", tomllib.loads(text))
