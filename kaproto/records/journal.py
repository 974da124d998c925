"""
Counts and logs what happens to a server's clients, and keeps the latest records for operators.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import ClassVar

from OpenSSL.SSL import Error as SSLError
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.counters import Counters
from kaproto.errors import (
    AuthenticationFailed,
    DeadlineMissed,
    KeepAliveTimeout,
    PeerFlooded,
    RemoteProtocolError,
    TooManyClients,
)
from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer
from kaproto.records.audit import auditClosed, auditOpened
from kaproto.records.endings import Endings
from kaproto.records.refusals import Refusals
from kaproto.records.wallclock import WallClock
from kaproto.security.handshake import explainTLS

__all__ = ["Journal"]


class Journal:
    """
    One server's journal.  The server calls it for each event of a client, and leaves counting and
    logging to it.

    @ivar counters: the number of events of each kind.
    @ivar endings: the latest connections that ended.
    @ivar refusals: clients that were refused, or would be in mode 2.
    @ivar numbers: the ids of future connections.
    @ivar audits: whether to log a line for each client that opens, and one when it has ended.
    @ivar startedAt: when the journal was made, in monotonic seconds.
    @ivar wallClock: converts recorded times to the time of day.
    """

    _log: ClassVar[Logger] = Logger(observer=BOUNDS)

    def __init__(self, seconds: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        """
        @param seconds: a monotonic clock.
        @param wall: the wall clock, in seconds since 1970.
        """
        self.counters = Counters()
        self.endings = Endings()
        self.refusals = Refusals()
        self.numbers: Iterator[int] = count(1)
        self.audits = False
        self.wallClock = WallClock(seconds, wall)
        self._seconds = seconds
        self.startedAt = seconds()

    @property
    def age(self) -> float:
        """
        Seconds since the server started.
        """
        return self._seconds() - self.startedAt

    def connected(self, peer: Peer) -> None:
        """
        A client connected.  Give its connection a number.
        """
        self.counters.accepted += 1
        peer.id = next(self.numbers)
        peer.connectedAt = self._seconds()

    def loginFailed(self, peer: Peer) -> None:
        """
        A client was not authenticated.
        """
        self.counters.unauthenticated += 1

    def policyFailed(self, policy: str, question: str, peer: Peer, error: Exception) -> None:
        """
        The policy raised an error, or returned a value of the wrong type.

        @param question: the name of the policy's method.
        """
        self._log.failure(
            "policy {policy} failed in {question}() for {peer}, which is treated as a client "
            "that did not ask for keepalive: {error}",
            Failure(error),
            policy=policy,
            question=question,
            peer=peer,
            error=error,
        )

    def refused(self, peer: Peer, policy: str, message: str) -> None:
        """
        The policy refused a client when it wanted to open.
        """
        self.counters.refused += 1
        self.refusals.add(peer, self._seconds(), refused=True)
        if peer.rule is not None:
            policy = f"{policy} ({peer.rule})"
        self._log.warn(
            "refused {peer} by policy {policy}: {reason}", peer=peer, policy=policy, reason=message
        )

    def warned(self, peer: Peer, warning: str) -> None:
        """
        The policy admitted a client that a stricter one would have refused.
        """
        self.counters.warned += 1
        self.refusals.add(peer, self._seconds(), refused=False)
        self._log.info("{peer}: {text}", peer=peer, text=warning)

    def opened(self, peer: Peer, policy: str) -> None:
        """
        A client is open.

        @param policy: the policy that admitted it.
        """
        self.counters.opened += 1
        peer.opened = True
        if self.audits:
            auditOpened(peer, policy)

    def ended(self, peer: Peer, reason: Exception) -> None:
        """
        A connection ended; log the reason, unless it was closed cleanly.
        """
        ending = self.endings.ended(peer, reason, self._seconds())
        if self.audits and peer.opened:
            auditClosed(peer, ending.kind, ending.reason, ending.duration)
        counters, journal = self.counters, self._log
        match reason:
            case TooManyClients():
                counters.displaced += 1
                journal.warn("dropped {peer}: {reason}", peer=peer, reason=reason)
            case SSLError():
                counters.unauthenticated += 1
                why = explainTLS(reason)
                journal.warn("refused {peer}: TLS failed: {reason}", peer=peer, reason=why)
            case AuthenticationFailed():
                journal.warn("refused {peer}: {reason}", peer=peer, reason=reason)
            case KeepAliveTimeout():
                counters.dead += 1
                journal.warn("{peer} is dead: {reason}", peer=peer, reason=reason)
            case PeerFlooded():
                counters.flooded += 1
                journal.warn("dropped {peer}: {reason}", peer=peer, reason=reason)
            case DeadlineMissed():
                counters.deadlinesMissed += 1
                journal.warn("dropped {peer}: {reason}", peer=peer, reason=reason)
            case RemoteProtocolError():
                counters.protocolErrors += 1
                journal.warn("dropped {peer}: it sent {reason}", peer=peer, reason=reason)
