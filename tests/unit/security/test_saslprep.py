"""
Tests for L{kaproto.security.saslprep}.
"""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from scramp.core import Username
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.saslprep import (
    NAME_MAX,
    PASSWORD_MAX,
    prepareName,
    preparePassword,
    saslprep,
)

ODD = (
    "a\u00e9 \uff41\u00ad\u00a0\u2000\u2168\ufdfa\u0627\u0628\u0007\u200b\ue000\u0221"
    "\ufffd\u2ff0\u0340\u200e"
)


def scrampPrepares(text: str) -> str | None:
    """
    @return: the name as scramp prepares it, C{None} if scramp refuses it.
    """
    try:
        return str(Username(text))
    except Exception:  # noqa: BLE001 - scramp's own, and those it lets through
        return None


class PrepareTests(SynchronousTestCase):
    """
    Tests for L{saslprep}, L{prepareName} and L{preparePassword}.
    """

    def test_examples(self) -> None:
        """
        The examples of RFC 4013, section 3, and a few more are prepared as they should be.
        """
        for text, prepared in [
            ("I\u00adX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
            ("pass word", "pass word"),
            ("pass\u00a0word", "pass word"),
            ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
        ]:
            self.assertEqual(saslprep(text), prepared)

    def test_prohibited(self) -> None:
        """
        Prohibited characters and mixed directions are refused, with an error that does not quote
        the text.
        """
        for text in ("sesame\u0007", "sesame\u007f", "\u06271sesame", "\ue000sesame", "a\u0627a"):
            error = self.assertRaises(ValueError, saslprep, text)
            self.assertNotIn("sesame", str(error))

    @given(st.text(st.sampled_from(ODD) | st.characters(codec="utf-8"), min_size=1, max_size=8))
    @example("\u0627a\u0628")
    @example("\u0627\u0031")
    @example("\u00ad")
    def test_asScramp(self, text: str) -> None:
        """
        Names are prepared as scramp prepares them, so PLAIN and SCRAM agree.
        """
        try:
            prepared: str | None = prepareName(text.encode())
        except ValueError:
            prepared = None
        self.assertEqual(prepared, scrampPrepares(text))

    def test_bounds(self) -> None:
        """
        Data that is too long is refused before it is decoded.
        """
        for prepare, most in ((prepareName, NAME_MAX), (preparePassword, PASSWORD_MAX)):
            self.assertEqual(prepare(b"a" * most), "a" * most)
            with self.assertRaisesRegex(ValueError, "longer than"):
                prepare(b"\xff" * (most + 1))
            with self.assertRaisesRegex(ValueError, "longer than .* once prepared"):
                prepare("\ufdfa".encode() * (most // 3))

    def test_nothing(self) -> None:
        """
        A name or password that is empty, or empty once prepared, is refused.
        """
        for data in (b"", "\u00ad".encode()):
            for prepare in (prepareName, preparePassword):
                with self.assertRaisesRegex(ValueError, "empty"):
                    prepare(data)

    def test_encoding(self) -> None:
        """
        A name that is not UTF-8 is refused.
        """
        with self.assertRaisesRegex(ValueError, "UTF-8"):
            prepareName(b"alic\xe9")
