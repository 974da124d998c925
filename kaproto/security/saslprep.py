"""
SASLprep (RFC 4013): the form in which names and passwords are compared, so that different ways to
type the same text are equal.

An example: U+FF41, a wide C{a}, becomes C{a}, and a no-break space becomes a space.

Both PLAIN (RFC 4616) and SCRAM (RFC 5802) need it.  scramp has an implementation, but PLAIN must
work without scramp.
"""

from __future__ import annotations

import stringprep
from typing import Final
from unicodedata import ucd_3_2_0

__all__ = ["NAME_MAX", "PASSWORD_MAX", "prepareName", "preparePassword", "saslprep"]

NAME_MAX: Final = 255
"""
The most bytes in a user name.
"""

PASSWORD_MAX: Final = 1024
"""
The most bytes in a password.
"""

_PROHIBITED: Final = (
    stringprep.in_table_a1,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """
    Convert text to the form of SASLprep.  Bound the length of text that a peer has sent before
    calling this: one character can become 18, and each distinct one is looked up in a dozen tables.

    @raise ValueError: if the text has a forbidden character, or mixes directions of writing.
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each
        for each in text
        if not stringprep.in_table_b1(each)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    kinds = set(prepared)
    if any(table(each) for each in kinds for table in _PROHIBITED):
        raise ValueError("it has characters that SASLprep (RFC 4013) forbids")
    if any(map(stringprep.in_table_d1, kinds)):
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(map(stringprep.in_table_d2, kinds)):
            raise ValueError("it mixes writing from right to left with writing from left to right")
    return prepared


def prepareName(name: bytes) -> str:
    """
    Convert a user name to the form of SASLprep.

    @param name: the name in UTF-8.
    @raise ValueError: if it is not a valid user name.
    """
    return _prepare(name, NAME_MAX)


def preparePassword(password: bytes) -> str:
    """
    Convert a password to the form of SASLprep.

    @param password: the password in UTF-8.
    @raise ValueError: if it is not a valid password.  The message does not quote it.
    """
    return _prepare(password, PASSWORD_MAX)


def _prepare(data: bytes, most: int) -> str:
    if len(data) > most:
        raise ValueError(f"it is longer than {most:,} bytes")
    try:
        prepared = saslprep(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("it is not in UTF-8") from None
    if not prepared:
        raise ValueError("it is empty")
    if len(prepared.encode()) > most:
        raise ValueError(f"it is longer than {most:,} bytes once prepared by SASLprep (RFC 4013)")
    return prepared
