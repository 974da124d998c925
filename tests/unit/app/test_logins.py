"""
Tests for L{kaproto.app.logins}.
"""

from __future__ import annotations

from tests.support_options import AccessTestCase


class LoginsTests(AccessTestCase):
    """
    Tests for the credentials checkers of C{--auth}.
    """

    def test_authUnusable(self) -> None:
        """
        An unknown or unusable checker is refused with a message that leaves out its argument, which
        may be a secret.
        """
        bad = self.folder / "bad"
        bad.write_text("alice:sesame:\n")
        for auth, words in [
            ("nosuch:sesame", "--auth=nosuch: there is no such checker; --help-auth lists them"),
            ("anonymous", "--auth=anonymous: it does not check passwords"),
            ("file:", "--auth=file: it takes the path of a file, as in --auth=file:/etc/kaserver/"),
            ("scram:", "--auth=scram: it takes the path of a file"),
            ("file:/nothere", "--auth=file: /nothere: cannot be read: No such file"),
            (f"file:{bad}", f"--auth=file: {bad}, line 1: "),
            ("memory:sesame", "--auth=memory: "),
            (f"scram:{bad}", f"--auth=scram: {bad}, line 1: "),
        ]:
            message = self.refuse(f"--auth={auth}", self.tls)
            self.assertIn(words, message)
            self.assertNotIn("sesame", message)

    def test_authTwice(self) -> None:
        """
        Two checkers for the same credentials are refused.
        """
        other = "--auth=memory:alice:sesame"
        self.assertIn("--auth: two checkers", self.refuse(self.auth, other, self.tls))
