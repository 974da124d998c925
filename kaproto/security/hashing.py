"""
Runs what takes long to compute, such as hashing a password 600,000 times, off the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

__all__ = ["THREADS", "offReactor"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

THREADS: Final = 2
"""
How many functions run at once, in the reactor's own thread pool.  The rest of the pool is left to
those who look up names in the DNS.
"""

_slots: Final = DeferredSemaphore(THREADS)


def offReactor(
    function: Callable[_P, _T], *arguments: _P.args, **keywords: _P.kwargs
) -> Deferred[_T]:
    """
    Call a function in a thread, in its turn.  Without a running reactor there is nobody to hold
    up, and it is called at once.

    @return: fires with the result, or fails with what the function raised.  When cancelled before
        its turn, the function is not called.
    """
    from twisted.internet import reactor

    if not reactor.running:
        return maybeDeferred(function, *arguments, **keywords)

    def start(_slot: object) -> Deferred[_T]:
        result: Deferred[_T] = Deferred()
        running = deferToThread(function, *arguments, **keywords)
        # A thread cannot be cancelled: it has its slot until it ends, whoever still waits for it.
        running.addBoth(release, result)
        return result

    def release(outcome: _T | Failure, result: Deferred[_T]) -> None:
        _slots.release()
        result.callback(outcome)

    return _slots.acquire().addCallback(start)
