"""
The latest connections that ended, and how many ended for each reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import attrs
from OpenSSL.SSL import Error as SSLError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.error import TimeoutError as TransportTimeout

from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    DeadlineMissed,
    Disconnected,
    KaprotoError,
    KeepAliveTimeout,
    PeerFlooded,
    ProtocolError,
    RemoteError,
    ServerStopping,
    TooManyClients,
    UpstreamLost,
)
from kaproto.peer import Peer
from kaproto.records.who import Who, clean
from kaproto.security.handshake import explainTLS

__all__ = ["KEPT", "KINDS", "Ending", "Endings", "kindOf"]

KEPT: Final = 1000
"""
The number of endings kept.
"""

KINDS: Final[Mapping[type[BaseException], str]] = MappingProxyType(
    {
        ConnectionClosed: "closed",
        ConnectionDone: "closed",
        Disconnected: "disconnected",
        ServerStopping: "server_stopping",
        KeepAliveTimeout: "keepalive_timeout",
        RemoteError: "refused",
        AuthenticationFailed: "authentication_failed",
        SSLError: "tls_failed",
        DeadlineMissed: "deadline_missed",
        PeerFlooded: "flooded",
        ProtocolError: "protocol_error",
        TooManyClients: "too_many_clients",
        UpstreamLost: "upstream_lost",
        ConnectionLost: "connection_lost",
        TransportTimeout: "connection_lost",
        OSError: "connection_lost",
        KaprotoError: "error",
        BaseException: "error",
    }
)
"""
The reasons for which connections end, by error.  An error that is not listed counts as its nearest
base class that is listed.
"""


def kindOf(reason: BaseException) -> str:
    """
    @return: the reason's name among L{KINDS}.
    """
    return next(KINDS[each] for each in type(reason).__mro__ if each in KINDS)


@attrs.frozen
class Ending:
    """
    One connection that ended.

    @ivar who: the client.
    @ivar kind: the reason's name, one of L{KINDS}.
    @ivar reason: the reason in words.
    @ivar name: the name that it asked to open; C{None} if it never did.
    @ivar endedAt: the time of the end, in monotonic seconds.
    @ivar duration: seconds from connecting to the end.
    """

    who: Who
    kind: str
    reason: str
    name: str | None
    endedAt: float
    duration: float


class Endings:
    """
    The latest L{KEPT} endings.

    @ivar counts: the number of all endings, by L{KINDS}.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS.values(), 0)
        self._latest: deque[Ending] = deque(maxlen=KEPT)

    def __len__(self) -> int:
        return len(self._latest)

    def __iter__(self) -> Iterator[Ending]:
        """
        @return: the endings that are kept, the latest first.
        """
        return reversed(self._latest)

    def ended(self, peer: Peer, reason: Exception, now: float) -> Ending:
        """
        Record that a connection ended.

        @param now: in monotonic seconds.
        @return: the record.
        """
        kind = kindOf(reason)
        self.counts[kind] += 1
        words = explainTLS(reason) if isinstance(reason, SSLError) else str(reason)
        name = None if peer.requested is None else clean(peer.requested)
        ending = Ending(Who.of(peer), kind, clean(words), name, now, now - peer.connectedAt)
        self._latest.append(ending)
        return ending
