"""
Tests for L{kaproto.status.register}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from kaproto.errors import ConnectionClosed
from kaproto.status.register import LocalRegister, Upstream
from tests.support_admin import AdminTestCase


class LocalRegisterTests(AdminTestCase):
    """
    Tests for the clients of this process.
    """

    def test_clients(self) -> None:
        """
        Clients are counted and found.
        """
        first, second = self.client(), self.client()
        register = LocalRegister(self.server)
        self.assertEqual((len(register), register.anonymous), (2, 0))
        self.assertEqual(sum(register.phases().values()), 2)
        for text, before, most, expected in (
            ("", 0, 9, [2, 1]),
            ("", 2, 9, [1]),
            ("", 0, 1, [2]),
            (str(self.connectionOf(first).peer).lower(), 0, 9, [2, 1]),
            (str(self.connectionOf(second).peer).lower(), 0, 1, [2]),
            ("nobody", 0, 9, []),
        ):
            found = Deferred.fromCoroutine(register.newest(text, before, most))
            self.clock.pump([0] * 9)
            ids = [each.who.id for each in self.successResultOf(found)]
            self.assertEqual(ids, expected, (text, before, most))

    def test_records(self) -> None:
        """
        The latest endings and refusals are returned.
        """
        register, journal = LocalRegister(self.server), self.server.journal
        peer = self.connectionOf(self.client()).peer
        for _ in range(3):
            journal.ended(peer, ConnectionClosed("closed"))
            journal.warned(peer, "mode 2 would refuse it")
        endings = self.successResultOf(Deferred.fromCoroutine(register.endings(2)))
        self.assertEqual([each.kind for each in endings], ["closed"] * 2)
        (refusal,) = self.successResultOf(Deferred.fromCoroutine(register.refusals(2)))
        self.assertEqual(refusal.wouldRefuse, 3)

    def test_upstream(self) -> None:
        """
        Only a gateway has an upstream.
        """
        self.assertEqual(self.daemon.register.upstream(), None)
        gateway = self.daemon.becomeGateway()
        gateway.busy = {1}
        self.client()
        self.assertEqual(self.daemon.register.upstream(), Upstream(None, 0, 1))
        gateway.health.failed("libvirtd is away")
        self.assertEqual(self.daemon.register.problem(), "libvirtd is away")
        gateway.health.close()
