"""
Tests for L{kaproto.security.userfile}.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.userfile import readUsers

LINES = (
    b"alice:sesame",
    b"",
    b"# bob:open",
    b"bob:open",
    b"carol",
    b"carol: sesame",
    b"carol:\xff",
    b"\xef\xbb\xbfdave:sesame",
    b"dave:sesame\r",
    b"da\0ve:sesame",
    "d\u00adave:x".encode(),
)


class ReadTests(SynchronousTestCase):
    """
    Tests for L{readUsers}.
    """

    def setUp(self) -> None:
        """
        Choose a path.
        """
        self.path = Path(self.mktemp())

    def read(self, data: bytes) -> dict[bytes, str]:
        """
        Read a file with this content.
        """
        self.path.write_bytes(data)
        return readUsers(self.path, str)

    def refuse(self, data: bytes) -> str:
        """
        @return: why a file with this content is refused.
        """
        return str(self.assertRaises(ValueError, self.read, data))

    def test_users(self) -> None:
        """
        Each line is split at the first colon; blank lines and comments are ignored.
        """
        users = self.read(b"#eve:x\n\nalice:open sesame\n \t\nbob:a:b\n\xc3\xa9ric:c")
        self.assertEqual(users, {b"alice": "open sesame", b"bob": "a:b", "\u00e9ric".encode(): "c"})

    def test_prepared(self) -> None:
        """
        Names are stored as prepared by SASLprep.
        """
        self.assertEqual(self.read("\uff41li\u00adce:x".encode()), {b"alice": "x"})

    def test_mistakes(self) -> None:
        """
        A malformed line is an error with file, line and reason; the line is not quoted.
        """
        for line, words in [
            (b"sesame", "there is no colon"),
            (b":sesame", "nothing before the colon"),
            (b"bob:", "nothing after the colon"),
            (b":", "nothing before the colon"),
            (b" bob:sesame", "white space around the name"),
            (b'"bob":"sesame"', "quotes around the name"),
            (b"'bob':sesame", "quotes around the name"),
            (b"bob :sesame", "white space around the name"),
            (b"bob: sesame", "white space around"),
            (b"bob:sesame ", "white space around"),
            (b"bob:sesame\t", "white space around"),
            ("bob:sesame\u00a0".encode(), "white space around"),
            (b" # bob:sesame", "white space around the name"),
            (b"alice:sesame", "'alice' is in line 1 already"),
            ("al\u00adice:sesame".encode(), "'alice' is in line 1 already"),
            (b"bob:sesame\r", "carriage return"),
            (b"bob\rbob:sesame", "carriage return"),
            (b"bob:ses\0ame", "NUL byte"),
            (b"\xef\xbb\xbfbob:sesame", "byte order mark"),
            (b"bob:s\xe9same", "not in UTF-8"),
            ("b\u0007ob:sesame".encode(), "cannot be a user name: it has characters"),
            ("b\u2028ob:sesame".encode(), "cannot be a user name: it has characters"),
            (b"a" * 256 + b":sesame", "cannot be a user name: it is longer than 255 bytes"),
        ]:
            error = self.refuse(b"alice:x\n" + line + b"\neve:y\n")
            self.assertTrue(error.startswith(f"{self.path}, line 2: "), error)
            self.assertIn(words, error)
            self.assertNotIn("sesame", error)

    def test_otherEncodings(self) -> None:
        """
        Files in UTF-16, or with a byte order mark, are refused.
        """
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"):
            self.assertIn("line 1: ", self.refuse("alice:x\n".encode(encoding)))

    def test_secret(self) -> None:
        """
        An error in parsing a secret has the line's number.
        """
        self.path.write_bytes(b"alice:x\nbob:nine\n")
        with self.assertRaisesRegex(ValueError, "line 1: invalid literal"):
            readUsers(self.path, int)

    def test_nobody(self) -> None:
        """
        A file without users is refused.
        """
        for data in (b"", b"\n", b"# alice:x\n"):
            self.assertEqual(self.refuse(data), f"{self.path}: it lists no users")

    def test_unreadable(self) -> None:
        """
        A path that is missing or not a regular file is an error, without blocking.
        """
        for words in ("cannot be read: No such file", "cannot be read: Is a directory"):
            error = self.assertRaises(ValueError, readUsers, self.path, str)
            self.assertIn(f"{self.path}: ", str(error))
            self.assertIn(words, str(error))
            self.path.mkdir(exist_ok=True)
        pipe = self.path / "pipe"
        os.mkfifo(pipe)
        for path in (pipe, Path("/dev/zero")):
            error = self.assertRaises(ValueError, readUsers, path, str)
            self.assertIn("not a regular file", str(error))

    @given(st.lists(st.sampled_from(LINES) | st.binary(max_size=12), max_size=5))
    @example([b"alice:a", b"bob:b"])
    def test_anything(self, lines: list[bytes]) -> None:
        """
        Each user in a file has a line with exactly that name and secret; otherwise the file is
        refused.
        """
        data = b"\n".join(lines)
        try:
            users = self.read(data)
        except ValueError:
            return
        written = [line.decode() for line in data.split(b"\n") if line.strip() and line[:1] != b"#"]
        self.assertEqual(len(users), len(written))
        for line, secret in zip(written, users.values(), strict=True):
            self.assertTrue(line.endswith(f":{secret}"))
