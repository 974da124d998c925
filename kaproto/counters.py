"""
What a server has seen, in numbers.
"""

from __future__ import annotations

import attrs

__all__ = ["Counters"]


@attrs.define
class Counters:
    """
    What a server has seen since it started.

    @ivar accepted: connections accepted.
    @ivar opened: connections opened.
    @ivar refused: clients that the policy refused.
    @ivar warned: clients that the policy admitted with a warning, such as that mode 2 would
        have refused them.
    @ivar dead: clients that keepalive found dead.
    @ivar flooded: clients that went over a budget.
    @ivar deadlinesMissed: clients that missed a deadline.
    @ivar protocolErrors: clients that broke the protocol in another way.
    @ivar unauthenticated: TLS clients that were not accepted, and failed logins.
    @ivar displaced: clients dropped because there were too many.
    """

    accepted: int = 0
    opened: int = 0
    refused: int = 0
    warned: int = 0
    dead: int = 0
    flooded: int = 0
    deadlinesMissed: int = 0
    protocolErrors: int = 0
    unauthenticated: int = 0
    displaced: int = 0
