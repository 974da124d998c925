"""
Tests for L{kaproto.cli.roundtrips}.
"""

from __future__ import annotations

from statistics import mean, pstdev

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.cli.roundtrips import RoundTrips


class RoundTripsTests(SynchronousTestCase):
    """
    Tests for statistics of pings.
    """

    def test_none(self) -> None:
        """
        Statistics without pings or without answers do not divide by zero.
        """
        trips = RoundTrips()
        self.assertEqual((trips.loss, trips.average, trips.deviation), (0, 0, 0))
        trips.sent = 4
        self.assertEqual((trips.loss, trips.average, trips.deviation), (1, 0, 0))

    @given(st.lists(st.floats(1e-6, 10), min_size=1), st.integers(0, 10))
    def test_figures(self, seconds: list[float], lost: int) -> None:
        """
        The statistics match those of the standard library.
        """
        trips = RoundTrips(sent=len(seconds) + lost)
        for each in seconds:
            trips.add(each)
        self.assertEqual((trips.least, trips.most), (min(seconds), max(seconds)))
        self.assertAlmostEqual(trips.average, mean(seconds))
        self.assertAlmostEqual(trips.deviation, pstdev(seconds), places=5)
        self.assertAlmostEqual(trips.loss, lost / trips.sent)
