"""
All limits of a connection, with their defaults: resources that a peer may use, and deadlines that
it must meet.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

__all__ = ["CLIENT_LIMITS", "Limits"]

_ZERO_ALLOWED: Final = frozenset({"maxClients", "maxAnonymousClients", "failureDelay"})


@attrs.frozen
class Limits:
    """
    The limits of a server or a client.

    A factory has an instance as C{limits}, and looks up each limit when it applies it.  To change
    limits while a server runs, replace the instance::

        factory.limits = attrs.evolve(factory.limits, maxClients=200)

    Times are in seconds, sizes in bytes.

    @ivar maxClients: connections at a time; 0 for any number.
    @ivar maxAnonymousClients: connections at a time that have not finished the TLS handshake or
        have not logged in; 0 for any number.
    @ivar handshakeTimeout: the time a client has for the TLS handshake.
    @ivar loginTimeout: the time a client has to log in, enough to type a password.
    @ivar loginTries: how often a connection may fail to log in.
    @ivar loginGuesses: after this many failed logins within a minute from one network, or by one
        user name, further logins are checked one by one, C{failureDelay} apart.  Users who have
        logged in from the same network within a day do not wait.
    @ivar failureDelay: the time from a failed login to the reply.  It is the same for all failures,
        so that it does not reveal the cause.
    @ivar openTimeout: the time a client has to open, after it has connected or logged in.
    @ivar unreadTimeout: the time for which a client may call without reading its replies.
    @ivar stuckTimeout: the time after which a relay is closed if neither side reads.  Keepalive
        cannot detect that, because reading from both is paused.
    @ivar closeTimeout: the time the peer has to read the last messages when this end closes.
    @ivar pingBudget: pings per second that a peer may send, and ten times as many in a burst after
        a pause.
    @ivar unreadPongs: pongs a peer may leave unread.
    @ivar runningCalls: calls of one connection that run at once.
    @ivar waitingCalls: calls that may wait to run; while there are more, the connection is not
        read.
    @ivar waitingBytes: the total size of calls that may wait to run.
    @ivar relayedCalls: calls of a relayed connection that are recorded, to be answered with an
        error if the server behind the relay is lost.
    @ivar relayedStreams: open streams of a relayed connection that are tracked individually.  If
        there are more, some count as open until the connection ends.
    @ivar waitingAnswers: replies of the relay itself that may wait until a relayed message has been
        sent in full.
    @ivar messageBeforeLogin: the largest message before the client has logged in, enough for a SASL
        exchange.
    @ivar messageBeforeOpen: the largest message before the client has opened, enough for a URI.
    """

    maxClients: int = 0
    maxAnonymousClients: int = 1024
    handshakeTimeout: float = 10.0
    loginTimeout: float = 60.0
    loginTries: int = 3
    loginGuesses: int = 10
    failureDelay: float = 1.0
    openTimeout: float = 10.0
    unreadTimeout: float = 60.0
    stuckTimeout: float = 60.0
    closeTimeout: float = 5.0
    pingBudget: int = 100
    unreadPongs: int = 64
    runningCalls: int = 20
    waitingCalls: int = 100
    waitingBytes: int = 1048576
    relayedCalls: int = 256
    relayedStreams: int = 256
    waitingAnswers: int = 256
    messageBeforeLogin: int = 16384
    messageBeforeOpen: int = 65536

    def __attrs_post_init__(self) -> None:
        """
        @raise TypeError: when a limit is not a number, or not a whole number if required.
        @raise ValueError: when a limit is negative, not finite, or 0 where that has no meaning.
        """
        for field in attrs.fields(Limits):
            value = getattr(self, field.name)
            kinds = int if isinstance(field.default, int) else int | float
            if isinstance(value, bool) or not isinstance(value, kinds):
                kind = "a whole number" if kinds is int else "a number"
                raise TypeError(f"{field.name} is {kind}, not {value!r}")
            least = 0 if field.name in _ZERO_ALLOWED else math.ulp(0)
            if not least <= value < math.inf:
                bound = "0 or more" if not least else "more than 0"
                raise ValueError(f"{field.name} is {bound}, not {value!r}")


CLIENT_LIMITS: Final = Limits(openTimeout=30.0)
"""
The defaults of a client.  It waits longer for open, since the server may still be starting.
"""
