"""
Tests for L{kaproto.status.sampler}.
"""

from __future__ import annotations

from kaproto.status.sampler import INTERVAL, KEPT, TICK, Sample, Sampler
from tests.support_admin import AdminTestCase


class SamplerTests(AdminTestCase):
    """
    Looks at a server at regular times.
    """

    def setUp(self) -> None:
        """
        Take samples.
        """
        super().setUp()
        self.sampler = Sampler(self.daemon)
        self.sampler.start()
        self.addCleanup(self.sampler.stop)

    def advance(self, seconds: float) -> None:
        """
        Let time pass, with a reactor that has nothing else to do.
        """
        self.clock.pump([TICK] * round(seconds / TICK))

    def test_samples(self) -> None:
        """
        Each sample has the clients, and the mean of the round trips since the one before.
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
        Ten minutes are kept.
        """
        self.advance(INTERVAL * (KEPT + 5))
        self.assertEqual(len(self.sampler.samples), KEPT)

    def test_turns(self) -> None:
        """
        A turn of the reactor that lasts long is noticed, once.
        """
        self.advance(1)
        self.assertEqual((self.sampler.turns.total, self.sampler.turns.sum), (5, 0))
        self.clock.advance(TICK + 0.3)
        self.assertAlmostEqual(self.sampler.turns.sum, 0.3, places=5)
        self.clock.pump([1 / 64] * 64)
        self.assertLess(self.sampler.turns.sum, 0.3 + 5 / 64)

    def test_stop(self) -> None:
        """
        It can be stopped, and needs not have been started.
        """
        Sampler(self.daemon).stop()
        self.sampler.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
