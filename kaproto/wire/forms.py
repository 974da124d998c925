"""
Compiles Python types into functions that pack and unpack their values, once for each type.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from reprlib import repr as shortened
from typing import Annotated, Any, Final, Union, get_args, get_origin
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

__all__ = ["Form", "Limit", "formOf"]


@attrs.frozen
class Limit:
    """
    Marks a type with the most bytes or elements that its values may have.
    """

    most: int


@attrs.frozen
class Form:
    """
    The functions that pack and unpack the values of a type.

    @ivar pack: packs a value.
    @ivar unpack: reads a value.
    @ivar empty: whether a value may take no bytes.
    """

    pack: Callable[[Packer, Any], object]
    unpack: Callable[[Unpacker], Any]
    empty: bool = False


_PLAIN: Final[dict[Any, Form]] = {
    int: Form(Packer.int32, Unpacker.int32),
    float: Form(Packer.double, Unpacker.double),
    bool: Form(Packer.boolean, Unpacker.boolean),
    UUID: Form(
        lambda packer, value: packer.fixed(value.bytes),
        lambda unpacker: UUID(bytes=unpacker.fixed(16)),
    ),
    TypedParameter: Form(Packer.typedParameter, Unpacker.typedParameter),
}


def _compile(hint: Any) -> Form:
    return _derive(hint, None, ())


formOf: Final[Callable[[Any], Form]] = cache(_compile)
"""
Returns the form of a type.  Raises L{TypeError} for a type that XDR cannot represent.
"""


def _derive(hint: Any, limit: int | None, within: tuple[type, ...]) -> Form:
    """
    @param limit: the most bytes or elements, C{None} for the default.
    @param within: the enclosing classes.  A field of one of these would make the type infinite.
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


def _annotated(hint: Any, *marks: object, within: tuple[type, ...]) -> Form:
    limit = None
    for mark in marks:
        if isinstance(mark, Form):
            return mark
        if isinstance(mark, Limit):
            limit = mark.most
    return _derive(hint, limit, within)


def _text(hint: type, limit: int) -> Form:
    if hint is str:
        return Form(
            lambda packer, value: packer.string(value, limit),
            lambda unpacker: unpacker.string(limit),
        )
    return Form(
        lambda packer, value: packer.opaque(value, limit),
        lambda unpacker: unpacker.opaque(limit),
    )


def _list(hint: Any, limit: int, within: tuple[type, ...]) -> Form:
    element = _derive(hint, None, within)
    if element.empty:
        # If elements took no bytes, 64 KiB could announce 16,384 lists of 16,384 elements each.
        raise TypeError(f"list[{_name(hint)}]: the elements would have no bytes")
    return Form(
        lambda packer, values: packer.array(values, lambda each: element.pack(packer, each), limit),
        lambda unpacker: unpacker.array(lambda: element.unpack(unpacker), limit),
    )


def _optional(hint: Any, within: tuple[type, ...]) -> Form:
    present = [each for each in get_args(hint) if each is not type(None)]
    if len(present) != 1:
        raise TypeError(f"{_name(hint)}: XDR does not encode which of several types a value has")
    form = _derive(present[0], None, within)
    return Form(
        lambda packer, value: packer.optional(value, lambda each: form.pack(packer, each)),
        lambda unpacker: unpacker.optional(lambda: form.unpack(unpacker)),
    )


def _class(hint: Any, within: tuple[type, ...]) -> Form:
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return _enum(hint)
    if isinstance(hint, type) and attrs.has(hint):
        return _struct(hint, within)
    raise TypeError(
        f"{_name(hint)} has no XDR form; use an attrs class, str, bytes, bool, int, UInt, Hyper, "
        "UHyper, float, UUID, an IntEnum, TypedParameter, list[...] or ... | None"
    )


def _enum(cls: type[IntEnum]) -> Form:
    def read(unpacker: Unpacker) -> IntEnum:
        number = unpacker.int32()
        try:
            return cls(number)
        except ValueError as error:
            raise XDRError(str(error)) from error

    return Form(Packer.int32, read)


def _struct(cls: type, within: tuple[type, ...]) -> Form:
    if cls in within:
        raise TypeError(f"{cls.__name__} contains itself, so its depth has no bound")
    try:
        attrs.resolve_types(cls, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{cls.__name__}: {error}; define the types of its fields at the top of a module, "
            "before they are used"
        ) from error
    struct = _Struct(cls, tuple(_field(cls, each, within) for each in attrs.fields(cls)))
    return Form(struct.pack, struct.unpack, all(each.form.empty for each in struct.fields))


@attrs.frozen
class _Field:
    """
    A field of a struct.

    @ivar name: its name.
    @ivar parameter: the parameter of the class's constructor that sets it.
    @ivar form: how its values are packed.
    """

    name: str
    parameter: str
    form: Form


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
        @raise PackError: when a field does not fit; the message names it.
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
        @raise XDRError: when a field cannot be read, and the message names it; or with the message
            of a validator of the class.
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
