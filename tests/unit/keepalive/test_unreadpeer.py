"""
Tests for L{kaproto.keepalive.unreadpeer}.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive import unreadpeer
from kaproto.keepalive.kernel import Delivery
from kaproto.keepalive.liveness import Liveness
from kaproto.keepalive.unreadpeer import UnreadPeer
from kaproto.transport import StreamTransport


class UnreadPeerTests(SynchronousTestCase):
    """
    Tests for L{UnreadPeer}.
    """

    def setUp(self) -> None:
        """
        Replace the kernel's counters by the test's.
        """
        self.found: Delivery | None = None
        self.patch(unreadpeer, "delivery", lambda _transport: self.found)
        self.liveness = Liveness(0)

    def peer(self, found: Delivery | None, *, readsOn: bool) -> UnreadPeer | None:
        """
        @return: a peer with these counters, C{None} if it cannot be watched.
        """
        self.found = found
        transport = cast(StreamTransport, StringTransport())
        return UnreadPeer.orNone(transport, self.liveness, readsOn=readsOn)

    def test_whose(self) -> None:
        """
        A peer over TCP is watched if the kernel knows when bytes arrived; one on a UNIX socket, if
        a live peer keeps reading.
        """
        for found, readsOn, watched in (
            (None, True, False),
            (Delivery(0), True, False),
            (Delivery(0, silence=1), True, True),
            (Delivery(0, silence=1), False, True),
            (Delivery(0, local=True), True, True),
            (Delivery(0, local=True), False, False),
        ):
            self.assertEqual(self.peer(found, readsOn=readsOn) is not None, watched, found)

    def test_look(self) -> None:
        """
        A peer on a UNIX socket is alive if it has read everything, or has written more since the
        last look.
        """
        peer = self.peer(Delivery(5000, local=True, unread=28), readsOn=True)
        assert peer is not None
        for now, (found, lives, hasToRead) in enumerate(
            (
                (Delivery(5000, local=True, unread=28), False, True),
                (Delivery(5000, local=True, unread=56), True, True),
                (Delivery(5000, local=True, unread=56), False, True),
                (Delivery(0, local=True, unread=56), True, False),
                (Delivery(0, silence=1), False, False),
                (None, False, False),
            ),
            1,
        ):
            self.found = found
            self.assertEqual(peer.look(now), hasToRead, now)
            self.assertEqual(self.liveness.heard == now, lives, now)
