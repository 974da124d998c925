"""
Tests for L{kaproto.records.wallclock}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.records.wallclock import WallClock


class WallClockTests(SynchronousTestCase):
    """
    The time of day of moments.
    """

    def test_steadyUntilSet(self) -> None:
        """
        A moment keeps its time of day while the two clocks drift apart a little, and moves with
        the wall clock when that is set.
        """
        now = {"monotonic": 10.0, "wall": 1000.0}
        clock = WallClock(lambda: now["monotonic"], lambda: now["wall"])
        self.assertEqual(clock.timeOfDay(4), 994)
        now.update(monotonic=20.0, wall=1010.4)
        self.assertEqual(clock.timeOfDay(4), 994)
        now.update(wall=4610.0)
        self.assertEqual(clock.timeOfDay(4), 4594)
        self.assertEqual(clock.timeOfDay(20), 4610)
