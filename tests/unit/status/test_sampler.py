"""
Tests for L{kaproto.status.sampler}.
"""

from __future__ import annotations

from kaproto.status.sampler import INTERVAL, KEPT, TICK, Sample, Sampler
from tests.support_admin import AdminTestCase


class SamplerTests(AdminTestCase):
    """
    Tests for sampling a server at regular intervals.
    """

    def setUp(self) -> None:
        """
        Start the sampler.
        """
        super().setUp()
        self.sampler = Sampler(self.daemon)
        self.sampler.start()
        self.addCleanup(self.sampler.stop)

    def advance(self, seconds: float) -> None:
        """
        Advance the clock in ticks, as a reactor with nothing else to do would.
        """
        self.clock.pump([TICK] * round(seconds / TICK))

    def test_samples(self) -> None:
        """
        A sample has the number of clients, and the mean of the round trips since the previous
        sample.
        """
        self.client()
        self.server.roundTrips.add(0.25)
        self.server.roundTrips.add(0.75)
        self.advance(INTERVAL)
        self.server.roundTrips.add(1)
        self.advance(INTERVAL)
        self.assertEqual(
            list(self.sampler.samples), [Sample(0, None), Sample(1, 0.5), Sample(1, 1.0)]
        )

    def test_bounded(self) -> None:
        """
        Samples of ten minutes are kept.
        """
        self.advance(INTERVAL * (KEPT + 5))
        self.assertEqual(len(self.sampler.samples), KEPT)

    def test_turns(self) -> None:
        """
        The time that a slow turn takes beyond a tick is recorded once.
        """
        self.advance(1)
        self.assertEqual((self.sampler.turns.total, self.sampler.turns.sum), (5, 0))
        self.clock.advance(TICK + 0.3)
        self.assertAlmostEqual(self.sampler.turns.sum, 0.3, places=5)
        self.clock.pump([1 / 64] * 64)
        self.assertLess(self.sampler.turns.sum, 0.3 + 5 / 64)

    def test_stop(self) -> None:
        """
        L{Sampler.stop} leaves no timer, and may be called without a start.
        """
        Sampler(self.daemon).stop()
        self.sampler.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
