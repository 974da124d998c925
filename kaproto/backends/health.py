"""
The health of libvirtd behind a gateway: the result of the last attempt to open or probe it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kaproto.waiting import Waiting

__all__ = ["Asking", "Health"]

_FRESH: Final = 10.0
"""
Seconds after a success for which the server counts as working.
"""

_PATIENCE: Final = 2.0
"""
Seconds that the server has to answer a probe.
"""

_SOON: Final = 0.05
_LATER: Final = 1.0


class Asking(Protocol):
    """
    A probe, see L{kaproto.backends.connections.Probe}.

    @ivar problem: the reason of its last failure.
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
    Tracks whether a server works.

    Each client that opens, or fails to, shows whether the server works.  But there may be no
    clients: a load balancer sends none to a gateway whose server is down, and at night there are
    few.  So when L{look} is called and the last success is more than 10 s old, the server is probed
    until it answers.
    """

    def __init__(self, clock: IReactorTime, ask: Callable[[], Asking]) -> None:
        """
        @param ask: starts a probe, which connects again and again until the server answers.
        """
        self._problem: str | None = None
        self._worked = -inf
        self._clock = clock
        self._ask = ask
        self._asking: Asking | None = None
        self._asked = 0.0
        self._timer: IDelayedCall | None = None
        self._waiting: Waiting[None] = Waiting()

    def failed(self, problem: str) -> None:
        """
        The server could not be opened.
        """
        self._problem = problem
        self._waiting.fire(None)

    def works(self) -> None:
        """
        The server was opened, or has refused with an error message.
        """
        self._problem = None
        self._worked = self._clock.seconds()
        self.close()

    def doubt(self) -> None:
        """
        A connection to the server was lost: disregard earlier successes.
        """
        self._worked = -inf

    def look(self) -> str | None:
        """
        Start a probe if the server is not known to work.

        @return: the server's problem, as far as it is known now; C{None} if there is none.
        """
        stale = self._clock.seconds() - self._worked > _FRESH
        if self._asking is None and (stale or self._problem is not None):
            self._asking = self._ask()
            self._asked = self._clock.seconds()
            self._lookAgain()
        return self._problem

    async def refresh(self) -> None:
        """
        Probe the server if its state is unknown, and wait for the answer.
        """
        self.look()
        if self._asking is not None and self._problem is None:
            await self._waiting.wait()

    def close(self) -> None:
        """
        Stop probing.
        """
        if self._asking is not None:
            self._asking.close()
            self._asking = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.fire(None)

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
