"""
The queue in which logins wait until their password may be checked.  L{kaproto.security.guessing}
decides how long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import Attribute, Interface, implementer

from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.security.guessing import GuessLimit
from kaproto.security.loginbooks import WINDOW, Books
from kaproto.security.suspects import Attempt

__all__ = ["ILoginQueue", "ITurn", "LoginQueue"]


class ITurn(Interface):
    """
    One login, while its password is checked.  Call one of L{succeeded}, L{failed} and L{forget} at
    its end; later calls have no effect.
    """

    known: bool = Attribute("Whether the user has logged in from the same network within a day.")

    def answered() -> None:
        """
        The server has replied, and waits for the client's next message.
        """

    def succeeded() -> None:
        """
        The password was right.
        """

    def failed() -> None:
        """
        The password was wrong, or the client disconnected before it was checked.
        """

    def forget() -> None:
        """
        The password could not be checked, through no fault of the client.
        """


class ILoginQueue(Interface):
    """
    Decides when each login may be checked.  The arguments are plain strings, so that one process
    can decide for several.
    """

    def enter(network: str, user: str) -> Deferred[ITurn]:
        """
        Queue a login.

        @param network: the client's network, see L{kaproto.peer.Peer.network}.
        @param user: the user name given.
        @return: fires when the password may be checked.  Cancel it if the client disconnects first.
        """


_RETRY: Final = 0.02
"""
Seconds between two attempts to acquire the lock of the books, while a process that was stopped
holds it.  Until that process continues or ends, all logins wait, but nothing else does.
"""


@implementer(ILoginQueue)
class LoginQueue:
    """
    A queue for the clients of one process.

    @ivar limit: decides when each login may be checked.
    """

    _log = Logger(observer=BOUNDS)

    def __init__(
        self, clock: IReactorTime, limits: Callable[[], Limits], books: Books | None = None
    ) -> None:
        """
        @param clock: a monotonic clock.
        @param limits: returns the current limits of the server.
        @param books: the records of logins, which several processes may share.
        """
        self._clock = clock
        self._limits = limits
        self._books = Books() if books is None else books
        self.limit = GuessLimit(books=self._books)
        self._steps: deque[Callable[[float], object]] = deque()
        self._waiting: dict[Attempt, _Turn] = {}
        self._ready: list[_Turn] = []
        self._call: IDelayedCall | None = None
        self._isWorking = False

    def enter(self, network: str, user: str) -> Deferred[ITurn]:
        """
        Queue a login, and grant it as soon as L{limit} permits.
        """
        turn = _Turn(self)
        self.happens(lambda now: self._enter(turn, network, user, now))
        return turn.granted

    def _enter(self, turn: _Turn, network: str, user: str, now: float) -> None:
        if turn.left:
            return
        limits = self._limits()
        self.limit.guesses, self.limit.delay = limits.loginGuesses, limits.failureDelay
        turn.attempt = attempt = self.limit.enter(network, user, now)
        if attempt.granted:
            self._ready.append(turn)
        else:
            self._waiting[attempt] = turn
        for what in attempt.held:
            self._log.warn(
                "{what}: {guesses} logins failed within {window:g} s (--auth-guesses); more are "
                "checked one by one, {delay:g} s apart (--auth-delay)",
                what=what,
                guesses=limits.loginGuesses,
                window=WINDOW,
                delay=limits.failureDelay,
            )

    def happens(self, step: Callable[[float], object]) -> None:
        """
        Run one step of a login, then grant the logins whose turn it is.

        @param step: called with the time, while this process holds the lock of the books.
        """
        self._steps.append(step)
        self._work()

    def ended(self, attempt: Attempt) -> None:
        """
        Forget a login that no longer waits.
        """
        self._waiting.pop(attempt, None)

    def _work(self) -> None:
        # The callback of a granted login may call this method again.
        if self._isWorking:
            return
        self._isWorking = True
        try:
            while (self._steps or self._delay() == 0) and self._books.lock.acquire():
                try:
                    self._step(self._clock.seconds())
                finally:
                    self._books.lock.release()
                ready, self._ready = self._ready, []
                for each in ready:
                    each.fire()
        finally:
            self._isWorking = False
        if self._call is not None and self._call.active():
            self._call.cancel()
        delay = _RETRY if self._steps else self._delay()
        self._call = None if delay is None else self._clock.callLater(delay or _RETRY, self._work)

    def _step(self, now: float) -> None:
        while self._steps:
            self._steps.popleft()(now)
        self._ready += [self._waiting.pop(each) for each in self.limit.turns(now)]

    def _delay(self) -> float | None:
        """
        @return: seconds until the next turn; C{None} if no login waits.
        """
        due = self.limit.nextTurn
        return None if due is None else max(0, due - self._clock.seconds())


@implementer(ITurn)
class _Turn:
    """
    A login that has entered a L{LoginQueue}.

    @ivar attempt: the login, once it has entered the queue.
    @ivar granted: fires when the password may be checked.
    @ivar left: whether the client disconnected before that.
    """

    def __init__(self, queue: LoginQueue) -> None:
        self._queue = queue
        self.attempt: Attempt | None = None
        self.granted: Deferred[ITurn] = Deferred(self._leave)
        self.left = False

    @property
    def known(self) -> bool:
        """
        Whether the user has logged in from the same network within a day.
        """
        return self.attempt is not None and self.attempt.known

    def _leave(self, _granted: object) -> None:
        self.left = True
        self.failed()

    def fire(self) -> None:
        """
        The password may be checked.
        """
        if not self.left:
            self.granted.callback(self)

    def _happens(self, what: Callable[[Attempt, float], None]) -> None:
        def step(now: float) -> None:
            if self.attempt is not None:
                what(self.attempt, now)
                self._queue.ended(self.attempt)

        self._queue.happens(step)

    def answered(self) -> None:
        """
        Let the next login through, if it waits for the reply to this one.
        """
        self._happens(self._queue.limit.answered)

    def succeeded(self) -> None:
        """
        Remember this user at this network.
        """
        self._happens(self._queue.limit.succeeded)

    def failed(self) -> None:
        """
        Count the failure.
        """
        self._happens(self._queue.limit.failed)

    def forget(self) -> None:
        """
        Count nothing.
        """
        self._happens(self._queue.limit.forget)
