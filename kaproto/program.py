"""
An application's own RPC program, and the backend for a server that has nothing else to open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

from zope.interface import implementer

from kaproto.interfaces import IBackend, IProgram, ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.wire.programs import PROGRAM_VERSION, ErrorCode, ErrorDomain
from kaproto.wire.xdr import Packer, Unpacker, XDRError

__all__ = [
    "ApplicationBackend",
    "ErrorCode",
    "ErrorDomain",
    "Packer",
    "Program",
    "Unpacker",
    "XDRError",
    "procedure",
]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def procedure(*numbers: int) -> Callable[[_Method], _Method]:
    """
    Make a method of a L{Program} answer a procedure.  It is called with the connection and the
    payload in XDR and returns the result in XDR, now or later.

    @param numbers: the procedure's number, 1 or more; several if it answers several.
    """

    def mark(method: _Method) -> _Method:
        method.kaprotoProcedures = numbers  # type: ignore[attr-defined]
        return method

    return mark


@implementer(IProgram)
class Program:
    """
    A program to subclass: set L{number}, and decorate methods with L{procedure}.
    """

    number: ClassVar[int] = 0
    version: ClassVar[int] = PROGRAM_VERSION
    _methods: ClassVar[dict[int, str]] = {}

    def __init_subclass__(cls) -> None:
        """
        Collect the procedures.

        @raise TypeError: when two methods claim one number.
        """
        super().__init_subclass__()
        methods: dict[int, str] = {}
        for base in reversed(cls.__mro__):
            own: dict[int, str] = {}
            for name, value in vars(base).items():
                numbers = getattr(value, "kaprotoProcedures", None)
                if numbers is None:
                    continue
                methods = {number: each for number, each in methods.items() if each != name}
                for number in numbers:
                    if number in own:
                        raise TypeError(
                            f"{base.__name__}: procedure {number} is both {own[number]} and {name}"
                        )
                    own[number] = name
            methods |= own
        cls._methods = methods

    def knows(self, procedure: int) -> bool:
        """
        See L{IProgram.knows}.
        """
        return procedure in self._methods

    def callReceived(
        self, connection: Any, procedure: int, payload: bytes
    ) -> bytes | Awaitable[bytes]:
        """
        See L{IProgram.callReceived}.
        """
        method = getattr(self, self._methods[procedure])
        result: bytes | Awaitable[bytes] = method(connection, payload)
        return result


@implementer(ISession)
class _Nothing:
    idle = True

    def opened(self, connection: object) -> None:
        """
        Nothing is to be done.
        """

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        @raise KeyError: always: there are no procedures.
        """
        raise KeyError(procedure)

    def closed(self, reason: Exception) -> None:
        """
        Nothing was held.
        """


@implementer(IBackend)
class ApplicationBackend:
    """
    Opens whatever name is asked for and has no procedures in the remote program: for a server
    that serves only programs of its own.
    """

    features: frozenset[int] = frozenset()

    def knows(self, procedure: int) -> bool:
        """
        @return: C{False}.
        """
        return False

    def open(self, peer: Peer, request: OpenRequest) -> ISession:
        """
        See L{IBackend.open}.
        """
        return _Nothing()
