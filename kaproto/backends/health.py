"""
Whether new clients can be served: what was wrong when libvirtd was last opened.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Asking", "Health"]

_INTERVAL: Final = 1.0


class Asking(Protocol):
    """
    A connection that asks whether the server is alive, see L{kaproto.backends.connections.Probe}.
    """

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

    A load balancer sends no clients to a gateway whose server is away, so no client would find out
    that it is back.  Therefore, once somebody has looked, the server is asked until it answers.
    """

    def __init__(self, clock: IReactorTime, ask: Callable[[], Asking]) -> None:
        """
        @param ask: connects to the server, again and again until it answers.
        """
        self._problem: str | None = None
        self._clock = clock
        self._ask = ask
        self._asking: Asking | None = None
        self._timer: IDelayedCall | None = None

    def failed(self, problem: str) -> None:
        """
        The server could not be opened.
        """
        self._problem = problem

    def works(self) -> None:
        """
        The server was opened, or has refused in words.
        """
        self._problem = None
        self.close()

    def look(self) -> str | None:
        """
        @return: why the latest client could not be served, if the server has not answered since.
        """
        if self._problem is not None and self._asking is None:
            self._asking = self._ask()
            self._lookLater()
        return self._problem

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

    def _lookLater(self) -> None:
        self._timer = self._clock.callLater(_INTERVAL, self._hasAnswered)

    def _hasAnswered(self) -> None:
        self._timer = None
        if self._asking is not None and self._asking.lastHeard > -inf:
            self.works()
        else:
            self._lookLater()
