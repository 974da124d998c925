"""
A peer that is pinged although it is not read, because the kernel says whether it lives.

Over TCP the kernel says when the latest bytes of the peer came, read or not.  Once our receive
buffer is full none can come, and only a host that is gone is found, by the pings that it does not
acknowledge.  On a UNIX socket the kernel says whether the peer has read everything, and whether it
has written.
"""

from __future__ import annotations

from kaproto.keepalive.kernel import Delivery, delivery
from kaproto.keepalive.liveness import Liveness
from kaproto.transport import StreamTransport

__all__ = ["UnreadPeer"]


class UnreadPeer:
    """
    The look at one such peer.
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
        @param readsOn: whether the peer reads on if it lives, though it is not read.
        @return: C{None} of a peer of which the kernel does not say whether it lives.
        """
        found = delivery(transport)
        if found is None or not (readsOn if found.local else found.silence is not None):
            return None
        return cls(transport, liveness, found)

    def look(self, now: float) -> bool:
        """
        On a UNIX socket it is a sign of life that the peer has read everything, or has written.

        @return: whether it is known not to have read everything.
        """
        found = delivery(self._transport)
        if found is None or not found.local:
            return False
        if found.allRead or found.unread > self._unread:
            self._liveness.hear(now)
        self._unread = found.unread
        return not found.allRead
