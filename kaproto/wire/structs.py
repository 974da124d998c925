"""
Packs and unpacks XDR by Python's type annotations.

An attrs class is a struct of its fields, in order::

    @attrs.frozen
    class Reading:
        sensor: str
        value: Hyper
        notes: list[str]

    payload = pack(Reading("load", 17, []))
    reading = unpack(Reading, payload)

The types of fields:

    - C{bool}, C{float} (double), C{bytes} (opaque), C{str} (UTF-8)
    - C{int} is XDR's C{int} of 32 bits, as are C{enum.IntEnum} classes; for other sizes write
      L{UInt}, L{Hyper} or L{UHyper}
    - C{uuid.UUID}: its 16 bytes
    - C{list[...]}: an array; C{... | None}: a value that may be absent
    - L{TypedParameter}, and other attrs classes
    - C{Annotated[str, Limit(80)]}: the most bytes of a C{str} or C{bytes}, or the most elements
      of a C{list}, in place of 4 MiB and 16,384

L{pack} and L{unpack} both check the limits.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from kaproto.wire.forms import Form, Limit, formOf
from kaproto.wire.xdr import Packer, Unpacker

__all__ = ["Hyper", "Limit", "UHyper", "UInt", "checkType", "pack", "unpack"]

UInt = Annotated[int, Form(Packer.uint32, Unpacker.uint32)]
"""
XDR's C{unsigned int}: 0 to 4,294,967,295.
"""

Hyper = Annotated[int, Form(Packer.int64, Unpacker.int64)]
"""
XDR's C{hyper}, a signed number of 64 bits.
"""

UHyper = Annotated[int, Form(Packer.uint64, Unpacker.uint64)]
"""
XDR's C{unsigned hyper}, an unsigned number of 64 bits.
"""

_T = TypeVar("_T")


def pack(value: object) -> bytes:
    """
    @param value: an instance of an attrs class, or of one of the plain types.
    @return: the value in XDR.
    @raise PackError: when a field does not fit its type; the message names the field.
    @raise TypeError: when the class cannot be packed, see L{checkType}.
    """
    packer = Packer()
    formOf(type(value)).pack(packer, value)
    return packer.packed()


def unpack(cls: type[_T], payload: bytes) -> _T:
    """
    @param cls: an attrs class, or one of the plain types.
    @return: the value in the payload.  Bytes after it are ignored.
    @raise XDRError: when the payload is not such a value, or the class's own validators refuse
        it with a C{ValueError}; the message names the field.
    @raise TypeError: when the class cannot be unpacked, see L{checkType}.
    """
    value: _T = formOf(cls).unpack(Unpacker(payload))
    return value


def checkType(cls: type) -> None:
    """
    Check early that L{pack} and L{unpack} support a class.

    @raise TypeError: when they do not; the message names the class, the field, and the supported
        types.
    """
    formOf(cls)
