"""
XDR (RFC 4506): the types that libvirt's RPC uses, read as leniently as libvirt reads them.

Each method of L{Packer} has its counterpart of the same name in L{Unpacker}, with the same limit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from enum import IntEnum
from reprlib import repr as shortened
from typing import Final, TypeVar

import attrs

__all__ = [
    "ARRAY_MAX",
    "STRING_MAX",
    "PackError",
    "Packer",
    "ParameterType",
    "TypedParameter",
    "Unpacker",
    "XDRError",
]

STRING_MAX: Final = 4194304
"""
The longest string, in bytes (libvirt's C{REMOTE_STRING_MAX}).
"""

ARRAY_MAX: Final = 16384
"""
The most elements of an array (libvirt's C{REMOTE_DOMAIN_LIST_MAX}).
"""

_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_INT: Final = struct.Struct(">i")
_UINT: Final = struct.Struct(">I")
_HYPER: Final = struct.Struct(">q")
_UHYPER: Final = struct.Struct(">Q")
_DOUBLE: Final = struct.Struct(">d")
_LEAST: Final = 4
_T = TypeVar("_T")


class XDRError(ValueError):
    """
    The bytes are not the value that was expected.
    """


class PackError(XDRError):
    """
    The value does not fit its XDR type.  The fault is on this side.
    """


class ParameterType(IntEnum):
    """
    The type of a L{TypedParameter}'s value (libvirt's C{virTypedParameterType}).
    """

    INT = 1
    UINT = 2
    LLONG = 3
    ULLONG = 4
    DOUBLE = 5
    BOOLEAN = 6
    STRING = 7


_BOOL: Final = struct.Struct(">i")
_NUMBERS: Final[Mapping[ParameterType, struct.Struct]] = {
    ParameterType.INT: _INT,
    ParameterType.UINT: _UINT,
    ParameterType.LLONG: _HYPER,
    ParameterType.ULLONG: _UHYPER,
    ParameterType.DOUBLE: _DOUBLE,
    ParameterType.BOOLEAN: _BOOL,
}


def _typeOf(parameter: TypedParameter) -> ParameterType:
    value = parameter.value
    if isinstance(value, bool):
        return ParameterType.BOOLEAN
    if isinstance(value, int):
        return ParameterType.LLONG if value < 1 << 63 else ParameterType.ULLONG
    return ParameterType.DOUBLE if isinstance(value, float) else ParameterType.STRING


@attrs.frozen
class TypedParameter:
    """
    A name and a value that carries its own type (libvirt's C{virTypedParameter}).

    @ivar name: what the value is, such as C{"cpu_shares"}.
    @ivar value: a number, truth or text.
    @ivar type: by default C{BOOLEAN}, C{LLONG}, C{DOUBLE} or C{STRING}, as the value has it, and
        C{ULLONG} for a whole number that only fits that.
    """

    name: str
    value: bool | int | float | str
    type: ParameterType = attrs.field(
        default=attrs.Factory(_typeOf, takes_self=True), converter=ParameterType
    )


class Packer:
    """
    Builds a payload value by value.  Every method returns the packer, so that calls can be
    chained, and raises L{PackError} when the value does not fit.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def packed(self) -> bytes:
        """
        @return: the payload so far.
        """
        return b"".join(self._parts)

    def _pack(self, form: struct.Struct, value: float) -> Packer:
        try:
            self._parts.append(form.pack(value))
        except (struct.error, OverflowError) as error:
            raise PackError(f"{shortened(value)} does not fit: {error}") from error
        return self

    def int32(self, value: int) -> Packer:
        """
        Pack a signed 32-bit number (XDR's C{int}); an enum is the same on the wire.
        """
        return self._pack(_INT, value)

    def uint32(self, value: int) -> Packer:
        """
        Pack an unsigned 32-bit number (XDR's C{unsigned int}).
        """
        return self._pack(_UINT, value)

    def int64(self, value: int) -> Packer:
        """
        Pack a signed 64-bit number (XDR's C{hyper}).
        """
        return self._pack(_HYPER, value)

    def uint64(self, value: int) -> Packer:
        """
        Pack an unsigned 64-bit number (XDR's C{unsigned hyper}).
        """
        return self._pack(_UHYPER, value)

    def double(self, value: float) -> Packer:
        """
        Pack a floating-point number of 64 bits.
        """
        return self._pack(_DOUBLE, value)

    def boolean(self, value: object) -> Packer:
        """
        Pack the truth of a value as 1 or 0.
        """
        return self._pack(_INT, 1 if value else 0)

    def fixed(self, value: bytes) -> Packer:
        """
        Pack opaque data whose length both sides know, such as the 16 bytes of a UUID.
        """
        self._parts.append(value + _PADDING[len(value) % 4])
        return self

    def opaque(self, value: bytes, limit: int = STRING_MAX) -> Packer:
        """
        Pack opaque data with its length in front.

        @param limit: the most bytes it may have.
        """
        return self._count(len(value), limit, "bytes").fixed(value)

    def string(self, value: str, limit: int = STRING_MAX) -> Packer:
        """
        Pack a string as UTF-8.  Bytes that L{Unpacker.string} could not decode go out as they
        came in.

        @param limit: the most bytes it may have.
        """
        try:
            data = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise PackError(
                f"{shortened(value)} cannot be encoded in UTF-8: {error.reason}"
            ) from error
        return self.opaque(data, limit)

    def optional(self, value: _T | None, pack: Callable[[_T], object]) -> Packer:
        """
        Pack a value that may be absent (XDR's C{*}).

        @param pack: packs the value when there is one, such as C{packer.string}.
        """
        if value is None:
            return self.uint32(0)
        self.uint32(1)
        pack(value)
        return self

    def optionalString(self, value: str | None) -> Packer:
        """
        Pack a string that may be absent (C{remote_string}).
        """
        return self.optional(value, self.string)

    def array(
        self, values: Collection[_T], pack: Callable[[_T], object], limit: int = ARRAY_MAX
    ) -> Packer:
        """
        Pack an array with its length in front.

        @param pack: packs one element, such as C{packer.int32}.
        @param limit: the most elements it may have.
        """
        self._count(len(values), limit, "elements")
        for value in values:
            pack(value)
        return self

    def typedParameters(
        self, parameters: Collection[TypedParameter], limit: int = ARRAY_MAX
    ) -> Packer:
        """
        Pack an array of typed parameters.

        @param limit: the most parameters there may be.
        """
        return self.array(parameters, self.typedParameter, limit)

    def typedParameter(self, parameter: TypedParameter) -> Packer:
        """
        Pack a typed parameter.
        """
        self.string(parameter.name).int32(parameter.type)
        value = parameter.value
        if parameter.type is ParameterType.STRING:
            if not isinstance(value, str):
                raise PackError(f"{shortened(value)} is not a string")
            return self.string(value)
        if isinstance(value, str):
            raise PackError(f"{shortened(value)} is not a number")
        form = _NUMBERS[parameter.type]
        return self._pack(form, bool(value) if form is _BOOL else value)

    def chars(self, value: bytes) -> Packer:
        """
        Pack a C C{char} array, in which XDR spends four bytes on each element.  Where the array's
        length varies, pack the count first.
        """
        self._parts.append(struct.pack(f">{len(value)}i", *value))
        return self

    def _count(self, count: int, limit: int, what: str) -> Packer:
        if count > limit:
            raise PackError(f"{count} {what} where {limit} are the most allowed")
        return self.uint32(count)


class Unpacker:
    """
    Takes a payload apart value by value.  Every method raises L{XDRError} when the data ends too
    soon or is over a limit.

    Padding is not checked and bytes after the last value are ignored, as in libvirt.
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
        return int(_INT.unpack_from(self._data, self._take(4))[0])

    def uint32(self) -> int:
        """
        @return: an unsigned 32-bit number.
        """
        return int(_UINT.unpack_from(self._data, self._take(4))[0])

    def int64(self) -> int:
        """
        @return: a signed 64-bit number.
        """
        return int(_HYPER.unpack_from(self._data, self._take(8))[0])

    def uint64(self) -> int:
        """
        @return: an unsigned 64-bit number.
        """
        return int(_UHYPER.unpack_from(self._data, self._take(8))[0])

    def double(self) -> float:
        """
        @return: a floating-point number of 64 bits.
        """
        return float(_DOUBLE.unpack_from(self._data, self._take(8))[0])

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
        @param limit: the most bytes it may have.
        @return: opaque data of variable length.
        """
        return self.fixed(self._count(limit, "bytes"))

    def string(self, limit: int = STRING_MAX) -> str:
        """
        @param limit: the most bytes it may have.
        @return: a string.  Bytes that are not UTF-8 become lone surrogates, so that they survive
            being packed again.
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
        @param unpack: reads one element, such as C{unpacker.int32}.  An element has 4 bytes at
            least.
        @param limit: the most elements it may have.
        @return: an array of variable length.
        """
        count = self._count(limit, "elements")
        if count * _LEAST > len(self._data) - self._offset:
            raise XDRError(f"{count} elements do not fit into the bytes after {self._offset}")
        return [unpack() for _ in range(count)]

    def typedParameters(self, limit: int = ARRAY_MAX) -> list[TypedParameter]:
        """
        @param limit: the most parameters there may be.
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
        form = _NUMBERS[kind]
        (value,) = form.unpack_from(self._data, self._take(form.size))
        return TypedParameter(name, value != 0 if form is _BOOL else value, kind)

    def chars(self, count: int) -> bytes:
        """
        @param count: how many elements the array has.
        @return: a C C{char} array.  Only the low byte of each element counts, because clients
            extend the sign of those above 127.
        """
        start = self._take(4 * count)
        return self._data[start + 3 : start + 4 * count : 4]

    def _count(self, limit: int, what: str) -> int:
        count = self.uint32()
        if count > limit:
            raise XDRError(f"{count} {what} where {limit} are the most allowed")
        return count
