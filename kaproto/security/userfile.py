"""
Reads files of users, one C{NAME:SECRET} in each line, for L{kaproto.security.passwordfile} and
L{kaproto.security.scramfile}.

The format is strict: any other line is an error, reported with its number.  A line that its author
meant differently must not become a login.

  - The file is in UTF-8, without a byte order mark.  Lines end with LF.
  - Blank lines, and lines whose first character is C{#}, are skipped.
  - Every other line is a name, one colon and a secret.  White space is part of neither, except
    within a secret.
  - A name appears once.  Names are compared in the form of SASLprep (RFC 4013).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from kaproto.regularfile import readFile
from kaproto.security.saslprep import prepareName

__all__ = ["readUsers"]

_T = TypeVar("_T")

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def readUsers(path: Path, secret: Callable[[str], _T]) -> dict[bytes, _T]:
    """
    @param path: the file.
    @param secret: converts the text after the colon, and raises C{ValueError} if it is malformed.
    @return: the converted secrets, by user name in UTF-8.
    @raise ValueError: if the file cannot be used.  The message has the file, the line and the
        problem, and quotes no secret.
    """
    users: dict[bytes, _T] = {}
    lines: dict[bytes, int] = {}
    for number, line in enumerate(_read(path).split(b"\n"), 1):
        try:
            entry = _parse(line, lines)
            if entry is not None:
                name, text = entry
                users[name] = secret(text)
                lines[name] = number
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not users:
        raise ValueError(f"{path}: it lists no users")
    return users


def _read(path: Path) -> bytes:
    try:
        return readFile(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(line: bytes, lines: dict[bytes, int]) -> tuple[bytes, str] | None:
    """
    @param lines: the line numbers of the names read so far.
    @return: name and secret; C{None} for a blank line or a comment.
    """
    text = _decode(line)
    if not text.strip() or text.startswith("#"):
        return None
    name, colon, secret = text.partition(":")
    if not colon:
        raise ValueError("there is no colon; a line is NAME:SECRET or a comment (#)")
    if not name or not secret:
        raise ValueError(f"there is nothing {'after' if name else 'before'} the colon")
    if name != name.strip() or secret != secret.strip():
        raise ValueError("there is white space around the name or around what follows the colon")
    if name[0] in "\"'":
        raise ValueError(
            "there are quotes around the name, which would be part of it; leave them out"
        )
    try:
        user = prepareName(name.encode()).encode()
    except ValueError as error:
        raise ValueError(f"this cannot be a user name: {error}") from None
    if user in lines:
        raise ValueError(f"{user.decode()!r} is in line {lines[user]} already")
    return user, secret


def _decode(line: bytes) -> str:
    if line.startswith(_BYTE_ORDER_MARK):
        raise ValueError("there is a byte order mark; save the file as UTF-8 without one")
    if b"\0" in line:
        raise ValueError("there is a NUL byte; save the file as UTF-8")
    if b"\r" in line:
        raise ValueError("there is a carriage return; save the file with UNIX line ends (LF)")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not in UTF-8") from None
