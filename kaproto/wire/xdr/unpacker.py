"""
Unpacks values from bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from kaproto.wire.xdr.types import (
    ARRAY_MAX,
    DOUBLE,
    HYPER,
    INT,
    PARAMETERS,
    STRING_MAX,
    UHYPER,
    UINT,
    ParameterType,
    TypedParameter,
    XDRError,
)

__all__ = ["Unpacker"]

_LEAST: Final = 4
_T = TypeVar("_T")


class Unpacker:
    """
    Reads a payload value by value.  Methods raise L{XDRError} when the data ends too soon or is
    over a limit.

    As in libvirt, padding is not checked, and bytes after the last value are ignored.
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
        @return: a signed 32-bit number, or an enum's number.
        """
        return int(INT.unpack_from(self._data, self._take(4))[0])

    def uint32(self) -> int:
        """
        @return: an unsigned 32-bit number.
        """
        return int(UINT.unpack_from(self._data, self._take(4))[0])

    def int64(self) -> int:
        """
        @return: a signed 64-bit number.
        """
        return int(HYPER.unpack_from(self._data, self._take(8))[0])

    def uint64(self) -> int:
        """
        @return: an unsigned 64-bit number.
        """
        return int(UHYPER.unpack_from(self._data, self._take(8))[0])

    def double(self) -> float:
        """
        @return: a floating-point number of 64 bits.
        """
        return float(DOUBLE.unpack_from(self._data, self._take(8))[0])

    def boolean(self) -> bool:
        """
        @return: C{True} for any number but 0, as in libvirt.
        """
        return self.int32() != 0

    def fixed(self, size: int) -> bytes:
        """
        @param size: the length that both sides know, in bytes.
        @return: opaque data of that length.
        """
        start = self._take(size + -size % 4)
        return self._data[start : start + size]

    def opaque(self, limit: int = STRING_MAX) -> bytes:
        """
        @param limit: the most bytes.
        @return: opaque data of variable length.
        """
        return self.fixed(self._count(limit, "bytes"))

    def string(self, limit: int = STRING_MAX) -> str:
        """
        @param limit: the most bytes.
        @return: a string.  Bytes that are not UTF-8 become lone surrogates, which C{Packer.string}
            turns into the same bytes again.
        """
        return self.opaque(limit).decode("utf-8", "surrogateescape")

    def optional(self, unpack: Callable[[], _T]) -> _T | None:
        """
        @param unpack: reads the value when there is one, such as C{unpacker.string}.
        @return: the value, or C{None} where it is absent.
        """
        return unpack() if self.uint32() else None

    def optionalString(self) -> str | None:
        """
        @return: a string, or C{None} where it is absent.
        """
        return self.optional(self.string)

    def array(self, unpack: Callable[[], _T], limit: int = ARRAY_MAX) -> list[_T]:
        """
        @param unpack: reads one element, such as C{unpacker.int32}, of at least 4 bytes.
        @param limit: the most elements.
        @return: an array of variable length.
        """
        count = self._count(limit, "elements")
        if count * _LEAST > len(self._data) - self._offset:
            raise XDRError(f"{count} elements do not fit into the bytes after {self._offset}")
        return [unpack() for _ in range(count)]

    def typedParameters(self, limit: int = ARRAY_MAX) -> list[TypedParameter]:
        """
        @param limit: the most parameters.
        @return: an array of typed parameters.
        """
        return self.array(self.typedParameter, limit)

    def typedParameter(self) -> TypedParameter:
        """
        @return: a typed parameter.
        """
        name = self.string()
        number = self.int32()
        try:
            kind = ParameterType(number)
        except ValueError as error:
            raise XDRError(f"there is no parameter type {number}") from error
        if kind is ParameterType.STRING:
            return TypedParameter(name, self.string(), kind)
        if kind is ParameterType.BOOLEAN:
            return TypedParameter(name, self.boolean(), kind)
        form = PARAMETERS[kind]
        (value,) = form.unpack_from(self._data, self._take(form.size))
        return TypedParameter(name, value, kind)

    def chars(self, count: int) -> bytes:
        """
        @param count: how many elements the array has.
        @return: an array of C's C{char}.  Only the low byte of each element counts, because clients
            extend the sign of bytes above 127.
        """
        start = self._take(4 * count)
        return self._data[start + 3 : start + 4 * count : 4]

    def _count(self, limit: int, what: str) -> int:
        count = self.uint32()
        if count > limit:
            raise XDRError(f"{count} {what}, but at most {limit} are allowed")
        return count
