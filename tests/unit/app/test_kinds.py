"""
Tests for L{kaproto.app.kinds}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.kinds import (
    BadSetting,
    Choice,
    Flag,
    Kind,
    Mode,
    Seconds,
    Text,
    Texts,
    Whole,
    WholeOr,
)

NO_NUMBERS = ("-1", "nan", "inf", "-inf", "1e400", "five", "", "1,5", "0x10")
"""
Values that no setting accepts as a number of seconds.
"""


class KindTests(SynchronousTestCase):
    """
    Tests for the values of settings: text from the command line, and typed values from a file.
    """

    def test_good(self) -> None:
        """
        Each kind accepts its valid values.
        """
        for kind, text, values, result in (
            (Seconds(0.1), "0.1", (0.1,), 0.1),
            (Seconds(), "0", (0, 0.0), 0.0),
            (Seconds(), "2147483", (2147483,), 2147483.0),
            (Whole(0), "0", (0,), 0),
            (Whole(1), "1", (1,), 1),
            (WholeOr(Whole(1), "auto"), "1", (1,), 1),
            (WholeOr(Whole(1), "auto"), "auto", ("auto",), "auto"),
            (Text(), "text", ("text",), "text"),
            (Mode(), "2", (2, "2"), "2"),
            (Mode(), "rules:x", ("rules:x",), "rules:x"),
            (Choice(["a", "b"]), "b", ("b",), "b"),
            (Texts(), "one", ("one", ["one"]), ["one"]),
            (Flag(), "", (True,), True),
        ):
            assert isinstance(kind, Seconds | Whole | WholeOr | Text | Choice | Texts | Flag)
            self.assertEqual(kind.fromText(text), result)
            for value in values:
                self.assertEqual(kind.fromValue(value), result)
        self.assertEqual(Texts().fromValue([]), [])

    def test_bad(self) -> None:
        """
        Invalid values are refused with a message that says what is allowed.
        """
        seconds, whole = (
            "takes a number of seconds from 0.1 to 2147483",
            "takes a whole number from 1 up",
        )
        self.assertBad(
            Seconds(0.1), seconds, (*NO_NUMBERS, "0.09", "2147484"), ("1", True, 0, float("nan"))
        )
        bad = ("1.5", "0", "-1", "nan", "", "+5", "5 ", "1e3", "\u0665")
        self.assertBad(Whole(1), whole, bad, ("1", True, 1.0, 0, None))
        self.assertBad(WholeOr(Whole(1), "auto"), f"takes auto, or {whole[6:]}", bad, (0, "one"))
        self.assertBad(Text(), "takes a string in quotes", (), (1, True, ["x"], {}))
        self.assertBad(Mode(), "takes a string in quotes", (), (1.5, True, ["x"], {}))
        self.assertBad(Choice(["a", "b"]), "is one of a, b", ("c", ""), (1, "c"))
        texts = "takes a string in quotes, or a list of them"
        self.assertBad(Texts(), texts, (), (1, ["a", 1], {}))
        self.assertBad(Flag(), "is true or false", (), (1, 0, "true"))

    def assertBad(
        self, kind: Kind, words: str, texts: tuple[str, ...], values: tuple[object, ...]
    ) -> None:
        """
        Check that each value is refused, with a message that starts with C{words}.
        """
        for take, bad in ((kind.fromText, texts), (kind.fromValue, values)):
            for each in bad:
                error = self.assertRaises(BadSetting, take, each)
                self.assertEqual(str(error), f"{words}, not {each!r}")
