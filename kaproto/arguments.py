"""
Checks the types of arguments that an application passes to a constructor.
"""

from __future__ import annotations

from typing import Any

from zope.interface import Interface

__all__ = ["checkInstance", "checkType"]


def checkType(name: str, value: object, kind: type[Any]) -> None:
    """
    Check that an argument is an instance of a class.

    @param name: the argument's name.
    @param kind: the required class.
    @raise TypeError: when it is not an instance; the message says what to write instead.
    """
    _checkNoClass(name, value)
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} is {value!r}, which is not an instance of {kind.__name__}{_hint(value, kind)}"
        )


def checkInstance(name: str, value: object, interface: type[Interface], hint: str = "") -> None:
    """
    Check that an argument provides an interface.

    @param name: the argument's name.
    @param interface: the required interface.
    @param hint: what to pass instead, for the message.
    @raise TypeError: when it does not provide the interface; the message says what to write
        instead.
    """
    _checkNoClass(name, value)
    if not interface.providedBy(value):
        hint = hint and f"; {hint}"
        raise TypeError(f"{name} is {value!r}, which does not provide {interface.__name__}{hint}")


def _checkNoClass(name: str, value: object) -> None:
    if isinstance(value, type):
        kind = value.__qualname__
        raise TypeError(f"{name} is the class {kind}, not an instance: write {kind}()")


def _hint(value: object, kind: type[Any]) -> str:
    """
    @return: the call of the constructor, if the value looks like its arguments: for C{(5, 5)}
        in place of a C{KeepAlive}, C{": write KeepAlive(5, 5)"}.  Otherwise empty.
    """
    if isinstance(value, tuple | list):
        return f": write {kind.__name__}({', '.join(map(repr, value))})"
    if isinstance(value, dict):
        keywords = ", ".join(f"{key}={each!r}" for key, each in value.items())
        return f": write {kind.__name__}({keywords})"
    return ""
