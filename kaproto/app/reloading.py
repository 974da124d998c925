"""
Reads files again while the server runs: certificates, rules, the list of those who may log in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from twisted.logger import Logger

__all__ = ["Reloadable", "Reloader"]


@runtime_checkable
class Reloadable(Protocol):
    """
    Something that was read from a file.  The log calls it by its C{str}, if its class has one.
    """

    def reload(self) -> None:
        """
        Read it again, or raise an exception and leave what was read before in use.
        """


class Reloader:
    """
    What can be read again.
    """

    _log = Logger()

    def __init__(self, candidates: Iterable[object]) -> None:
        """
        @param candidates: those of them that are L{Reloadable} are read again.
        """
        self._items = [each for each in candidates if isinstance(each, Reloadable)]

    def reload(self) -> list[str]:
        """
        Read everything again.  What cannot be read stays in use as it was, and keeps nothing else
        from being read.

        @return: what is wrong with what could not be read.
        """
        problems: list[str] = []
        if not self._items:
            self._log.info("nothing to reload: no setting names a file that can be read again")
        for each in self._items:
            what = _nameOf(each)
            try:
                each.reload()
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are read
                problem = str(error) or type(error).__name__
                self._log.error(
                    "could not reload {what}, keeping the previous version: {error}",
                    what=what,
                    error=problem,
                )
                problems.append(problem)
            else:
                self._log.info("reloaded {what}", what=what)
        return problems


def _nameOf(item: object) -> str:
    kind = type(item)
    return kind.__name__ if kind.__str__ is object.__str__ else str(item)
