"""
Tests for L{kaproto.keepalive.pingbudget}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive.pingbudget import PingBudget


class PingBudgetTests(SynchronousTestCase):
    """
    Tests for L{PingBudget}.
    """

    def spend(self, budget: PingBudget, now: float, pings: int) -> int:
        """
        Send some pings at once.

        @return: how many were within the budget.
        """
        return sum(budget.spend(now, 3) for _ in range(pings))

    def test_budget(self) -> None:
        """
        A peer may send a number of pings each second, and those of up to ten earlier seconds.
        """
        budget = PingBudget(100.0)
        for now, pings, within in (
            (100.0, 5, 3),
            (100.9, 1, 0),
            (101.0, 5, 3),
            (105.0, 30, 3 * 4),
            (1000.0, 99, 3 * 11),
        ):
            self.assertEqual(self.spend(budget, now, pings), within, now)
