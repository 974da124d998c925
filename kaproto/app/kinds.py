"""
The types of kaserver's settings: numbers, texts, choices and flags.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs

from kaproto.keepalive.liveness import INTERVAL_MAX

__all__ = [
    "BadSetting",
    "Choice",
    "Flag",
    "Kind",
    "Mode",
    "Seconds",
    "Text",
    "Texts",
    "Whole",
    "WholeOr",
]


class BadSetting(ValueError):
    """
    A value is invalid for a setting; the message begins with the valid values.
    """


class Kind(Protocol):
    """
    The type of a setting.
    """

    def fromText(self, text: str, /) -> object:
        """
        @param text: the argument on the command line.
        @return: the value.
        @raise BadSetting: when it is invalid.
        """

    def fromValue(self, value: object, /) -> object:
        """
        Convert a value from the configuration file.

        @return: the value.
        @raise BadSetting: when it is invalid.
        """


@attrs.frozen
class Seconds:
    """
    A number of seconds, which may have decimals.
    """

    least: float = 0.0

    def fromText(self, text: str) -> float:
        """
        @raise BadSetting: when it is not a valid number.
        """
        try:
            return self.fromValue(float(text))
        except ValueError:
            raise self._refuse(text) from None

    def fromValue(self, value: object) -> float:
        """
        @raise BadSetting: when it is not a valid number.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refuse(value)
        if not self.least <= value <= INTERVAL_MAX or math.isnan(value):
            raise self._refuse(value)
        return float(value)

    def _refuse(self, value: object) -> BadSetting:
        return BadSetting(
            f"takes a number of seconds from {self.least:g} to {INTERVAL_MAX}, not {value!r}"
        )


@attrs.frozen
class Whole:
    """
    A whole number.
    """

    least: int

    def fromText(self, text: str) -> int:
        """
        @raise BadSetting: when it is not a valid number.
        """
        if not (text.isascii() and text.isdecimal() and int(text) >= self.least):
            raise self._refuse(text)
        return int(text)

    def fromValue(self, value: object) -> int:
        """
        @raise BadSetting: when it is not a valid number.
        """
        if isinstance(value, bool) or not isinstance(value, int) or value < self.least:
            raise self._refuse(value)
        return value

    def _refuse(self, value: object) -> BadSetting:
        return BadSetting(f"takes a whole number from {self.least} up, not {value!r}")


@attrs.frozen
class WholeOr:
    """
    A whole number, or a word.
    """

    whole: Whole
    word: str

    def fromText(self, text: str) -> object:
        """
        @raise BadSetting: when it is neither.
        """
        return self._orWord(self.whole.fromText, text)

    def fromValue(self, value: object) -> object:
        """
        @raise BadSetting: when it is neither.
        """
        return self._orWord(self.whole.fromValue, value)

    def _orWord(self, read: Callable[[Any], int], value: object) -> object:
        try:
            return self.word if value == self.word else read(value)
        except BadSetting as error:
            raise BadSetting(str(error).replace("takes", f"takes {self.word}, or", 1)) from None


@attrs.frozen
class Text:
    """
    Any text.
    """

    def fromText(self, text: str) -> str:
        """
        @return: the text, unchanged.
        """
        return text

    def fromValue(self, value: object) -> str:
        """
        @raise BadSetting: when it is not text.
        """
        if not isinstance(value, str):
            raise BadSetting(f"takes a string in quotes, not {value!r}")
        return value


@attrs.frozen
class Mode(Text):
    """
    A policy's name, or its number.
    """

    def fromValue(self, value: object) -> str:
        """
        @raise BadSetting: when it is neither text nor a number.
        """
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return super().fromValue(value)


@attrs.frozen
class Choice:
    """
    One of several words.
    """

    words: Sequence[str]

    def fromText(self, text: str) -> str:
        """
        @raise BadSetting: when it is none of them.
        """
        return self.fromValue(text)

    def fromValue(self, value: object) -> str:
        """
        @raise BadSetting: when it is none of them.
        """
        if isinstance(value, str) and value in self.words:
            return value
        raise BadSetting(f"is one of {', '.join(self.words)}, not {value!r}")


@attrs.frozen
class Texts:
    """
    A list of texts: a flag that may be given several times.
    """

    def fromText(self, text: str) -> list[str]:
        """
        @return: a list of only this text.
        """
        return [text]

    def fromValue(self, value: object) -> list[str]:
        """
        @raise BadSetting: when it is neither a text nor a list of texts.
        """
        texts: Sequence[object] = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in texts):
            raise BadSetting(f"takes a string in quotes, or a list of them, not {value!r}")
        return [str(each) for each in texts]


@attrs.frozen
class Flag:
    """
    On or off.  On the command line it has no value.
    """

    def fromText(self, text: str) -> bool:
        """
        @return: C{True}.
        """
        return True

    def fromValue(self, value: object) -> bool:
        """
        @raise BadSetting: when it is not a boolean.
        """
        if not isinstance(value, bool):
            raise BadSetting(f"is true or false, not {value!r}")
        return value
