"""
Counts a server's connections, by how they ended.
"""

from __future__ import annotations

import attrs

__all__ = ["Counters"]


@attrs.define
class Counters:
    """
    Counts since the server started.

    @ivar accepted: connections accepted.
    @ivar opened: connections opened.
    @ivar refused: clients that the policy refused.
    @ivar warned: clients that the policy admitted with a warning, for example because mode 2
        would have refused them.
    @ivar dead: clients that keepalive found dead.
    @ivar flooded: clients dropped because they exceeded a limit, such as pings per second.
    @ivar deadlinesMissed: clients dropped because they missed a deadline.
    @ivar protocolErrors: clients dropped for any other violation of the protocol.
    @ivar unauthenticated: failed logins, and TLS clients whose certificate was not accepted.
    @ivar displaced: clients refused or dropped because there were too many.
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
