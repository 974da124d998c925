"""
XDR from Python's types.

An attrs class is a struct of its fields, in order, so that nothing has to be packed by hand::

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

Both ends check the limits.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from reprlib import repr as shortened
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin
from uuid import UUID

import attrs

from kaproto.wire.xdr import (
    ARRAY_MAX,
    STRING_MAX,
    Packer,
    PackError,
    TypedParameter,
    Unpacker,
    XDRError,
)

__all__ = ["Hyper", "Limit", "UHyper", "UInt", "checkType", "pack", "unpack"]


@attrs.frozen
class Limit:
    """
    Marks a type with the most bytes or elements that its values may have.
    """

    most: int


@attrs.frozen
class _Form:
    """
    How values of a type are packed and unpacked.

    @ivar pack: packs a value.
    @ivar unpack: reads a value.
    @ivar empty: whether a value may have no bytes at all.
    """

    pack: Callable[[Packer, Any], object]
    unpack: Callable[[Unpacker], Any]
    empty: bool = False


UInt = Annotated[int, _Form(Packer.uint32, Unpacker.uint32)]
"""
XDR's C{unsigned int}: 0 to 4,294,967,295.
"""

Hyper = Annotated[int, _Form(Packer.int64, Unpacker.int64)]
"""
XDR's C{hyper}, a signed number of 64 bits.
"""

UHyper = Annotated[int, _Form(Packer.uint64, Unpacker.uint64)]
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
    _form(type(value)).pack(packer, value)
    return packer.packed()


def unpack(cls: type[_T], payload: bytes) -> _T:
    """
    @param cls: an attrs class, or one of the plain types.
    @return: the value in the payload.  Bytes after it are ignored.
    @raise XDRError: when the payload is not such a value, or the class's own validators refuse
        it with a C{ValueError}; the message names the field.
    @raise TypeError: when the class cannot be unpacked, see L{checkType}.
    """
    value: _T = _form(cls).unpack(Unpacker(payload))
    return value


def checkType(cls: type) -> None:
    """
    Find out early whether L{pack} and L{unpack} know a class.

    @raise TypeError: when they do not; the message names the class, the field, and the types that
        there are.
    """
    _form(cls)


_PLAIN: Final[dict[Any, _Form]] = {
    int: _Form(Packer.int32, Unpacker.int32),
    float: _Form(Packer.double, Unpacker.double),
    bool: _Form(Packer.boolean, Unpacker.boolean),
    UUID: _Form(
        lambda packer, value: packer.fixed(value.bytes),
        lambda unpacker: UUID(bytes=unpacker.fixed(16)),
    ),
    TypedParameter: _Form(Packer.typedParameter, Unpacker.typedParameter),
}


def _compile(hint: Any) -> _Form:
    """
    @raise TypeError: for a type that has no XDR.
    """
    return _derive(hint, None, ())


_form: Final[Callable[[Any], _Form]] = cache(_compile)


def _derive(hint: Any, limit: int | None, within: tuple[type, ...]) -> _Form:
    """
    @param limit: the most bytes or elements, C{None} for the default.
    @param within: the classes whose fields lead here; one of them again would be a type without
        an end.
    """
    origin = get_origin(hint)
    if origin is Annotated:
        return _annotated(*get_args(hint), within=within)
    if hint in (str, bytes):
        return _text(hint, STRING_MAX if limit is None else limit)
    if origin is list:
        return _list(get_args(hint)[0], ARRAY_MAX if limit is None else limit, within)
    if limit is not None:
        raise TypeError(f"a Limit is for str, bytes and list, not for {_name(hint)}")
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin in (Union, types.UnionType):
        return _optional(hint, within)
    return _class(hint, within)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _annotated(hint: Any, *marks: object, within: tuple[type, ...]) -> _Form:
    limit = None
    for mark in marks:
        if isinstance(mark, _Form):
            return mark
        if isinstance(mark, Limit):
            limit = mark.most
    return _derive(hint, limit, within)


def _text(hint: type, limit: int) -> _Form:
    if hint is str:
        return _Form(
            lambda packer, value: packer.string(value, limit),
            lambda unpacker: unpacker.string(limit),
        )
    return _Form(
        lambda packer, value: packer.opaque(value, limit),
        lambda unpacker: unpacker.opaque(limit),
    )


def _list(hint: Any, limit: int, within: tuple[type, ...]) -> _Form:
    element = _derive(hint, None, within)
    if element.empty:
        # 16,384 lists of 16,384 elements would fit into 64 KiB.
        raise TypeError(f"list[{_name(hint)}]: the elements would have no bytes")
    return _Form(
        lambda packer, values: packer.array(values, lambda each: element.pack(packer, each), limit),
        lambda unpacker: unpacker.array(lambda: element.unpack(unpacker), limit),
    )


def _optional(hint: Any, within: tuple[type, ...]) -> _Form:
    present = [each for each in get_args(hint) if each is not type(None)]
    if len(present) != 1:
        raise TypeError(f"{_name(hint)}: XDR does not say which of several types a value has")
    form = _derive(present[0], None, within)
    return _Form(
        lambda packer, value: packer.optional(value, lambda each: form.pack(packer, each)),
        lambda unpacker: unpacker.optional(lambda: form.unpack(unpacker)),
    )


def _class(hint: Any, within: tuple[type, ...]) -> _Form:
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return _enum(hint)
    if isinstance(hint, type) and attrs.has(hint):
        return _struct(hint, within)
    raise TypeError(
        f"{_name(hint)} has no XDR; use an attrs class, str, bytes, bool, int, UInt, Hyper, "
        "UHyper, float, UUID, an IntEnum, TypedParameter, list[...] or ... | None"
    )


def _enum(cls: type[IntEnum]) -> _Form:
    def read(unpacker: Unpacker) -> IntEnum:
        number = unpacker.int32()
        try:
            return cls(number)
        except ValueError as error:
            raise XDRError(str(error)) from error

    return _Form(Packer.int32, read)


def _struct(cls: type, within: tuple[type, ...]) -> _Form:
    if cls in within:
        raise TypeError(f"{cls.__name__} contains itself, and could be of any depth")
    try:
        attrs.resolve_types(cls, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{cls.__name__}: {error}; define the types of its fields at the top of a module, "
            "before they are used"
        ) from error
    struct = _Struct(cls, tuple(_field(cls, each, within) for each in attrs.fields(cls)))
    return _Form(struct.pack, struct.unpack, all(each.form.empty for each in struct.fields))


@attrs.frozen
class _Field:
    """
    A field of a struct.

    @ivar name: its name.
    @ivar parameter: the parameter for it when an instance is made.
    @ivar form: how its values are packed.
    """

    name: str
    parameter: str
    form: _Form


def _field(cls: type, field: attrs.Attribute[Any], within: tuple[type, ...]) -> _Field:
    where = f"{cls.__name__}.{field.name}"
    if not field.init:
        raise TypeError(f"{where}: a field with init=False cannot be read from XDR")
    try:
        form = _derive(field.type, None, (*within, cls))
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from error
    return _Field(field.name, field.alias or field.name, form)


@attrs.frozen
class _Struct:
    """
    An attrs class, packed and unpacked field by field.
    """

    cls: type
    fields: tuple[_Field, ...]

    def pack(self, packer: Packer, value: object) -> None:
        """
        @raise PackError: naming the field that does not fit.
        """
        if not isinstance(value, self.cls):
            raise PackError(f"{shortened(value)} is not an instance of {self.cls.__name__}")
        for field in self.fields:
            try:
                field.form.pack(packer, getattr(value, field.name))
            except (PackError, AttributeError, TypeError) as error:
                raise PackError(f"{self.cls.__name__}.{field.name}: {error}") from error

    def unpack(self, unpacker: Unpacker) -> object:
        """
        @raise XDRError: naming the field that cannot be read, or what a validator says.
        """
        values = {}
        for field in self.fields:
            try:
                values[field.parameter] = field.form.unpack(unpacker)
            except XDRError as error:
                raise XDRError(f"{self.cls.__name__}.{field.name}: {error}") from error
        try:
            return self.cls(**values)
        except ValueError as error:
            raise XDRError(f"{self.cls.__name__}: {error}") from error
