"""
RPC programs: classes whose methods answer procedures.
"""

from __future__ import annotations

from collections.abc import Awaitable
from reprlib import repr as shortened
from typing import Any, ClassVar, Final, Self

import attrs
from zope.interface import implementer

from kaproto.interfaces import IProgram
from kaproto.program.procedures import MARK, RAW, Declaration
from kaproto.wire.programs import KEEPALIVE_PROGRAM, PROGRAM_VERSION
from kaproto.wire.structs import pack, unpack
from kaproto.wire.xdr import PackError

__all__ = ["Program"]

_PROGRAM_MAX: Final = 2**32 - 1


@attrs.frozen
class _Procedure:
    """
    A procedure of a L{Program} subclass.

    @ivar name: the name of the method that answers it.
    @ivar declaration: the types of its arguments and result.
    """

    name: str
    declaration: Declaration


@implementer(IProgram)
class Program:
    """
    A base class for programs: set L{number}, and decorate methods with L{procedure}.

    @cvar number: the program's number, different from those of the server's other programs and of
        libvirt's.
    @cvar version: its version.
    """

    number: ClassVar[int] = 0
    version: ClassVar[int] = PROGRAM_VERSION
    _procedures: ClassVar[dict[int, _Procedure]] = {}

    def __init_subclass__(cls) -> None:
        """
        Collect the procedures.

        @raise TypeError: when two methods have the same number, or a method's name or the number or
            version of the program is not allowed.
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
        @raise TypeError: when the result, returned or awaited, has a wrong type.  The message names
            the method.
        """
        entry = self._procedures[procedure]
        # Look up the class, since instances may have attributes with the method's name.
        method = getattr(type(self), entry.name)
        arguments = entry.declaration.arguments
        if arguments is RAW:
            result = method(self, connection, payload)
            if isinstance(result, bytes) and entry.declaration.result is RAW:
                return result
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
        if kind is RAW:
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
    @return: the procedures that a class defines itself.
    @raise TypeError: when two methods have the same number, or a procedure has a name that
        L{Program} itself uses.
    """
    own: dict[int, _Procedure] = {}
    for name, value in vars(cls).items():
        declaration = getattr(value, MARK, None)
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
