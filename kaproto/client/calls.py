"""
Declares procedures of the server as data.

A class attribute that is a L{Call} acts as a method that calls the procedure::

    class Connection(...):
        hostname = Call(59, Nothing, str)
        libVersion = Call(157, Nothing, Version)

Then C{await connection.hostname()} is a C{str}, and type checkers know that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

import attrs
from twisted.internet.defer import Deferred

from kaproto.wire import domains as wire
from kaproto.wire.structs import UHyper

__all__ = ["Call", "DomainCall", "Nothing", "Performs", "Version", "nothingElse"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


@attrs.frozen
class Nothing:
    """
    No arguments.
    """


@attrs.frozen
class Version:
    """
    A version, numbered as libvirt does: 9002001 is 9.2.1.
    """

    number: UHyper

    def __str__(self) -> str:
        major, rest = divmod(self.number, 1_000_000)
        minor, release = divmod(rest, 1000)
        return f"{major}.{minor}.{release}"


def nothingElse(domain: wire.Domain) -> wire.Domain:
    """
    The arguments of a procedure that takes only a domain.
    """
    return domain


class Performs(Protocol):
    """
    Calls procedures, as a L{Connection<kaproto.client.Connection>} does.
    """

    def perform(self, call: Call[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_R]:
        """
        Call a procedure.
        """


class _HasConnection(Protocol):
    @property
    def connection(self) -> Performs:
        """
        The connection on which to call the procedure.
        """

    @property
    def identity(self) -> wire.Domain:
        """
        The domain that is the first argument.
        """


@attrs.frozen
class Call(Generic[_P, _R]):
    """
    A procedure of the remote program.

    @ivar procedure: its number, from C{remote_protocol.x}.
    @ivar arguments: converts the method's arguments to the procedure's: an attrs class that
        L{kaproto.wire.structs} can pack, or a function.
    @ivar result: the class of the result, which L{kaproto.wire.structs} can unpack;
        C{types.NoneType} for a procedure without one.
    """

    procedure: int
    arguments: Callable[_P, object]
    result: type[_R]

    @overload
    def __get__(self, instance: None, owner: type) -> Call[_P, _R]: ...

    @overload
    def __get__(self, instance: Performs, owner: type) -> Callable[_P, Deferred[_R]]: ...

    def __get__(self, instance: Performs | None, owner: type) -> object:
        """
        @return: the method of a connection.
        """
        return self if instance is None else partial(instance.perform, self)


@attrs.frozen
class DomainCall(Generic[_P, _R]):
    """
    A procedure of the remote program whose first argument is a domain.  It acts as a method of the
    domain.

    @ivar procedure: its number, from C{remote_protocol.x}.
    @ivar arguments: as in L{Call}; called with the domain and the method's arguments.
    @ivar result: as in L{Call}.
    """

    procedure: int
    arguments: Callable[Concatenate[wire.Domain, _P], object]
    result: type[_R]

    @overload
    def __get__(self, instance: None, owner: type) -> DomainCall[_P, _R]: ...

    @overload
    def __get__(self, instance: _HasConnection, owner: type) -> Callable[_P, Deferred[_R]]: ...

    def __get__(self, instance: _HasConnection | None, owner: type) -> object:
        """
        @return: the method of a domain.
        """
        if instance is None:
            return self
        call = Call(self.procedure, self.arguments, self.result)
        return partial(instance.connection.perform, call, instance.identity)
