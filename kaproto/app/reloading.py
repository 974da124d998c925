"""
Reloads files while the server runs: certificates, rules, users.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from twisted.logger import Logger

__all__ = ["Reloadable", "Reloader"]


@runtime_checkable
class Reloadable(Protocol):
    """
    An object that was read from a file.  Its C{str} names it in the log, if its class defines one.
    """

    def reload(self) -> None:
        """
        Read the file again, or raise an exception and keep the previous contents.
        """


class Reloader:
    """
    Reloads all objects that were read from files.
    """

    _log = Logger()

    def __init__(self, candidates: Iterable[object]) -> None:
        """
        @param candidates: any objects; only the L{Reloadable} ones are reloaded.
        """
        self._items = [each for each in candidates if isinstance(each, Reloadable)]

    def reload(self) -> list[str]:
        """
        Reload everything.  If one object cannot be reloaded, it keeps its previous contents, and
        the others are reloaded.

        @return: an error message for each object that could not be reloaded.
        """
        problems: list[str] = []
        if not self._items:
            self._log.info("nothing to reload: no setting names a file that can be read again")
        for each in self._items:
            what = _nameOf(each)
            try:
                each.reload()
            except Exception as error:  # noqa: BLE001 - reload the others after any error
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
