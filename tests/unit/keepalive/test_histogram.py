"""
Tests for L{kaproto.keepalive.histogram}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive.histogram import Histogram


class HistogramTests(SynchronousTestCase):
    """
    Tests for L{Histogram}.
    """

    def test_example(self) -> None:
        """
        A round trip of 250 us is counted below 256 us and not below 128 us.
        """
        histogram = Histogram()
        histogram.add(0.000250)
        self.assertEqual(list(histogram.cumulative(7, 9)), [(128e-6, 0), (256e-6, 1), (512e-6, 1)])
        self.assertEqual((histogram.total, histogram.sum), (1, 0.00025))

    @given(st.lists(st.floats(0, 1e12)))
    def test_bounds(self, latencies: list[float]) -> None:
        """
        Each bound counts the round trips below it, and none is lost.
        """
        histogram = Histogram()
        for each in latencies:
            histogram.add(each)
        self.assertEqual(histogram.total, len(latencies))
        for bound, count in histogram.cumulative(1, 63):
            self.assertEqual(count, sum(int(each * 1e6) < round(bound * 1e6) for each in latencies))
