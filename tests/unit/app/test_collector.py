"""
Tests for L{kaproto.app.collector}.
"""

from __future__ import annotations

import gc
import weakref

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.collector import THRESHOLDS, GCTuning
from tests.support import Cycle

MINUTE = 60.0


class CalmCollectorTests(SynchronousTestCase):
    """
    A collector that does not look at everything again and again.
    """

    def setUp(self) -> None:
        """
        Have a collector at work, in a server with one client.
        """
        self.clock = Clock()
        self.busy = True
        self.thresholds = gc.get_threshold()
        gc.disable()
        self.addCleanup(gc.enable)
        self.collector = GCTuning(self.clock, lambda: self.busy)
        self.collector.start()

    def tearDown(self) -> None:
        """
        Stop it, whatever the test did.
        """
        if self.collector.running:
            self.collector.stop()

    def agedCycle(self) -> weakref.ref[Cycle]:
        """
        @return: an object that has survived a full collection, and that nothing refers to now.
        """
        cycle = Cycle()
        gc.collect()
        return weakref.ref(cycle)

    def test_setAside(self) -> None:
        """
        What there was at the start is not looked at again.
        """
        frozen = gc.get_freeze_count()
        self.assertGreater(frozen, 1000)
        self.assertLess(len(gc.get_objects()), frozen)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)

    def test_oneLook(self) -> None:
        """
        A full collection frees what is young, and does not look at what an earlier one has left.
        """
        aged = self.agedCycle()
        young = weakref.ref(Cycle())
        gc.collect()
        self.assertIsNone(young())
        self.assertIsNotNone(aged())

    def test_onlyFullCollections(self) -> None:
        """
        What has survived other collections only is looked at again.
        """
        cycle = Cycle()
        gc.collect(0)
        gc.collect(1)
        reference = weakref.ref(cycle)
        del cycle
        gc.collect()
        self.assertIsNone(reference())

    def test_sweptWhenIdle(self) -> None:
        """
        Once no client is there, everything is looked at again.
        """
        aged = self.agedCycle()
        self.clock.advance(MINUTE)
        self.assertIsNotNone(aged())
        self.busy = False
        self.clock.advance(MINUTE)
        self.assertIsNone(aged())

    def test_notSweptForNothing(self) -> None:
        """
        A server that has been idle since the last sweep is not swept again.
        """
        self.busy = False
        swept: list[str] = []
        gc.callbacks.append(lambda phase, _info: swept.append(phase))
        self.addCleanup(gc.callbacks.pop)
        self.clock.advance(MINUTE)
        self.assertEqual(swept, [])

    def test_sweptWhenDoubled(self) -> None:
        """
        A server that is never idle looks at everything again when there is twice as much of it.
        """
        aged = self.agedCycle()
        more = [[each] for each in range(gc.get_freeze_count() - 100)]
        gc.collect()
        self.clock.advance(MINUTE)
        self.assertIsNotNone(aged())
        more += [[each] for each in range(200)]
        gc.collect()
        self.clock.advance(MINUTE)
        self.assertIsNone(aged())

    def test_stop(self) -> None:
        """
        Afterwards the collector works as before.
        """
        aged = self.agedCycle()
        self.collector.stop()
        self.assertEqual(gc.get_threshold(), self.thresholds)
        gc.collect()
        self.assertIsNone(aged())
        # Python 3.12 sets aside a few hundred that are there for ever.
        self.assertLess(gc.get_freeze_count(), 1000)
        self.assertEqual(self.clock.getDelayedCalls(), [])
