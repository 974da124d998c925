"""
The decorator for methods that answer a procedure.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, overload

import attrs

from kaproto.wire.structs import checkType

__all__ = ["MARK", "RAW", "Declaration", "procedure"]

_PROCEDURE_MAX: Final = 2**31 - 1
MARK: Final = "kaprotoProcedure"
"""
The attribute of a decorated method that holds its L{Declaration}.
"""

RAW: Final = object()
"""
Stands for bytes in place of a class: the method packs or unpacks them itself.
"""

_Raw = TypeVar("_Raw", bound=Callable[..., bytes | Awaitable[bytes]])
_Self = TypeVar("_Self")
_Connection = TypeVar("_Connection")
_Arguments = TypeVar("_Arguments")
_Result = TypeVar("_Result")


@attrs.frozen
class Declaration:
    """
    The arguments of L{procedure}.

    @ivar numbers: the procedure's numbers.
    @ivar arguments: the class of the arguments, C{None} for no arguments, L{RAW} for bytes.
    @ivar result: the class of the result, as with C{arguments}.
    """

    numbers: tuple[int, ...]
    arguments: Any
    result: Any


@overload
def procedure(*numbers: int) -> Callable[[_Raw], _Raw]: ...


@overload
def procedure(
    *numbers: int, arguments: type[_Arguments], result: type[_Result]
) -> Callable[
    [Callable[[_Self, _Connection, _Arguments], _Result | Awaitable[_Result]]],
    Callable[[_Self, _Connection, _Arguments], _Result | Awaitable[_Result]],
]: ...


@overload
def procedure(
    *numbers: int, arguments: type[_Arguments], result: None = None
) -> Callable[
    [Callable[[_Self, _Connection, _Arguments], Awaitable[None] | None]],
    Callable[[_Self, _Connection, _Arguments], Awaitable[None] | None],
]: ...


@overload
def procedure(
    *numbers: int, arguments: None = None, result: type[_Result]
) -> Callable[
    [Callable[[_Self, _Connection], _Result | Awaitable[_Result]]],
    Callable[[_Self, _Connection], _Result | Awaitable[_Result]],
]: ...


@overload
def procedure(
    *numbers: int, arguments: None, result: None = None
) -> Callable[
    [Callable[[_Self, _Connection], Awaitable[None] | None]],
    Callable[[_Self, _Connection], Awaitable[None] | None],
]: ...


def procedure(*numbers: int, arguments: Any = RAW, result: Any = RAW) -> Callable[[Any], Any]:
    """
    Make a method of a L{Program} answer a procedure.

    With C{arguments} or C{result} the method takes and returns Python objects: it is called with
    the connection and the arguments, if there are any, and returns the result.  Without both, it is
    called with the connection and the payload in XDR, and returns the result in XDR, as bytes.  The
    method can also return an awaitable of the result.

    @param numbers: the procedure's number, 1 to 2,147,483,647; several if the method answers
        several procedures.
    @param arguments: a class that L{kaproto.wire.structs} supports, such as an attrs class, or
        C{None} for no arguments.
    @param result: the class of the result, likewise, or C{None} for no result.
    @raise TypeError: when a number or a class cannot be used, or the method has a wrong signature.
        The message names the method.
    """
    if not numbers:
        raise TypeError("a procedure needs a number: write @procedure(1)")
    first: object = numbers[0]
    if callable(first):
        name = getattr(first, "__qualname__", first)
        raise TypeError(f"{name}: a procedure needs a number: write @procedure(1)")
    if (arguments, result) != (RAW, RAW):
        arguments = None if arguments is RAW else arguments
        result = None if result is RAW else result
    declaration = Declaration(numbers, arguments, result)

    def mark(method: Any) -> Any:
        if not inspect.isfunction(method):
            name = getattr(method, "__name__", repr(method))
            kind = type(method).__name__
            raise TypeError(f"{name}: a procedure is a plain method, not a {kind}")
        try:
            _check(method, declaration)
        except TypeError as error:
            raise TypeError(f"{method.__qualname__}: {error}") from error
        setattr(method, MARK, declaration)
        return method

    return mark


def _check(method: Callable[..., object], declaration: Declaration) -> None:
    """
    @raise TypeError: when the declaration is invalid, or does not match the method.
    """
    numbers: tuple[object, ...] = declaration.numbers
    for number in numbers:
        if (
            isinstance(number, bool)
            or not isinstance(number, int)
            or not 1 <= number <= _PROCEDURE_MAX
        ):
            raise TypeError(
                f"a procedure's number is a whole number from 1 to {_PROCEDURE_MAX}, not {number!r}"
            )
    for each in (declaration.arguments, declaration.result):
        if each is not None and each is not RAW:
            checkType(each)
    called = ["self", "connection"]
    if declaration.arguments is not None:
        called.append("payload" if declaration.arguments is RAW else "arguments")
    try:
        inspect.signature(method).bind(*called)
    except TypeError as error:
        raise TypeError(f"it is called with ({', '.join(called)}): {error}") from error
    annotation = method.__annotations__.get("return", bytes)
    if declaration.result is RAW and annotation in (None, "None", str, "str"):
        raise TypeError(
            f"it returns {getattr(annotation, '__name__', annotation)}, and should return bytes, "
            "the result in XDR; or declare the result, as in @procedure(1, result=None)"
        )
