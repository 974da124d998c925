"""
Tests for L{kaproto.workers.figures}.
"""

from __future__ import annotations

from kaproto.errors import ConnectionClosed, KeepAliveTimeout
from kaproto.keepalive.histogram import Histogram
from kaproto.server import KeepAliveServerFactory
from kaproto.status.register import Upstream
from kaproto.workers.figures import Figures, Totals
from tests.support_admin import AdminTestCase


class FiguresTests(AdminTestCase):
    """
    Tests for the figures of workers and their sums.
    """

    def figures(self) -> Figures:
        """
        @return: the figures of the test's server, encoded and decoded again.
        """
        turns = Histogram()
        turns.add(0.5)
        return Figures.fromJSON(Figures.of(self.daemon, turns).toJSON())

    def test_sums(self) -> None:
        """
        The sums of running and ended workers are those that a single process would have, so that no
        counter decreases when a worker ends.
        """
        self.openClient()
        peer = self.connectionOf(self.client()).peer
        self.server.journal.ended(peer, KeepAliveTimeout(1, 1, 2))
        self.server.journal.ended(peer, ConnectionClosed("closed"))
        self.server.roundTrips.add(0.25)
        self.daemon.expiry = {"tls": 9.0}
        one = self.figures()
        gateway = self.daemon.becomeGateway()
        gateway.busy = {1}
        self.addCleanup(gateway.health.close)
        two = self.figures()

        factory = KeepAliveServerFactory(clock=self.clock)
        totals = Totals(factory)
        for running, ended in (([one, two], []), ([two], [one]), ([], [two])):
            for each in ended:
                totals.ended(each)
            totals.update(running)
            counters = factory.counters
            self.assertEqual((counters.accepted, counters.opened, counters.dead), (4, 2, 2))
            self.assertEqual(factory.journal.endings.counts["keepalive_timeout"], 2)
            self.assertEqual((factory.roundTrips.total, factory.roundTrips.sum), (2, 0.5))
            self.assertEqual(totals.turns.total, 2)
            self.assertEqual(sum(totals.phases.values()), 2 * len(running))
            self.assertEqual(totals.anonymous, 0)
        self.assertEqual((totals.certificates, totals.upstream), ({}, None))
        totals.update([one, two, two])
        self.assertEqual(totals.certificates, {"tls": 9.0})
        self.assertEqual(totals.upstream, Upstream(None, 0, 2))

    def test_problem(self) -> None:
        """
        A problem of one worker's gateway applies to all, because they have the same upstream.
        """
        gateway = self.daemon.becomeGateway()
        fine = self.figures()
        gateway.health.failed("libvirtd is away")
        self.addCleanup(gateway.health.close)
        totals = Totals(self.server)
        totals.update([fine, self.figures()])
        self.assertEqual(totals.upstream, Upstream("libvirtd is away", 0, 0))
