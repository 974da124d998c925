"""
What a soak is to do, and what it has found.
"""

from __future__ import annotations

from typing import Final

import attrs

from tests.harness.soak.judge import Tally

__all__ = ["PER_SECOND", "SETTLE", "Plan", "Result"]

PER_SECOND: Final = 500
"""
How many clients come in a second.
"""

SETTLE: Final = 15.0
"""
The most seconds after which nothing is left of clients that have gone.
"""


@attrs.frozen
class Plan:
    """
    What to do.

    @ivar clients: how many there are at any time.
    @ivar seconds: for how long, from when all have opened.
    @ivar interval: seconds of silence before the server pings.
    @ivar count: pings unanswered before a client is dead.
    @ivar tolerance: seconds by which a death may be found late.
    @ivar stallEvery: seconds after which the server is stopped for one and a half times as long
        as a client may be silent; 0 for never.
    @ivar behindGateway: whether the server is a gateway in front of a libvirtd, and the clients
        those of L{tests.harness.soak.gateway}.
    @ivar mutant: the defect that the server has, if any.
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
        Seconds that all of it may take.
        """
        death = self.interval * (self.count + 1)
        return self.seconds + 4 * self.clients / PER_SECOND + 10 * death + 4 * SETTLE


@attrs.frozen
class Result:
    """
    What was found.

    @ivar verdicts: how often each verdict was given.
    @ivar connections: how many clients there have been.
    @ivar calls: how many calls they have made.
    @ivar problems: what was wrong, in words; nothing if all was right.
    """

    verdicts: Tally
    connections: int
    calls: int
    problems: list[str]
