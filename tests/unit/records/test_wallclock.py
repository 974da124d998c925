"""
Tests for L{kaproto.records.wallclock}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.records.wallclock import WallClock


class WallClockTests(SynchronousTestCase):
    """
    Tests for the conversion of monotonic times to times of day.
    """

    def test_steadyUntilSet(self) -> None:
        """
        A moment's time of day stays the same while the two clocks drift apart a little, and changes
        when the wall clock is set.
        """
        now = {"monotonic": 10.0, "wall": 1000.0}
        clock = WallClock(lambda: now["monotonic"], lambda: now["wall"])
        self.assertEqual(clock.timeOfDay(4), 994)
        now.update(monotonic=20.0, wall=1010.4)
        self.assertEqual(clock.timeOfDay(4), 994)
        now.update(wall=4610.0)
        self.assertEqual(clock.timeOfDay(4), 4594)
        self.assertEqual(clock.timeOfDay(20), 4610)
