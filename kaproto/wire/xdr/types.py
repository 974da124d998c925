"""
The limits, errors, number formats and typed parameters that packing and unpacking share.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from struct import Struct
from typing import Final

import attrs

__all__ = [
    "ARRAY_MAX",
    "DOUBLE",
    "HYPER",
    "INT",
    "PARAMETERS",
    "STRING_MAX",
    "UHYPER",
    "UINT",
    "PackError",
    "ParameterType",
    "TypedParameter",
    "XDRError",
]

STRING_MAX: Final = 4194304
"""
The most bytes in a string (libvirt's C{REMOTE_STRING_MAX}).
"""

ARRAY_MAX: Final = 16384
"""
The most elements in an array (libvirt's C{REMOTE_DOMAIN_LIST_MAX}).
"""

INT: Final = Struct(">i")
UINT: Final = Struct(">I")
HYPER: Final = Struct(">q")
UHYPER: Final = Struct(">Q")
DOUBLE: Final = Struct(">d")


class XDRError(ValueError):
    """
    The bytes are not a value of the expected type.
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


PARAMETERS: Final[Mapping[ParameterType, Struct]] = {
    ParameterType.INT: INT,
    ParameterType.UINT: UINT,
    ParameterType.LLONG: HYPER,
    ParameterType.ULLONG: UHYPER,
    ParameterType.DOUBLE: DOUBLE,
    ParameterType.BOOLEAN: INT,
}
"""
The number format of each type of parameter, except strings.
"""


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

    @ivar name: the parameter's name, such as C{"cpu_shares"}.
    @ivar type: by default that of the Python value: C{BOOLEAN}, C{LLONG}, C{DOUBLE} or C{STRING};
        C{ULLONG} for a whole number that is too large for C{LLONG}.
    """

    name: str
    value: bool | int | float | str
    type: ParameterType = attrs.field(
        default=attrs.Factory(_typeOf, takes_self=True), converter=ParameterType
    )
