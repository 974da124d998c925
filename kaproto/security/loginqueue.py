"""
The queue in which logins wait until their password may be checked.  L{kaproto.security.guessing}
decides how long.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import Attribute, Interface, implementer

from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.security.guessing import GuessLimit
from kaproto.security.suspects import WINDOW, Attempt

__all__ = ["ILoginQueue", "ITurn", "LoginQueue"]


class ITurn(Interface):
    """
    One login, while its password is checked.  Call one of L{succeeded}, L{failed} and L{forget} at
    its end; calls after that do nothing.
    """

    known: bool = Attribute("Whether the user has logged in from the same network within a day.")

    def answered() -> None:
        """
        The server has replied, and waits for the client to go on.
        """

    def succeeded() -> None:
        """
        The password was right.
        """

    def failed() -> None:
        """
        The password was wrong, or the client left before it was checked.
        """

    def forget() -> None:
        """
        The password could not be checked, and the client is not to blame.
        """


class ILoginQueue(Interface):
    """
    Decides when each login may be checked.  The arguments are plain strings, so that one process
    can decide for several.
    """

    def enter(network: str, user: str) -> Deferred[ITurn]:
        """
        Somebody wants to log in.

        @param network: the client's network, see L{kaproto.peer.Peer.network}.
        @param user: the user name given.
        @return: fires when the password may be checked.  Cancel it if the client leaves earlier.
        """


@implementer(ILoginQueue)
class LoginQueue:
    """
    A queue for the clients of one process.
    """

    _log = Logger(observer=BOUNDS)

    def __init__(self, clock: IReactorTime, limits: Callable[[], Limits]) -> None:
        """
        @param clock: a monotonic clock.
        @param limits: returns the current limits of the server.
        """
        self._clock = clock
        self._limits = limits
        self._limit = GuessLimit()
        self._waiting: dict[Attempt, tuple[Deferred[ITurn], _Turn]] = {}
        self._call: IDelayedCall | None = None
        self._letting = False

    def enter(self, network: str, user: str) -> Deferred[ITurn]:
        """
        Somebody wants to log in.
        """
        limits = self._limits()
        self._limit.guesses, self._limit.delay = limits.loginGuesses, limits.failureDelay
        attempt = self._limit.enter(network, user, self._clock.seconds())
        for what in attempt.held:
            self._log.warn(
                "{what}: {guesses} logins failed within {window:g} s (--auth-guesses); the next "
                "wait until one after another is checked, {delay:g} s apart (--auth-delay)",
                what=what,
                guesses=limits.loginGuesses,
                window=WINDOW,
                delay=limits.failureDelay,
            )
        turn = _Turn(self, attempt)
        if attempt.granted:
            return succeed(turn)
        waiting: Deferred[ITurn] = Deferred(lambda _: turn.failed())
        self._waiting[attempt] = waiting, turn
        self._next()
        return waiting

    def happened(self, what: Callable[[Attempt, float], None], attempt: Attempt) -> None:
        """
        Something happened to a login: see whose turn it is now.
        """
        what(attempt, self._clock.seconds())
        if not attempt.granted:
            del self._waiting[attempt]
        self._next()

    def _next(self) -> None:
        # A callback of one login's turn may call this again.
        if self._letting:
            return
        self._letting = True
        while granted := self._limit.turns(now := self._clock.seconds()):
            for attempt in granted:
                waiting, turn = self._waiting.pop(attempt)
                waiting.callback(turn)
        self._letting = False
        if self._call is not None and self._call.active():
            self._call.cancel()
        due = self._limit.nextTurn
        self._call = None if due is None else self._clock.callLater(max(0, due - now), self._next)


@implementer(ITurn)
class _Turn:
    """
    A login that has entered a L{LoginQueue}.
    """

    def __init__(self, queue: LoginQueue, attempt: Attempt) -> None:
        self._queue = queue
        self._attempt = attempt
        self.known = attempt.known

    def answered(self) -> None:
        """
        Let the next login through, if it waits for this one.
        """
        self._queue.happened(self._queue._limit.answered, self._attempt)

    def succeeded(self) -> None:
        """
        Remember this user at this network.
        """
        self._queue.happened(self._queue._limit.succeeded, self._attempt)

    def failed(self) -> None:
        """
        Count the failure.
        """
        self._queue.happened(self._queue._limit.failed, self._attempt)

    def forget(self) -> None:
        """
        Count nothing.
        """
        self._queue.happened(self._queue._limit.forget, self._attempt)
