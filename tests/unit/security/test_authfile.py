"""
Tests for L{kaproto.security.authfile}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.authfile import authenticationFor, readLogin
from kaproto.security.clientauth import Authentication
from kaproto.security.saslclient import Login
from kaproto.wire.programs import AuthType

CONTENT = """\
# libvirt's own clients read this too
[credentials-test]
authname=fred
password=50%secret

[credentials-other]
authname=alice
password=sesame

[credentials-half]
authname=bob

[auth-libvirt-test.example.org]
credentials=test

[auth-libvirt-half.example.org]
credentials=half

[auth-libvirt-lost.example.org]
credentials=nothere

[auth-libvirt-default]
credentials=other
"""


class AuthFileTests(SynchronousTestCase):
    """
    Tests for L{readLogin}.
    """

    def setUp(self) -> None:
        """
        Write an auth file.
        """
        self.path = Path(self.mktemp())
        self.path.write_text(CONTENT, encoding="utf-8")

    def test_host(self) -> None:
        """
        A host's own section takes precedence over the default.
        """
        self.assertEqual(readLogin(self.path, "test.example.org"), Login("fred", "50%secret"))

    def test_default(self) -> None:
        """
        A host without a section uses the default login.
        """
        self.assertEqual(readLogin(self.path, "x.example.org"), Login("alice", "sesame"))

    def test_incomplete(self) -> None:
        """
        A login must have both a name and a password.
        """
        for name in ("half", "lost"):
            with self.assertRaisesRegex(ValueError, "needs authname= and password="):
                readLogin(self.path, f"{name}.example.org")

    def test_nobody(self) -> None:
        """
        A file with neither a section for the host nor a default is an error.
        """
        self.path.write_text("[credentials-x]\nauthname=a\npassword=b\n")
        with self.assertRaisesRegex(ValueError, "neither .auth-libvirt-h. nor .auth-libvirt-def"):
            readLogin(self.path, "h")

    def test_unreadable(self) -> None:
        """
        A file that cannot be read is an error with the reason.
        """
        with self.assertRaisesRegex(ValueError, "nothere: cannot be read"):
            readLogin(Path("nothere"), "h")
        self.path.write_bytes(b"\xff")
        with self.assertRaisesRegex(ValueError, "cannot be read"):
            readLogin(self.path, "h")

    def test_malformed(self) -> None:
        """
        The error for a malformed file has the line's number, and never a password.
        """
        self.path.write_text("[credentials-x]\nsesame\n")
        error = self.assertRaises(ValueError, readLogin, self.path, "h")
        self.assertIn("this is not libvirt's auth.conf", str(error))
        self.assertNotIn("sesame", str(error))
        self.path.write_text("sesame\n")
        error = self.assertRaises(ValueError, readLogin, self.path, "h")
        self.assertIn("line 1: this is not libvirt's auth.conf", str(error))
        self.assertNotIn("sesame", str(error))


class AuthenticationForTests(SynchronousTestCase):
    """
    Tests for L{authenticationFor}.
    """

    def test_withoutFile(self) -> None:
        """
        C{auth} in a URI selects the authentication type and, for SASL, the mechanism.
        """
        alice = Login("alice", "sesame")
        plain = Login("alice", "sesame", "PLAIN")
        for uri, login, expected in [
            ("tcp:host:16509", None, Authentication()),
            ("tcp:host:16509", alice, Authentication(alice)),
            ("qemu+tcp://host/system", None, Authentication()),
            ("qemu+tcp://host/system?auth=polkit", None, Authentication(None, AuthType.POLKIT)),
            ("qemu+tcp://host/system?auth=sasl", alice, Authentication(alice, AuthType.SASL)),
            ("qemu+tcp://host/system?auth=sasl.plain", alice, Authentication(plain, AuthType.SASL)),
            ("qemu+tcp://host/system?auth=sasl.x", plain, Authentication(plain, AuthType.SASL)),
            ("qemu+tcp://host/system?authfile=", None, Authentication()),
            ("qemu+tcp://host/system?authfile=/nothere", alice, Authentication(alice)),
        ]:
            self.assertEqual(authenticationFor(uri, login), expected, uri)

    def test_file(self) -> None:
        """
        The file is read when the login is needed, not before.
        """
        path = Path(self.mktemp())
        uri = f"qemu+tls://test.example.org/system?auth=sasl.plain&authfile={path}"
        authentication = authenticationFor(uri)
        assert callable(authentication.login)
        self.assertIn("cannot be read", str(self.assertRaises(ValueError, authentication.login)))
        path.write_text(CONTENT, encoding="utf-8")
        self.assertEqual(authentication.login(), Login("fred", "50%secret", "PLAIN"))

    def test_hosts(self) -> None:
        """
        The login is that for the URI's host, which is C{localhost} for a UNIX socket.
        """
        path = Path(self.mktemp())
        path.write_text(f"{CONTENT}\n[auth-libvirt-localhost]\ncredentials=test\n")
        for place, user in [
            ("qemu+tls://test.example.org/system", "fred"),
            ("qemu+unix:///system", "fred"),
            ("qemu+tls://example.org/system", "alice"),
        ]:
            login = authenticationFor(f"{place}?authfile={path}").login
            assert callable(login)
            self.assertEqual(login().user, user)
