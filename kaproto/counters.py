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
    KeepAliveTimeout,
    PeerFlooded,
    RemoteProtocolError,
    TooManyClients,
)
from kaproto.peer import Peer
from kaproto.security.tls import explainTLS

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
    @ivar unauthenticated: TLS clients that were not let in, and failures to log in.
    @ivar displaced: clients that had to go because there were too many.
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

    def ended(self, peer: Peer, reason: Exception, journal: Logger) -> None:
        """
        Count a connection's end, and say why it ended, if that was not in order.

        @param peer: who was connected.
        @param reason: why it ended.
        @param journal: where to say it.
        """
        match reason:
            case TooManyClients():
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
                self.deadlinesMissed += 1
                journal.warn("dropped {peer}: {reason}", peer=peer, reason=reason)
            case RemoteProtocolError():
                self.protocolErrors += 1
                journal.warn("dropped {peer}: it sent {reason}", peer=peer, reason=reason)
