"""
RPC programs of an application's own, and the backend for a server that has nothing else to open.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from reprlib import repr as shortened
from typing import Any, ClassVar, Final, Self, TypeVar, overload

import attrs
from zope.interface import implementer

from kaproto.interfaces import IBackend, IProgram, ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.wire.programs import KEEPALIVE_PROGRAM, PROGRAM_VERSION, ErrorCode, ErrorDomain
from kaproto.wire.structs import Hyper, Limit, UHyper, UInt, checkType, pack, unpack
from kaproto.wire.xdr import Packer, PackError, TypedParameter, Unpacker, XDRError

__all__ = [
    "ApplicationBackend",
    "ErrorCode",
    "ErrorDomain",
    "Hyper",
    "Limit",
    "PackError",
    "Packer",
    "Program",
    "TypedParameter",
    "UHyper",
    "UInt",
    "Unpacker",
    "XDRError",
    "pack",
    "procedure",
    "unpack",
]

_PROCEDURE_MAX: Final = 2**31 - 1
_PROGRAM_MAX: Final = 2**32 - 1
_MARK: Final = "kaprotoProcedure"
_RAW: Final = object()

_Raw = TypeVar("_Raw", bound=Callable[..., bytes | Awaitable[bytes]])
_Self = TypeVar("_Self")
_Connection = TypeVar("_Connection")
_Arguments = TypeVar("_Arguments")
_Result = TypeVar("_Result")


@attrs.frozen
class _Declaration:
    """
    What L{procedure} was told.

    @ivar numbers: the procedure's numbers.
    @ivar arguments: the class of the arguments, C{None} for no arguments, L{_RAW} for bytes.
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


def procedure(*numbers: int, arguments: Any = _RAW, result: Any = _RAW) -> Callable[[Any], Any]:
    """
    Make a method of a L{Program} answer a procedure.

    With C{arguments} or C{result} the method takes and returns Python objects: it is called with
    the connection and the arguments, if there are any, and returns the result, now or later.
    Without, it is called with the connection and the payload in XDR, and returns the result in
    XDR, as bytes, now or later.

    @param numbers: the procedure's number, 1 to 2,147,483,647; several if the method answers
        several procedures.
    @param arguments: a class that L{kaproto.wire.structs} knows, such as an attrs class, or
        C{None} for no arguments.
    @param result: the same for the result.
    @raise TypeError: when a number or a class cannot be used, or the method does not take what it
        would be called with.  The message names the method.
    """
    if not numbers:
        raise TypeError("a procedure needs a number: write @procedure(1)")
    first: object = numbers[0]
    if callable(first):
        name = getattr(first, "__qualname__", first)
        raise TypeError(f"{name}: a procedure needs a number: write @procedure(1)")
    if (arguments, result) != (_RAW, _RAW):
        arguments = None if arguments is _RAW else arguments
        result = None if result is _RAW else result
    declaration = _Declaration(numbers, arguments, result)

    def mark(method: Any) -> Any:
        try:
            _check(method, declaration)
        except TypeError as error:
            raise TypeError(f"{method.__qualname__}: {error}") from error
        setattr(method, _MARK, declaration)
        return method

    return mark


def _check(method: Callable[..., object], declaration: _Declaration) -> None:
    """
    @raise TypeError: when the declaration does not make sense, or does not suit the method.
    """
    numbers: tuple[object, ...] = declaration.numbers
    for number in numbers:
        if not isinstance(number, int) or not 1 <= number <= _PROCEDURE_MAX:
            raise TypeError(
                f"a procedure's number is a whole number from 1 to {_PROCEDURE_MAX}, not {number!r}"
            )
    for each in (declaration.arguments, declaration.result):
        if each is not None and each is not _RAW:
            checkType(each)
    called = ["self", "connection"]
    if declaration.arguments is not None:
        called.append("payload" if declaration.arguments is _RAW else "arguments")
    try:
        inspect.signature(method).bind(*called)
    except TypeError as error:
        raise TypeError(f"it is called with ({', '.join(called)}): {error}") from error
    annotation = method.__annotations__.get("return", bytes)
    if declaration.result is _RAW and annotation in (None, "None", str, "str"):
        raise TypeError(
            f"it returns {getattr(annotation, '__name__', annotation)}, and should return bytes, "
            "the result in XDR; or declare the result, as in @procedure(1, result=None)"
        )


@attrs.frozen
class _Procedure:
    """
    A procedure of a class of programs.

    @ivar name: the name of the method that answers it.
    @ivar declaration: what the method takes and returns.
    """

    name: str
    declaration: _Declaration


@implementer(IProgram)
class Program:
    """
    A program to subclass: set L{number}, and decorate methods with L{procedure}.

    @cvar number: the program's number, which no other program of the server has, and none of
        libvirt's.
    @cvar version: its version.
    """

    number: ClassVar[int] = 0
    version: ClassVar[int] = PROGRAM_VERSION
    _procedures: ClassVar[dict[int, _Procedure]] = {}

    def __init_subclass__(cls) -> None:
        """
        Collect the procedures.

        @raise TypeError: when two methods have one number, or a method or a number cannot be
            used.
        """
        super().__init_subclass__()
        found: dict[int, _Procedure] = {}
        for base in reversed(cls.__mro__):
            own = _ownProcedures(base)
            names = {each.name for each in own.values()}
            found = {number: each for number, each in found.items() if each.name not in names}
            found |= own
        cls._procedures = found
        _checkNumbers(cls)

    def __new__(cls, *_arguments: object, **_keywords: object) -> Self:
        """
        @raise TypeError: when the class has no number.
        """
        if not cls.number:
            raise TypeError(
                f"{cls.__name__} has no number: choose one, such as number = 0x66656564, for the "
                "class"
            )
        return super().__new__(cls)

    def knows(self, procedure: int) -> bool:
        """
        @return: whether a method answers this procedure.
        """
        return procedure in self._procedures

    def callReceived(
        self, connection: Any, procedure: int, payload: bytes
    ) -> bytes | Awaitable[bytes]:
        """
        Call the method that answers the procedure.

        @raise XDRError: when the arguments cannot be decoded.
        @raise TypeError: when the method does not return what it should, now or later.  The
            message names the method.
        """
        entry = self._procedures[procedure]
        # Instances may have attributes of the method's name.
        method = getattr(type(self), entry.name)
        arguments = entry.declaration.arguments
        if arguments is _RAW:
            result = method(self, connection, payload)
        elif arguments is None:
            result = method(self, connection)
        else:
            result = method(self, connection, unpack(arguments, payload))
        if isinstance(result, Awaitable):
            return self._later(procedure, result)
        return self._packed(procedure, result)

    async def _later(self, procedure: int, result: Awaitable[object]) -> bytes:
        return self._packed(procedure, await result)

    def _packed(self, procedure: int, result: object) -> bytes:
        entry = self._procedures[procedure]
        kind = entry.declaration.result
        if kind is _RAW:
            if isinstance(result, bytes):
                return result
            problem = "it should return bytes, the result in XDR"
        elif kind is None:
            if result is None:
                return b""
            problem = "it is declared to have no result"
        elif not isinstance(result, kind):
            problem = f"its result is declared as {kind.__name__}"
        else:
            try:
                return pack(result)
            except PackError as error:
                problem = str(error)
        raise TypeError(
            f"{type(self).__name__}.{entry.name} (procedure {procedure}) returned "
            f"{shortened(result)}: {problem}"
        )


def _checkNumbers(cls: type[Program]) -> None:
    for name, value in (("number", cls.number), ("version", cls.version)):
        if type(value) is not int or not 0 <= value <= _PROGRAM_MAX:
            raise TypeError(
                f"{cls.__name__}.{name}: a whole number of up to 32 bits, not {value!r}"
            )
    if cls.number == KEEPALIVE_PROGRAM:
        raise TypeError(
            f"{cls.__name__}.number: {KEEPALIVE_PROGRAM:#x} is libvirt's keepalive program; "
            "choose another number"
        )


def _ownProcedures(cls: type) -> dict[int, _Procedure]:
    """
    @return: the procedures that a class has not from its bases.
    @raise TypeError: when two methods have one number, or a procedure has a name that L{Program}
        itself uses.
    """
    own: dict[int, _Procedure] = {}
    for name, value in vars(cls).items():
        declaration = getattr(value, _MARK, None)
        if declaration is None:
            continue
        if name in vars(Program):
            raise TypeError(
                f"{cls.__name__}.{name}: a procedure cannot have the name of one of Program's own "
                "attributes; rename the method"
            )
        for number in declaration.numbers:
            if number in own:
                raise TypeError(
                    f"{cls.__name__}: procedure {number} is both {own[number].name} and {name}"
                )
            own[number] = _Procedure(name, declaration)
    return own


@implementer(ISession)
class _NoSession:
    """
    A session without procedures.
    """

    idle = True

    def opened(self, connection: object) -> None:
        """
        There is nothing to send.
        """

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        @raise KeyError: always: there are no procedures.
        """
        raise KeyError(procedure)

    def closed(self, reason: Exception) -> None:
        """
        There is nothing to release.
        """


@implementer(IBackend)
class ApplicationBackend:
    """
    Opens whatever name a client asks for, and adds no procedures to the remote program: for a
    server that serves only programs of its own.
    """

    features: frozenset[int] = frozenset()

    def knows(self, procedure: int) -> bool:
        """
        @return: C{False}.
        """
        return False

    def open(self, peer: Peer, request: OpenRequest) -> ISession:
        """
        @return: a session without procedures.
        """
        return _NoSession()
