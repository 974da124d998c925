"""
What a server has seen: numbers, and a line in the log for each connection that ended otherwise
than in order.
"""

from __future__ import annotations

import attrs
from OpenSSL.SSL import Error as SSLError
from twisted.logger import Logger

from kaproto.errors import (
    AuthenticationFailed,
    DeadlineMissed,
    Displaced,
    KeepAliveTimeout,
    PeerFlooded,
    RemoteProtocolError,
)
from kaproto.peer import Peer
from kaproto.tls import explainTLS

__all__ = ["Counters"]


@attrs.define
class Counters:
    """
    What a server has seen since it started.

    @ivar accepted: connections accepted.
    @ivar opened: connections opened.
    @ivar refused: clients that the policy refused.
    @ivar remarked: clients that the policy admitted with a remark, such as that mode 2 would
        have refused them.
    @ivar dead: clients that keepalive found dead.
    @ivar flooded: clients that went over a budget.
    @ivar late: clients that missed a deadline.
    @ivar garbled: clients that broke the protocol in another way.
    @ivar unauthenticated: TLS clients that were not let in, and failures to log in.
    @ivar displaced: clients that had to go because there were too many.
    """

    accepted: int = 0
    opened: int = 0
    refused: int = 0
    remarked: int = 0
    dead: int = 0
    flooded: int = 0
    late: int = 0
    garbled: int = 0
    unauthenticated: int = 0
    displaced: int = 0

    def ended(self, peer: Peer, reason: Exception, journal: Logger) -> None:
        """
        Count a connection's end, and say why it ended, if that was not in order.

        @param peer: who was connected.
        @param reason: why it ended.
        @param journal: where to say it.
        """
        match reason:
            case Displaced():
                self.displaced += 1
                journal.warn("dropped {peer}: {reason}", peer=peer, reason=reason)
            case AuthenticationFailed():
                journal.warn("refused {peer}: {reason}", peer=peer, reason=reason)
            case SSLError():
                self.unauthenticated += 1
                why = explainTLS(reason)
                journal.warn("refused {peer}: TLS failed: {reason}", peer=peer, reason=why)
            case KeepAliveTimeout():
                self.dead += 1
                journal.warn("{peer} is dead: {reason}", peer=peer, reason=reason)
            case PeerFlooded():
                self.flooded += 1
                journal.warn("dropped {peer}: {reason}", peer=peer, reason=reason)
            case DeadlineMissed():
                self.late += 1
                journal.warn("dropped {peer}: {reason}", peer=peer, reason=reason)
            case RemoteProtocolError():
                self.garbled += 1
                journal.warn("dropped {peer}: it sent {reason}", peer=peer, reason=reason)
