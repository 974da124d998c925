"""
Watches a peer that is pinged but not read, because the kernel can tell whether it is alive.

Over TCP the kernel reports when the peer's latest bytes arrived, read or unread.  Once our receive
buffer is full, no more bytes can arrive, and only a dead host is detected, because it does not
acknowledge our pings.  On a UNIX socket the kernel reports whether the peer has read everything,
and whether it has written.
"""

from __future__ import annotations

from kaproto.keepalive.kernel import Delivery, delivery
from kaproto.keepalive.liveness import Liveness
from kaproto.transport import StreamTransport

__all__ = ["UnreadPeer"]


class UnreadPeer:
    """
    Checks a peer that is pinged but not read.
    """

    __slots__ = ("_liveness", "_transport", "_unread")

    def __init__(self, transport: StreamTransport, liveness: Liveness, found: Delivery) -> None:
        self._transport = transport
        self._liveness = liveness
        self._unread = found.unread

    @classmethod
    def orNone(
        cls, transport: StreamTransport, liveness: Liveness, *, readsOn: bool
    ) -> UnreadPeer | None:
        """
        @param readsOn: whether a live peer keeps reading while this side does not read from it.
        @return: C{None} if the kernel cannot tell whether the peer is alive.
        """
        found = delivery(transport)
        if found is None or not (readsOn if found.local else found.silence is not None):
            return None
        return cls(transport, liveness, found)

    def look(self, now: float) -> bool:
        """
        Look for signs of life on a UNIX socket: the peer has read everything, or has written.

        @return: whether the peer is known to have unread bytes.
        """
        found = delivery(self._transport)
        if found is None or not found.local:
            return False
        if found.allRead or found.unread > self._unread:
            self._liveness.hear(now)
        self._unread = found.unread
        return not found.allRead
