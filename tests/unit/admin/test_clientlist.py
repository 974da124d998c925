"""
Tests for L{kaproto.admin.clientlist}.
"""

from __future__ import annotations

from twisted.internet.task import Cooperator

from kaproto.admin import clientlist
from kaproto.admin.clientlist import joinCounts, joinLists, packCount, packList
from kaproto.admin.types import ServerName
from kaproto.status.clients import clientsOf
from kaproto.wire.xdr import Unpacker
from tests.support_admin import AdminTestCase


class ClientListTests(AdminTestCase):
    """
    Tests for packing and joining lists of clients.
    """

    def list(self, first: int, after: int) -> bytes:
        """
        @return: the packed list of a slice of all clients.
        """
        cooperator = Cooperator(scheduler=lambda call: self.clock.callLater(0, call))
        packed = packList(
            ServerName("kaserver"),
            clientsOf(self.server)[first:after],
            self.server.journal.wallClock,
            cooperator,
        )
        self.turns(20)
        return self.successResultOf(packed)

    def test_join(self) -> None:
        """
        Joined lists equal a single list of all clients, truncated to C{virt-admin}'s limit.
        """
        for _ in range(5):
            self.openClient()
        parts = [self.list(0, 2), self.list(2, 2), self.list(2, 5)]
        for most in range(2, 7):
            self.patch(clientlist, "ARRAY_MAX", most)
            self.assertEqual(joinLists(parts), self.list(0, most))
        self.assertEqual(joinLists([]), packCount(0))

    def test_count(self) -> None:
        """
        Joined counts are added up.
        """
        unpacker = Unpacker(joinCounts([packCount(2), packCount(0), packCount(20000)]))
        self.assertEqual((unpacker.uint32(), unpacker.uint32()), (0, 20002))
