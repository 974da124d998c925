"""
Packs values into bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from reprlib import repr as shortened
from struct import Struct
from struct import error as StructError
from struct import pack as structPack
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
    PackError,
    ParameterType,
    TypedParameter,
)

__all__ = ["Packer"]

_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_T = TypeVar("_T")


class Packer:
    """
    Builds a payload value by value.  Methods return the packer, so that calls can be chained, and
    raise L{PackError} when the value does not fit.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def packed(self) -> bytes:
        """
        @return: the payload so far.
        """
        return b"".join(self._parts)

    def _pack(self, form: Struct, value: float) -> Packer:
        try:
            self._parts.append(form.pack(value))
        except (StructError, OverflowError) as error:
            raise PackError(f"{shortened(value)} does not fit: {error}") from error
        return self

    def int32(self, value: int) -> Packer:
        """
        Pack a signed 32-bit number (XDR's C{int}); an enum is the same on the wire.
        """
        return self._pack(INT, value)

    def uint32(self, value: int) -> Packer:
        """
        Pack an unsigned 32-bit number (XDR's C{unsigned int}).
        """
        return self._pack(UINT, value)

    def int64(self, value: int) -> Packer:
        """
        Pack a signed 64-bit number (XDR's C{hyper}).
        """
        return self._pack(HYPER, value)

    def uint64(self, value: int) -> Packer:
        """
        Pack an unsigned 64-bit number (XDR's C{unsigned hyper}).
        """
        return self._pack(UHYPER, value)

    def double(self, value: float) -> Packer:
        """
        Pack a floating-point number of 64 bits.
        """
        return self._pack(DOUBLE, value)

    def boolean(self, value: object) -> Packer:
        """
        Pack the truth of a value as 1 or 0.
        """
        return self._pack(INT, 1 if value else 0)

    def fixed(self, value: bytes) -> Packer:
        """
        Pack opaque data whose length both sides know, such as the 16 bytes of a UUID.
        """
        self._parts.append(value + _PADDING[len(value) % 4])
        return self

    def opaque(self, value: bytes, limit: int = STRING_MAX) -> Packer:
        """
        Pack opaque data with its length in front.

        @param limit: the most bytes.
        """
        return self._count(len(value), limit, "bytes").fixed(value)

    def string(self, value: str, limit: int = STRING_MAX) -> Packer:
        """
        Pack a string as UTF-8.  Bytes that C{Unpacker.string} could not decode are packed
        unchanged.

        @param limit: the most bytes.
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
        @param limit: the most elements.
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

        @param limit: the most parameters.
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
        if parameter.type is ParameterType.BOOLEAN:
            return self.boolean(value)
        return self._pack(PARAMETERS[parameter.type], value)

    def chars(self, value: bytes) -> Packer:
        """
        Pack an array of C's C{char}, each of which takes four bytes in XDR.  For an array of
        variable length, pack the count first.
        """
        self._parts.append(structPack(f">{len(value)}i", *value))
        return self

    def _count(self, count: int, limit: int, what: str) -> Packer:
        if count > limit:
            raise PackError(f"{count} {what}, but at most {limit} are allowed")
        return self.uint32(count)
