"""
Runs long computations, such as hashing a password 600,000 times, off the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

from twisted.internet.defer import Deferred, DeferredSemaphore, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

__all__ = ["THREADS", "offReactor"]

_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")

THREADS: Final = 2
"""
How many functions run at once, in the reactor's thread pool.  The rest of the pool is left for
DNS look-ups.
"""

_threads: Final = DeferredSemaphore(THREADS)
_strangers: Final = DeferredSemaphore(THREADS - 1)
"""
How many of them may be for unknown users.  One thread stays free for known users: if hashing a
password takes half a second, a known user waits half a second at most.
"""


def offReactor(
    function: Callable[[*_Ts], _T], *arguments: *_Ts, stranger: bool = False
) -> Deferred[_T]:
    """
    Call a function in a thread, first come first served.  Without a running reactor, call it at
    once in this thread.

    @param stranger: whether this is for an unknown user, who may be guessing passwords.
    @return: fires with the result, or fails with the exception that the function raised.  If it is
        cancelled before a thread is free, the function is not called.
    """
    from twisted.internet import reactor

    if not reactor.running:
        return maybeDeferred(function, *arguments)

    begun = False

    def begin() -> Deferred[_T]:
        nonlocal begun
        begun = True
        return deferToThread(function, *arguments)

    def cancel(_result: object) -> None:
        # A thread cannot be cancelled, so it counts until it ends, even if its result is unwanted.
        if not begun:
            turn.cancel()

    def deliver(outcome: _T | Failure) -> None:
        if not result.called:
            result.callback(outcome)

    result: Deferred[_T] = Deferred(cancel)
    turn = _strangers.run(_threads.run, begin) if stranger else _threads.run(begin)
    turn.addBoth(deliver)
    return result
