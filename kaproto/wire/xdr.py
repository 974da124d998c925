"""
XDR (RFC 4506), as much of it as libvirt's RPC uses, as lenient in reading as libvirt itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

__all__ = ["STRING_MAX", "Packer", "Unpacker", "XDRError"]

STRING_MAX = 4194304
"""
The longest string, in bytes (libvirt's C{REMOTE_STRING_MAX}).
"""

_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_INT = struct.Struct(">i")
_UINT = struct.Struct(">I")
_UHYPER = struct.Struct(">Q")
_T = TypeVar("_T")


class XDRError(ValueError):
    """
    The bytes are not the value they should be, or the value does not fit its XDR type.
    """


class Packer:
    """
    Builds a payload value by value; every method returns the packer, so that calls can be chained.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def packed(self) -> bytes:
        """
        @return: all that was packed so far.
        """
        return b"".join(self._parts)

    def _pack(self, form: struct.Struct, value: int) -> Packer:
        try:
            self._parts.append(form.pack(value))
        except struct.error as error:
            raise XDRError(f"{value!r} does not fit: {error}") from error
        return self

    def int32(self, value: int) -> Packer:
        """
        Pack a signed 32-bit number; enums and bools are the same on the wire.

        @raise XDRError: when it does not fit.
        """
        return self._pack(_INT, value)

    def uint32(self, value: int) -> Packer:
        """
        Pack an unsigned 32-bit number.

        @raise XDRError: when it does not fit.
        """
        return self._pack(_UINT, value)

    def uint64(self, value: int) -> Packer:
        """
        Pack an unsigned 64-bit number.

        @raise XDRError: when it does not fit.
        """
        return self._pack(_UHYPER, value)

    def fixed(self, value: bytes) -> Packer:
        """
        Pack opaque data of a length both sides know, such as a UUID of 16 bytes.
        """
        self._parts.append(value + _PADDING[len(value) % 4])
        return self

    def opaque(self, value: bytes) -> Packer:
        """
        Pack opaque data with its length in front.
        """
        return self.uint32(len(value)).fixed(value)

    def string(self, value: str) -> Packer:
        """
        Pack a string as UTF-8; bytes that L{Unpacker.string} could not decode go out as they came.

        @raise XDRError: when it is longer than L{STRING_MAX}.
        """
        try:
            data = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise XDRError(f"{value!r} is no text: {error}") from error
        if len(data) > STRING_MAX:
            raise XDRError(f"a string of {len(data)} bytes is longer than {STRING_MAX}")
        return self.opaque(data)

    def optionalString(self, value: str | None) -> Packer:
        """
        Pack a string that may be absent (C{remote_string}).
        """
        return self.uint32(0) if value is None else self.uint32(1).string(value)

    def chars(self, value: bytes) -> Packer:
        """
        Pack a C C{char} array, in which XDR spends four bytes on each element.  The caller packs
        the count where the array's length is variable.
        """
        self._parts.append(struct.pack(f">{len(value)}i", *value))
        return self


class Unpacker:
    """
    Takes a payload apart value by value.

    Padding is not checked and bytes after the last value are ignored, as libvirt does.
    """

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def _take(self, size: int) -> int:
        start = self._offset
        if size > len(self._data) - start:
            raise XDRError(f"{size} bytes wanted at offset {start} of {len(self._data)}")
        self._offset = start + size
        return start

    def int32(self) -> int:
        """
        @return: a signed 32-bit number, enum or bool.
        @raise XDRError: when the data ends too soon; so do all the other methods.
        """
        return int(_INT.unpack_from(self._data, self._take(4))[0])

    def uint32(self) -> int:
        """
        @return: an unsigned 32-bit number.
        """
        return int(_UINT.unpack_from(self._data, self._take(4))[0])

    def uint64(self) -> int:
        """
        @return: an unsigned 64-bit number.
        """
        return int(_UHYPER.unpack_from(self._data, self._take(8))[0])

    def fixed(self, size: int) -> bytes:
        """
        @param size: the length that both sides know, in bytes.
        @return: opaque data of that length.
        """
        start = self._take(size + -size % 4)
        return self._data[start : start + size]

    def opaque(self, limit: int = STRING_MAX) -> bytes:
        """
        @param limit: the most bytes it may have.
        @return: opaque data of variable length.
        """
        return self.fixed(self._count(limit))

    def string(self) -> str:
        """
        @return: a string; bytes that are not UTF-8 become lone surrogates, so that they survive
            being packed again.
        """
        return self.opaque().decode("utf-8", "surrogateescape")

    def optionalString(self) -> str | None:
        """
        @return: a string, or C{None} where it is absent.
        """
        return self.string() if self.uint32() else None

    def chars(self, count: int) -> bytes:
        """
        @param count: how many elements the array has.
        @return: a C C{char} array; only the low byte of each element counts, because clients
            extend the sign of those above 127.
        """
        start = self._take(4 * count)
        return self._data[start + 3 : start + 4 * count : 4]

    def array(self, element: Callable[[], _T], limit: int) -> list[_T]:
        """
        @param element: what reads one element, such as L{Unpacker.int32} of this object.
        @param limit: the most elements it may have.
        @return: an array of variable length.
        """
        return [element() for _ in range(self._count(limit))]

    def _count(self, limit: int) -> int:
        count = self.uint32()
        if count > limit:
            raise XDRError(f"{count} elements where {limit} are the most allowed")
        return count
