"""
Tests for L{kaproto.workers.backoff}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.workers.backoff import LASTED, LONGEST, Backoff


class BackoffTests(SynchronousTestCase):
    """
    Tests for the delay before a worker is replaced.
    """

    def test_delays(self) -> None:
        """
        The delay doubles, up to a maximum, while workers end soon; after one that lasted it is 0.
        """
        backoff = Backoff()
        delays = [backoff.ended(0.1) for _ in range(9)]
        self.assertEqual(delays, [0, 0.5, 1, 2, 4, 8, 16, LONGEST, LONGEST])
        self.assertEqual([backoff.ended(LASTED), backoff.ended(0.1)], [0, 0.5])
