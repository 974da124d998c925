"""
Tests for L{kaproto.app.suggestions}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import endpoints
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.suggestions import suggestServer, suggestUpstream


class SuggestTests(SynchronousTestCase):
    """
    Tests for suggestions after a mistake.
    """

    def test_server(self) -> None:
        """
        Each suggestion for C{--listen} is a string that Twisted can parse.
        """
        for description, meant in (
            ("16509", "tcp:16509:interface=127.0.0.1"),
            ("/run/kaserver.sock", "unix:/run/kaserver.sock"),
            ("/run/a:b", "unix:/run/a\\:b"),
            ("127.0.0.1:1", "tcp:1:interface=127.0.0.1"),
            ("localhost:1", "tcp:1:interface=127.0.0.1"),
            ("0.0.0.0", "tcp:16509:interface=0.0.0.0"),
            ("[::1]:1", "tcp:1:interface=\\:\\:1"),
            ("[::1]", "tcp:16509:interface=\\:\\:1"),
            ("::1", "tcp:16509:interface=\\:\\:1"),
            ("tcp:192.0.2.7:1", "tcp:1:interface=192.0.2.7"),
            ("libvirttls:192.0.2.7:1", "libvirttls:1:interface=192.0.2.7"),
            ("tcpp:1", "tcp:1"),
            ("libvirt-tls:1", "libvirttls:1"),
            ("unx:/x", "unix:/x"),
        ):
            self.assertEqual(suggestServer(description), meant)
            parse: Any = endpoints._parse
            self.assertIsNotNone(parse(meant))

    def test_noServer(self) -> None:
        """
        There is no suggestion for an ambiguous description.
        """
        for description in ("", "nonsense", "1.2.3", "[::1", "tcp:x", "unix:", "x:1", "http://x"):
            self.assertIsNone(suggestServer(description), description)

    def test_upstream(self) -> None:
        """
        Each suggestion for C{--upstream} is an endpoint string.
        """
        for description, meant in (
            ("/run/libvirt/libvirt-sock", "unix:/run/libvirt/libvirt-sock"),
            ("host.example:16509", "tcp:host.example:16509"),
            ("127.0.0.1:16509", "tcp:127.0.0.1:16509"),
            ("192.0.2.7", "tcp:192.0.2.7:16509"),
            ("localhost", "tcp:127.0.0.1:16509"),
            ("[::1]:1", "tcp:\\:\\:1:1"),
            ("tcp://host:1", "tcp:host:1"),
            ("unix:///x", "unix:/x"),
            ("http://host", None),
            ("tcp:16509", None),
            ("host", None),
            ("", None),
        ):
            self.assertEqual(suggestUpstream(description), meant)
