"""
Those who wait for one thing, each with a Deferred of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

__all__ = ["Waiting"]

_T = TypeVar("_T")


class Waiting(Generic[_T]):
    """
    Hands out Deferreds, and fires them all.  Who cancels one waits no longer.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Deferred[_T]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[_T]:
        """
        @return: fires when L{fire} is called next, fails when L{fail} is.
        """
        waiting: Deferred[_T] = Deferred(self._forget)
        self._waiting.append(waiting)
        return waiting

    def _forget(self, waiting: Deferred[_T]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def fire(self, result: _T) -> None:
        """
        It has happened.
        """
        for each in self._take():
            each.callback(result)

    def fail(self, reason: Exception) -> None:
        """
        It will not happen.
        """
        for each in self._take():
            each.errback(reason)

    def _take(self) -> Iterator[Deferred[_T]]:
        waiting, self._waiting = self._waiting, []
        # One that is told may cancel another.
        return (each for each in waiting if not each.called)
