"""
Whether new clients can be served: what was wrong when libvirtd was last opened or asked.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Asking", "Health"]

_FRESH: Final = 10.0
"""
Seconds for which a server that worked is believed to work.
"""

_PATIENCE: Final = 2.0
"""
Seconds that a server has to answer, when it is asked.
"""

_SOON: Final = 0.05
_LATER: Final = 1.0


class Asking(Protocol):
    """
    A connection that asks whether the server is alive, see L{kaproto.backends.connections.Probe}.

    @ivar problem: why it could not be made or was lost, the last time.
    """

    problem: str | None

    @property
    def lastHeard(self) -> float:
        """
        When the server was last heard; C{-inf} if it was not.
        """

    def close(self) -> None:
        """
        Disconnect.
        """


class Health:
    """
    What is wrong with a server.

    Clients that open are the first to find out.  But none may come: a load balancer sends no
    clients to a gateway whose server is away, and at night there are none.  Therefore, when
    somebody looks and nothing was seen for some seconds, the server is asked, until it answers.
    """

    def __init__(self, clock: IReactorTime, ask: Callable[[], Asking]) -> None:
        """
        @param ask: connects to the server, again and again until it answers.
        """
        self._problem: str | None = None
        self._worked = -inf
        self._clock = clock
        self._ask = ask
        self._asking: Asking | None = None
        self._asked = 0.0
        self._timer: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    def failed(self, problem: str) -> None:
        """
        The server could not be opened.
        """
        self._problem = problem
        self._wake()

    def works(self) -> None:
        """
        The server was opened, or has refused in words.
        """
        self._problem = None
        self._worked = self._clock.seconds()
        self.close()

    def doubt(self) -> None:
        """
        A connection to the server was lost: that it worked before means nothing.
        """
        self._worked = -inf

    def look(self) -> str | None:
        """
        @return: what is wrong with the server, as far as is known now.
        """
        stale = self._clock.seconds() - self._worked > _FRESH
        if self._asking is None and (stale or self._problem is not None):
            self._asking = self._ask()
            self._asked = self._clock.seconds()
            self._lookAgain()
        return self._problem

    async def refresh(self) -> None:
        """
        Look, and wait for the server's answer if it is not known how it is.
        """
        self.look()
        if self._asking is not None and self._problem is None:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    def close(self) -> None:
        """
        Ask no more.
        """
        if self._asking is not None:
            self._asking.close()
            self._asking = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _lookAgain(self) -> None:
        delay = _SOON if self._problem is None else _LATER
        self._timer = self._clock.callLater(delay, self._hasAnswered)

    def _hasAnswered(self) -> None:
        self._timer = None
        assert self._asking is not None, "close() cancels the timer"
        if self._asking.lastHeard > -inf:
            self.works()
            return
        if self._problem is None:
            if self._asking.problem is not None:
                self.failed(f"unable to connect to libvirtd: {self._asking.problem}")
            elif self._clock.seconds() - self._asked >= _PATIENCE:
                self.failed(f"libvirtd did not answer within {_PATIENCE:g} s")
        self._lookAgain()
