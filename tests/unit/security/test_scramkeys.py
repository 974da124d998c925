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
        The keys are those that belong to the example in RFC 7677.
        """
        keys = ScramKeys.fromText(EXAMPLE)
        self.assertEqual(ScramKeys.fromPassword("pencil", keys.salt), keys)
        self.assertEqual(keys.toText(), EXAMPLE)

    def test_saltIsRandom(self) -> None:
        """
        The same password has other keys each time.
        """
        self.assertNotEqual(ScramKeys.fromPassword("a"), ScramKeys.fromPassword("a"))

    @settings(max_examples=10, deadline=None)
    @given(st.text("abcXYZ09 \u00e9", min_size=1, max_size=12), st.integers(4096, 5000))
    def test_roundTrip(self, password: str, iterations: int) -> None:
        """
        Keys survive being written down, and fit their password.
        """
        keys = ScramKeys.fromPassword(password, iterations=iterations)
        self.assertEqual(ScramKeys.fromText(keys.toText()), keys)
        self.assertTrue(keys.matches(password))
        self.assertFalse(keys.matches(password + "x"))

    def test_mistakes(self) -> None:
        """
        What does not have the form is refused.
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
        Some characters cannot be in a password, and with them none fits.
        """
        with self.assertRaisesRegex(ValueError, "this cannot be a password"):
            ScramKeys.fromPassword("a\x07b")
        self.assertFalse(ScramKeys.fromText(EXAMPLE).matches("a\x07b"))

    def test_secret(self) -> None:
        """
        The representation shows no more than the number of iterations.
        """
        self.assertEqual(repr(ScramKeys.fromText(EXAMPLE)), "ScramKeys(iterations=4096)")

    def test_fake(self) -> None:
        """
        Somebody who does not exist has the same salt each time, and others have another; no
        password fits.
        """
        first, again = (ScramKeys.fake(b"bob", b"secret") for _ in range(2))
        self.assertEqual((first.salt, first.iterations), (again.salt, ITERATIONS))
        self.assertNotEqual(first.stored, again.stored)
        self.assertNotEqual(ScramKeys.fake(b"eve", b"secret").salt, first.salt)
        self.assertNotEqual(ScramKeys.fake(b"bob", b"other").salt, first.salt)

    def test_fakeLooksReal(self) -> None:
        """
        The salt is as long as that of a user, and there are as many iterations.
        """
        for size in (12, 32, 33, 100):
            shape = Shape(5000, size)
            self.assertEqual(ScramKeys.fake(b"bob", b"secret", {shape}).shape, shape)

    def test_fakeShapes(self) -> None:
        """
        If users differ in their iterations, so do strangers: each shape is that of many names, a
        name keeps it, and when a new one is added the others lose only what it gains.
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
