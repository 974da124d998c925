"""
The parameters of a soak, and its result.
"""

from __future__ import annotations

from typing import Final

import attrs

from tests.harness.soak.judge import Tally

__all__ = ["PER_SECOND", "SETTLE", "Plan", "Result"]

PER_SECOND: Final = 500
"""
How many clients connect per second.
"""

SETTLE: Final = 15.0
"""
The most seconds after which nothing may be left of clients that have gone.
"""


@attrs.frozen
class Plan:
    """
    The parameters.

    @ivar clients: the number of clients at any time.
    @ivar seconds: how long the soak runs once all have opened.
    @ivar interval: seconds of silence before the server pings.
    @ivar count: unanswered pings before a client is dead.
    @ivar tolerance: seconds by which a death may be found late.
    @ivar stallEvery: seconds between two stalls, in which the server is stopped for one and a half
        times its timeout; 0 for none.
    @ivar behindGateway: whether the server is a gateway in front of a libvirtd, with the clients of
        L{tests.harness.soak.gateway}.
    @ivar mutant: the name of the server's defect, C{""} for none.
    @ivar reportEvery: seconds between two reports.
    """

    clients: int
    seconds: float
    interval: float = 2
    count: int = 2
    tolerance: float = 0.3
    stallEvery: float = 0
    behindGateway: bool = False
    mutant: str = ""
    reportEvery: float = 60

    @property
    def bound(self) -> float:
        """
        The most seconds that the soak may take.
        """
        death = self.interval * (self.count + 1)
        return self.seconds + 4 * self.clients / PER_SECOND + 10 * death + 4 * SETTLE


@attrs.frozen
class Result:
    """
    The result.

    @ivar verdicts: how often each verdict was given.
    @ivar connections: the number of clients so far.
    @ivar calls: the number of calls they made.
    @ivar problems: descriptions of what was wrong; empty if nothing was.
    """

    verdicts: Tally
    connections: int
    calls: int
    problems: list[str]
