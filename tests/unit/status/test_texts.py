"""
Tests for L{kaproto.status.texts}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.status.texts import elapsed, milliseconds, shortTime, timeOfDay


class TextsTests(SynchronousTestCase):
    """
    Tests for times as text.
    """

    def test_elapsed(self) -> None:
        """
        Durations are short and readable.
        """
        for seconds, text in [
            (0.9, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (3600 * 3 + 61, "3h1m"),
            (86400 * 40 + 3600, "40d1h"),
        ]:
            self.assertEqual(elapsed(seconds), text)

    def test_others(self) -> None:
        """
        Latencies and times of day are readable; an unknown latency is a dash.
        """
        self.assertEqual((milliseconds(0.00025), milliseconds(None)), ("0.25 ms", "-"))
        self.assertEqual(timeOfDay(1764125677.9), "2025-11-26 02:54:37 UTC")
        self.assertEqual(shortTime(1764125677.9, 1764125690), "02:54:37 UTC")
        self.assertEqual(shortTime(1764125677.9, 1764205690), "2025-11-26 02:54:37 UTC")
