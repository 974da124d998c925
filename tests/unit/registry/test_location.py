"""
Tests for L{kaproto.registry.location}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.registry.location import BadLocation, Location, Password
from tests.pki import Authority, distinguished


class LocationTests(SynchronousTestCase):
    """
    Tests for URLs.
    """

    def test_urls(self) -> None:
        """
        A URL has a host, and may have a port, a database, a user and files.
        """
        file = Path("/etc/kaproto/redis")
        for url, location, shown in (
            ("redis://localhost", Location("localhost"), "redis://localhost:6379/0"),
            (
                "redis://ann%40x@db.example:7000/3",
                Location("db.example", 7000, 3, "ann@x"),
                "redis://db.example:7000/3",
            ),
            (
                "rediss://[fd00::1]/?ca=/x&password-file=/etc/kaproto/redis",
                Location("fd00::1", tls=True, files={"ca": Path("/x"), "password-file": file}),
                "rediss://[fd00::1]:6379/0",
            ),
        ):
            self.assertEqual(Location.parse(url), location)
            self.assertEqual(str(location), shown)

    def test_mistakes(self) -> None:
        """
        The error for an invalid URL gives the reason, but never the password.
        """
        for url, words in (
            ("localhost:6379", "redis://HOST:6379/0"),
            ("http://localhost", "redis://HOST:6379/0"),
            ("redis://:secret@localhost", "--registry-password-file=PATH"),
            ("redis://ann:secret@localhost", "--registry-password-file=PATH"),
            ("redis://", "no host"),
            ("redis://localhost:x", "not a URL"),
            ("redis://[::1", "not a URL"),
            ("redis://localhost/x", "number of a database"),
            ("redis://localhost/0#x", "number of a database"),
            ("redis://localhost?password=secret", "ca=PATH"),
            ("rediss://localhost?ca=", "ca=PATH"),
            ("redis://localhost?ca=/x", "rediss:"),
            ("rediss://localhost?cert=/x", "belong together"),
        ):
            error = self.assertRaises(BadLocation, Location.parse, url)
            self.assertIn(words, str(error))
            self.assertNotIn("secret", str(error))

    def test_endpoints(self) -> None:
        """
        With TLS the endpoint reads the certificates; the error for invalid ones gives the reason.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        authority = Authority()
        own = authority.issue(distinguished("kaserver"))
        for name, content in (
            ("ca", authority.certificatePEM),
            ("cert", own.certificatePEM),
            ("key", own.keyPEM),
        ):
            (folder / name).write_bytes(content)
        reactor = MemoryReactorClock()
        self.assertIsInstance(Location("localhost").endpoint(reactor), HostnameEndpoint)
        self.assertNotIsInstance(Location("x", tls=True).endpoint(reactor), HostnameEndpoint)
        url = f"rediss://x?ca={folder}/ca&cert={folder}/cert&key={folder}/key"
        Location.parse(url).endpoint(reactor)
        for changed, words in (
            (url.replace("/ca&", "/none&"), "No such file"),
            (url.replace("/ca&", "/key&"), "no certificate"),
            (url.replace("/key", "/cert"), "not a certificate and its key"),
        ):
            error = self.assertRaises(BadLocation, Location.parse(changed).endpoint, reactor)
            self.assertIn(words, str(error))


class PasswordTests(SynchronousTestCase):
    """
    Tests for passwords from files.
    """

    def test_reload(self) -> None:
        """
        The password is the file's first line; if the file becomes unreadable, the previous one is
        kept.
        """
        path = Path(self.mktemp())
        path.write_text("first\r\nsecond\n", "utf-8")
        password = Location("localhost", files={"password-file": path}).password()
        self.assertEqual(password.text, "first")
        path.write_text("other", "utf-8")
        password.reload()
        self.assertEqual(password.text, "other")
        for content, words in ((b"\nx", "is empty"), (b"\xff", "UTF-8")):
            path.write_bytes(content)
            self.assertIn(words, str(self.assertRaises(BadLocation, password.reload)))
        path.unlink()
        error = self.assertRaises(BadLocation, Location("x").password, path)
        self.assertIn("No such file", str(error))
        self.assertEqual(password.text, "other")

    def test_none(self) -> None:
        """
        A password is optional.
        """
        password = Password(None)
        password.reload()
        self.assertIsNone(password.text)
