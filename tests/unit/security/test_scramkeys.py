"""
Tests for L{kaproto.security.scramkeys}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.scramkeys import ITERATIONS, ScramKeys, Shape

EXAMPLE = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
"""
The password C{pencil} with the salt and the number of iterations of RFC 7677's example.
"""


class KeysTests(SynchronousTestCase):
    """
    Tests for L{ScramKeys}.
    """

    def test_example(self) -> None:
        """
        The keys of RFC 7677's example are read, computed and written.
        """
        keys = ScramKeys.fromText(EXAMPLE)
        self.assertEqual(ScramKeys.fromPassword("pencil", keys.salt), keys)
        self.assertEqual(keys.toText(), EXAMPLE)

    def test_saltIsRandom(self) -> None:
        """
        A password's keys differ each time.
        """
        self.assertNotEqual(ScramKeys.fromPassword("a"), ScramKeys.fromPassword("a"))

    @settings(max_examples=10, deadline=None)
    @given(st.text("abcXYZ09 \u00e9", min_size=1, max_size=12), st.integers(4096, 5000))
    def test_roundTrip(self, password: str, iterations: int) -> None:
        """
        Keys survive a round trip through text, and match only their password.
        """
        keys = ScramKeys.fromPassword(password, iterations=iterations)
        self.assertEqual(ScramKeys.fromText(keys.toText()), keys)
        self.assertTrue(keys.matches(password))
        self.assertFalse(keys.matches(password + "x"))

    def test_mistakes(self) -> None:
        """
        Malformed text is refused with the reason.
        """
        for text, words in [
            ("pencil", "the form is not"),
            (EXAMPLE.replace("256", "1"), "the form is not"),
            (EXAMPLE.replace("4096", "4095"), "4,095 iterations, where 4,096 to 1,000,000 are"),
            (EXAMPLE.replace("4096", "1000001"), "1,000,001 iterations"),
            (EXAMPLE.replace("W22ZaJ0SNY7soEsUEjb6gQ==", "W22Z"), "wrong length"),
            (EXAMPLE.replace("2dU=", "2dU0"), "wrong length"),
            (EXAMPLE[:-1], "not in base64"),
        ]:
            with self.assertRaisesRegex(ValueError, words):
                ScramKeys.fromText(text)

    def test_impossiblePassword(self) -> None:
        """
        A password with characters that SASLprep forbids has no keys and matches none.
        """
        with self.assertRaisesRegex(ValueError, "this cannot be a password"):
            ScramKeys.fromPassword("a\x07b")
        self.assertFalse(ScramKeys.fromText(EXAMPLE).matches("a\x07b"))

    def test_secret(self) -> None:
        """
        C{repr()} shows only the number of iterations.
        """
        self.assertEqual(repr(ScramKeys.fromText(EXAMPLE)), "ScramKeys(iterations=4096)")

    def test_fake(self) -> None:
        """
        Fake keys have a salt that depends on the name and the secret only, and match no password.
        """
        first, again = (ScramKeys.fake(b"bob", b"secret") for _ in range(2))
        self.assertEqual((first.salt, first.iterations), (again.salt, ITERATIONS))
        self.assertNotEqual(first.stored, again.stored)
        self.assertNotEqual(ScramKeys.fake(b"eve", b"secret").salt, first.salt)
        self.assertNotEqual(ScramKeys.fake(b"bob", b"other").salt, first.salt)

    def test_fakeLooksReal(self) -> None:
        """
        Fake keys have the salt length and the iterations of real ones.
        """
        for size in (12, 32, 33, 100):
            shape = Shape(5000, size)
            self.assertEqual(ScramKeys.fake(b"bob", b"secret", {shape}).shape, shape)

    def test_fakeShapes(self) -> None:
        """
        If users' keys have different shapes, so have fake ones: each shape is used for many names,
        and a name keeps its shape. When a shape is added, names move only to that one.
        """
        old = {Shape(4096, 16), Shape(600_000, 24)}
        new = Shape(10_000, 16)
        names = [b"%d" % number for number in range(300)]

        def shapes(among: set[Shape]) -> list[Shape]:
            return [ScramKeys.fake(name, b"secret", sorted(among)).shape for name in names]

        before, after = shapes(old), shapes(old | {new})
        self.assertEqual(before, shapes(old))
        for shape in old:
            self.assertGreater(before.count(shape), 100)
        self.assertGreater(after.count(new), 60)
        for was, then in zip(before, after, strict=True):
            self.assertIn(then, (was, new))
