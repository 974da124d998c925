"""
Finds message boundaries in a stream of lines, netstrings, integer-prefixed strings or AMP boxes.

A framing does not collect messages: it returns how far the current one reaches in the given bytes,
so a message of any length passes in the pieces in which it arrives.  It has no I/O.
"""

from __future__ import annotations

import re
import struct
from typing import Final, Protocol

from kaproto.errors import RemoteProtocolError

__all__ = ["LONGER", "Boxes", "Framing", "Lines", "Netstrings", "PrefixedStrings", "Tracker"]

LONGER: Final = (-1, b"")
"""
Returned by L{Framing.whole} for a message that is longer than C{most}.
"""


class Framing(Protocol):
    """
    The state of one direction of one connection.

    @ivar between: whether the last byte passed was the end of a message, or no byte has passed.
    """

    between: bool

    def whole(self, data: bytes, start: int, most: int, /) -> tuple[int, bytes] | None:
        """
        Parse a short message.  Called at the beginning of each message.

        @param most: the length of the longest payload of interest.
        @return: the offset at which the message ends, and its payload; L{LONGER}; or C{None} if
            more bytes are needed to decide.
        @raise RemoteProtocolError: when the message is malformed.
        """

    def passed(self, data: bytes, start: int, /) -> int:
        """
        Skip bytes, up to the end of the current message or of the data.

        @return: the offset of that end.
        @raise RemoteProtocolError: when the message is malformed.
        """


class Lines:
    """
    Lines that end in a delimiter, as L{twisted.protocols.basic.LineReceiver} reads them.
    """

    def __init__(self, delimiter: bytes = b"\r\n") -> None:
        self.between = True
        self._delimiter = delimiter
        self._end = b""

    def whole(self, data: bytes, start: int, most: int) -> tuple[int, bytes] | None:
        """
        @return: a line without its delimiter.
        """
        delimiter = self._delimiter
        end = data.find(delimiter, start, start + most + len(delimiter))
        if end >= 0:
            return end + len(delimiter), data[start:end]
        return LONGER if len(data) - start > most + len(delimiter) else None

    def passed(self, data: bytes, start: int) -> int:
        """
        @return: the offset at which the line or the data ends.
        """
        delimiter = self._delimiter
        # The delimiter may begin in earlier bytes: b"abc\r" and then b"\nd".
        begun = self._end
        end = (begun + data[start : start + len(delimiter)]).find(delimiter)
        if end >= 0:
            return self._ended(start + end + len(delimiter) - len(begun))
        end = data.find(delimiter, start)
        if end >= 0:
            return self._ended(end + len(delimiter))
        keep = len(delimiter) - 1
        self._end = (begun + data[start:])[-keep:] if keep else b""
        self.between = False
        return len(data)

    def _ended(self, end: int) -> int:
        self._end, self.between = b"", True
        return end


class _Counted:
    """
    Messages that begin with their length.
    """

    def __init__(self) -> None:
        self.between = True
        # The part of a header that has passed, and the bytes missing from the current message.
        self._header = b""
        self._left = 0

    def _length(self, data: bytes, start: int) -> tuple[int, int, int] | None:
        """
        @return: the lengths of header, payload and trailer; C{None} if the header is incomplete.
        """
        raise NotImplementedError

    def whole(self, data: bytes, start: int, most: int) -> tuple[int, bytes] | None:
        """
        @return: a message's payload.
        """
        lengths = self._length(data, start)
        if lengths is None:
            return None
        header, payload, trailer = lengths
        if payload > most:
            return LONGER
        end = start + header + payload + trailer
        if end > len(data):
            return None
        return end, data[start + header : end - trailer]

    def passed(self, data: bytes, start: int) -> int:
        """
        @return: the offset at which the message or the data ends.
        """
        if not self._left:
            # A header may arrive in pieces: b"1" and then b"0:...".
            begun = self._header
            lengths = self._length(begun + data[start : start + _HEADER_MAX], 0)
            if lengths is None:
                self._header = begun + data[start:]
                self.between = not self._header
                return len(data)
            self._header = b""
            self._left = sum(lengths) - len(begun)
        end = min(start + self._left, len(data))
        self._left -= end - start
        self.between = not self._left
        return end


_HEADER_MAX: Final = 32


class Netstrings(_Counted):
    """
    Netstrings, C{b"5:hello,"}, as L{twisted.protocols.basic.NetstringReceiver} reads them.
    """

    def whole(self, data: bytes, start: int, most: int) -> tuple[int, bytes] | None:
        """
        @return: a netstring's payload.
        @raise RemoteProtocolError: when it has no length, or no comma at its end.
        """
        found = super().whole(data, start, most)
        if found is not None and found is not LONGER and data[found[0] - 1 : found[0]] != b",":
            raise RemoteProtocolError("a netstring without a comma at its end")
        return found

    def _length(self, data: bytes, start: int) -> tuple[int, int, int] | None:
        colon = data.find(b":", start, start + _DIGITS_MAX + 1)
        digits = data[start : start + _DIGITS_MAX + 1] if colon < 0 else data[start:colon]
        if _LENGTH.fullmatch(digits) is None or colon == start:
            raise RemoteProtocolError(f"a netstring that begins with {digits!r}")
        return None if colon < 0 else (colon - start + 1, int(digits), 1)


_DIGITS_MAX: Final = 10
_LENGTH: Final = re.compile(rb"(0|[1-9][0-9]{0,9})?")


_UNSIGNED: Final = ("B", "H", "I", "L", "Q")


class PrefixedStrings(_Counted):
    """
    Strings with their length in front, as L{twisted.protocols.basic.IntNStringReceiver} reads them.
    """

    def __init__(self, structFormat: str = "!I") -> None:
        """
        @param structFormat: the format of the length, for C{struct}: C{"!I"} for
            L{twisted.protocols.basic.Int32StringReceiver}, C{"!H"} for Int16, C{"!B"} for Int8.
        @raise ValueError: when it is not the format of an unsigned number.
        """
        super().__init__()
        if structFormat.lstrip("@=<>!") not in _UNSIGNED:
            raise ValueError(f"a length is an unsigned number such as '!I', not {structFormat!r}")
        self._prefix = struct.Struct(structFormat)

    def framed(self, payload: bytes) -> bytes:
        """
        @return: a whole message; a payload too long for the prefix is cut.
        """
        most: int = 256**self._prefix.size - 1
        return self._prefix.pack(len(payload[:most])) + payload[:most]

    def _length(self, data: bytes, start: int) -> tuple[int, int, int] | None:
        prefix = self._prefix
        if len(data) - start < prefix.size:
            return None
        (length,) = prefix.unpack_from(data, start)
        return prefix.size, length, 0


_WORD: Final = struct.Struct("!H")


class Boxes:
    """
    AMP's boxes (L{twisted.protocols.amp}): keys and values, each after its length in two bytes,
    and a key of length 0 at the end.
    """

    def __init__(self) -> None:
        self.between = True
        # The bytes missing from the current key or value, and the part of a length that has passed.
        self._left = 0
        self._length = b""
        # Whether the next length is that of a key.
        self._isKey = True

    def whole(self, data: bytes, start: int, most: int) -> tuple[int, bytes] | None:
        """
        @return: a whole box, still encoded.
        """
        at, isKey = start, True
        while at + _WORD.size <= len(data):
            (length,) = _WORD.unpack_from(data, at)
            at += _WORD.size + length
            if isKey and not length:
                return (at, data[start:at]) if at - start <= most else LONGER
            if at - start > most:
                return LONGER
            isKey = not isKey
        return LONGER if len(data) - start > most else None

    def passed(self, data: bytes, start: int) -> int:
        """
        @return: the offset at which the box or the data ends.
        """
        at = start
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            missing = _WORD.size - len(self._length)
            self._length += data[at : at + missing]
            at = min(at + missing, len(data))
            if len(self._length) < _WORD.size:
                break
            (self._left,) = _WORD.unpack(self._length)
            self._length = b""
            if self._isKey and not self._left:
                self.between = True
                return at
            self._isKey = not self._isKey
        self.between = False
        return at


class Tracker:
    """
    Tracks the messages that an application writes, to find the gaps for control messages.
    """

    __slots__ = ("_framing",)

    def __init__(self, framing: Framing) -> None:
        self._framing = framing

    @property
    def between(self) -> bool:
        """
        Whether the last byte was the end of a message, or nothing has been written.
        """
        return self._framing.between

    def wrote(self, data: bytes) -> int | None:
        """
        Record bytes that the application has written.

        @return: the offset at which the first message in them ends; C{None} if none does.
        @raise RemoteProtocolError: when they are not messages of this framing.
        """
        at, first = 0, None
        while at < len(data):
            at = self._framing.passed(data, at)
            if first is None and self._framing.between:
                first = at
        return first
