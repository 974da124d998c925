"""
Tests for L{kaproto.workers.team}.
"""

from __future__ import annotations

from kaproto.errors import ConnectionClosed
from kaproto.status.clients import ClientStatus
from tests.support_workers import TeamTestCase


class RegisterTests(TeamTestCase):
    """
    Tests for the clients of all workers.
    """

    def newest(self, text: str = "", before: int = 0, most: int = 9) -> list[ClientStatus]:
        """
        @return: the newest clients.
        """
        return self.wait(self.parent.register.newest(text, before, most))

    def test_clients(self) -> None:
        """
        The register has the clients of all workers.
        """
        register = self.parent.register
        self.assertEqual(len(register), 2)
        self.assertEqual([each.who.id for each in self.newest()], [5, 4])
        self.assertEqual([each.who.id for each in self.newest(before=5)], [4])
        self.assertEqual([each.who.id for each in self.newest(most=1)], [5])

    def test_records(self) -> None:
        """
        Endings are ordered by time, and refusals of the same client by several workers are summed.
        """
        for step in range(3):
            self.clock.advance(1)
            client, daemon = self.clients[step % 2], self.daemons[step % 2]
            daemon.factory.journal.ended(client.peer, ConnectionClosed(f"closed {step}"))
            daemon.factory.journal.warned(client.peer, "mode 2 would refuse it")
        endings = self.wait(self.parent.register.endings(2))
        self.assertEqual([each.reason for each in endings], ["closed 2", "closed 1"])
        (refusal,) = self.wait(self.parent.register.refusals(9))
        self.assertEqual((refusal.wouldRefuse, refusal.last), (3, endings[0].endedAt))

    def test_refresh(self) -> None:
        """
        Figures are refreshed at most once per second.  If a worker does not answer, its previous
        figures are kept.
        """
        register = self.parent.register
        self.assertEqual((register.upstream(), register.problem()), (None, None))
        self.wait(register.refresh())
        self.assertEqual(self.server.counters.accepted, 2)
        self.assertEqual((sum(register.phases().values()), register.anonymous), (2, 0))
        self.assertEqual(register.turns, self.totals.turns)
        gateway = self.daemons[0].becomeGateway()
        gateway.health.failed("libvirtd is away")
        self.addCleanup(gateway.health.close)
        self.wait(register.refresh())
        self.assertIsNone(register.problem())
        self.clock.advance(1)
        self.members[1].answers = False
        self.wait(register.refresh())
        self.assertEqual(register.problem(), "libvirtd is away")
        self.assertEqual(self.server.counters.accepted, 2)
