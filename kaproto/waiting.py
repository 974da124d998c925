"""
Lets several callers wait for the same result, each with its own Deferred.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

__all__ = ["Waiting"]

_T = TypeVar("_T")


class Waiting(Generic[_T]):
    """
    Hands out Deferreds, and fires all that were not cancelled.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Deferred[_T]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[_T]:
        """
        @return: fires at the next call of L{fire}, and fails at the next call of L{fail}.
        """
        waiting: Deferred[_T] = Deferred(self._forget)
        self._waiting.append(waiting)
        return waiting

    def _forget(self, waiting: Deferred[_T]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def fire(self, result: _T) -> None:
        """
        Fire all Deferreds with this result.
        """
        for each in self._take():
            each.callback(result)

    def fail(self, reason: Exception) -> None:
        """
        Fail all Deferreds with this reason.
        """
        for each in self._take():
            each.errback(reason)

    def _take(self) -> Iterator[Deferred[_T]]:
        waiting, self._waiting = self._waiting, []
        # A callback may cancel another Deferred.
        return (each for each in waiting if not each.called)
