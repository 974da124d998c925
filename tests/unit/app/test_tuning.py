"""
Tests for L{kaproto.app.tuning}.
"""

from __future__ import annotations

import gc
import select
import socket
import sys
import weakref
from collections.abc import Callable
from functools import partial
from unittest import skipUnless

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kaproto.app.tuning import MAX_EVENTS, THRESHOLDS, GCTuning, limitEventsPerTurn
from kaproto.directreader import DirectReader
from tests.support import Cycle

if hasattr(select, "epoll"):
    from twisted.internet.epollreactor import EPollReactor

MINUTE = 60.0


class GCTuningTests(SynchronousTestCase):
    """
    Tests for a collector that examines old objects only once.
    """

    def setUp(self) -> None:
        """
        Tune the collector of a server with one client.
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
        Stop the tuning, unless the test has.
        """
        if self.collector.running:
            self.collector.stop()

    def agedCycle(self) -> weakref.ref[Cycle]:
        """
        @return: a reference to unreachable garbage that has survived a full collection.
        """
        cycle = Cycle()
        gc.collect()
        return weakref.ref(cycle)

    def test_oneLook(self) -> None:
        """
        A full collection examines each object once: those that have survived no other full one,
        and not those from before the start.
        """
        frozen = gc.get_freeze_count()
        self.assertGreater(frozen, 1000)
        self.assertLess(len(gc.get_objects()), frozen)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)
        aged = self.agedCycle()
        cycle = Cycle()
        gc.collect(0)
        gc.collect(1)
        middling = weakref.ref(cycle)
        del cycle
        young = weakref.ref(Cycle())
        gc.collect()
        self.assertIsNone(young())
        self.assertIsNone(middling())
        self.assertIsNotNone(aged())

    def test_sweptWhenIdle(self) -> None:
        """
        Once there are no clients, all objects are examined again, and only once.
        """
        aged = self.agedCycle()
        self.clock.advance(MINUTE)
        self.assertIsNotNone(aged())
        self.busy = False
        self.clock.advance(MINUTE)
        self.assertIsNone(aged())
        swept: list[str] = []
        gc.callbacks.append(lambda phase, _info: swept.append(phase))
        self.addCleanup(gc.callbacks.pop)
        self.clock.advance(MINUTE)
        self.assertEqual(swept, [])

    def test_sweptWhenDoubled(self) -> None:
        """
        In a server that is never idle, all objects are examined again when their number has
        doubled.
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
        After C{stop} the collector works as before.
        """
        aged = self.agedCycle()
        self.collector.stop()
        self.assertEqual(gc.get_threshold(), self.thresholds)
        gc.collect()
        self.assertIsNone(aged())
        # Python 3.12 always keeps a few hundred objects frozen.
        self.assertLess(gc.get_freeze_count(), 1000)
        self.assertEqual(self.clock.getDelayedCalls(), [])


@implementer(IReadDescriptor)
class Talker:
    """
    A descriptor that is always readable.

    @ivar turns: how often it was read.
    """

    def __init__(self) -> None:
        self.turns = 0
        self._near, self._far = socket.socketpair()
        self._far.send(b"x")

    def fileno(self) -> int:
        """
        @return: the file descriptor of the socket.
        """
        return self._near.fileno()

    def doRead(self) -> None:
        """
        Count the turn.
        """
        self.turns += 1

    def hush(self) -> None:
        """
        Read the byte, so that the descriptor is no longer readable.
        """
        self._near.recv(1)

    def connectionLost(self, reason: Failure) -> None:
        """
        Do nothing: the connection is never lost.
        """

    def logPrefix(self) -> str:
        """
        @return: the prefix for log lines.
        """
        return "talker"

    def close(self) -> None:
        """
        Close both sockets.
        """
        self._near.close()
        self._far.close()


@skipUnless(hasattr(select, "epoll"), "there is no epoll here")
class LimitEventsTests(SynchronousTestCase):
    """
    Tests with a real reactor, whose turns the test runs one by one.
    """

    def setUp(self) -> None:
        """
        Create a reactor and more descriptors than it serves in a turn.
        """
        self.reactor = EPollReactor()
        self.addCleanup(self.reactor._poller.close)
        self.addCleanup(self.reactor.waker.connectionLost, None)
        self.talkers = [self.talker() for _ in range(3 * MAX_EVENTS)]

    def talker(self) -> Talker:
        """
        Add a descriptor to the reactor.
        """
        talker = Talker()
        self.addCleanup(talker.close)
        self.reactor.addReader(talker)
        return talker

    def served(self) -> int:
        """
        @return: how many descriptors are served in one turn.
        """
        before = sum(each.turns for each in self.talkers)
        self.reactor.doIteration(0)
        return sum(each.turns for each in self.talkers) - before

    def test_all(self) -> None:
        """
        Without a limit the reactor serves all descriptors in one turn.
        """
        self.assertEqual(self.served(), 3 * MAX_EVENTS)

    def test_few(self) -> None:
        """
        With a limit, descriptors are served in rotation: none is served a second time before all
        have been served once.
        """
        limitEventsPerTurn(self.reactor)
        for turn in (1, 2, 3):
            self.assertEqual(self.served(), MAX_EVENTS)
            self.assertEqual(max(each.turns for each in self.talkers), 1, turn)
        self.assertEqual([each.turns for each in self.talkers], [1] * 3 * MAX_EVENTS)
        self.assertEqual(self.served(), MAX_EVENTS)

    def test_stillWorks(self) -> None:
        """
        Descriptors can still be added, changed and removed.
        """
        limitEventsPerTurn(self.reactor)
        late = self.talker()
        for each in self.talkers:
            self.reactor.removeReader(each)
        self.assertEqual(self.served(), 0)
        self.assertEqual(late.turns, 1)
        late.hush()
        self.reactor.doIteration(0)
        self.assertEqual(late.turns, 1)

    def test_removed(self) -> None:
        """
        A descriptor that another removes in the same turn is not served.
        """
        limitEventsPerTurn(self.reactor)
        served: list[Talker] = []

        def serve(talker: Talker) -> None:
            served.append(talker)
            for each in self.talkers:
                self.reactor.removeReader(each)

        for each in self.talkers:
            self.patch(each, "doRead", partial(serve, each))
        self.reactor.doIteration(0)
        self.assertEqual(len(served), 1)

    def test_error(self) -> None:
        """
        An error while a descriptor is served is logged, and closes that descriptor; the others are
        served.
        """
        limitEventsPerTurn(self.reactor)
        broken = self.talkers[0]
        lost: list[Failure] = []
        self.patch(broken, "doRead", lambda: 1 / 0)
        self.patch(broken, "connectionLost", lost.append)
        self.assertEqual(self.served(), MAX_EVENTS - 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsInstance(lost[0].value, ZeroDivisionError)
        self.assertNotIn(broken, self.reactor.getReaders())

    def test_twice(self) -> None:
        """
        Setting the limit twice has no further effect.
        """
        limitEventsPerTurn(self.reactor)
        poller = self.reactor._poller
        limitEventsPerTurn(self.reactor)
        self.assertIs(self.reactor._poller, poller)

    def test_anotherTwisted(self) -> None:
        """
        A reactor without a poller, as another version of Twisted may have, is left unchanged.
        """
        poller, self.reactor._poller = self.reactor._poller, None
        limitEventsPerTurn(self.reactor)
        self.assertIsNone(self.reactor._poller)
        self.reactor._poller = poller


class OtherReactorTests(SynchronousTestCase):
    """
    Tests for objects other than Twisted's epoll reactor.
    """

    def test_leftAlone(self) -> None:
        """
        Other reactors, and objects that are not reactors, are left unchanged, even without epoll.
        """
        reactor = PollReactor()
        self.addCleanup(reactor.waker.connectionLost, None)
        poller = reactor._poller
        for modules in (sys.modules, {}):
            self.patch(sys, "modules", modules)
            limitEventsPerTurn(reactor)
            limitEventsPerTurn(Clock())
            self.assertIs(reactor._poller, poller)


class Direct(DirectReader[None]):
    """
    A reader that bypasses the reactor.

    @ivar then: called after each read.
    """

    name = "test"

    def __init__(self, reactor: EPollReactor) -> None:
        super().__init__(reactor)
        self.reads = 0
        self.then: Callable[[], object] = lambda: None
        self._near, self._far = socket.socketpair()
        self._far.send(b"xxx")

    def fileno(self) -> int:
        """
        @return: the file descriptor of the socket.
        """
        return self._near.fileno()

    def doRead(self) -> None:
        """
        Read one byte.
        """
        self._near.recv(1)
        self.reads += 1
        self.then()

    def close(self) -> None:
        """
        Close both sockets.
        """
        self._near.close()
        self._far.close()


@skipUnless(hasattr(select, "epoll"), "there is no epoll here")
class InPlaceTests(SynchronousTestCase):
    """
    Tests for reading without a turn of the reactor.
    """

    def setUp(self) -> None:
        """
        Create a reactor and a direct reader with three bytes to read.
        """
        self.reactor = EPollReactor()
        self.addCleanup(self.reactor._poller.close)
        self.addCleanup(self.reactor.waker.connectionLost, None)
        limitEventsPerTurn(self.reactor)
        self.direct = Direct(self.reactor)
        self.addCleanup(self.direct.close)
        self.reactor.addReader(self.direct)

    def test_allAtOnce(self) -> None:
        """
        All bytes are read in one turn, if the reactor would have waited and nothing else happens.
        """
        self.reactor.doIteration(0.01)
        self.assertEqual(self.direct.reads, 3)

    def test_time(self) -> None:
        """
        A reactor that does not wait runs a turn after each read.
        """
        for reads in (1, 2, 3):
            self.reactor.doIteration(0)
            self.assertEqual(self.direct.reads, reads)

    def test_otherDescriptors(self) -> None:
        """
        As soon as another descriptor is readable, the reactor runs its turn.
        """
        talker = Talker()
        self.addCleanup(talker.close)
        self.direct.then = lambda: self.reactor.addReader(talker)
        self.reactor.doIteration(None)
        self.assertEqual((self.direct.reads, talker.turns), (2, 1))

    def test_calls(self) -> None:
        """
        Calls scheduled while reading are made on time, even if the reactor would have waited
        longer.
        """
        for reads, delay in ((1, 0), (3, 0.01)):
            made: list[bool] = []
            self.direct.then = lambda delay=delay, made=made: (  # type: ignore[misc]
                self.reactor.callLater(delay, made.append, True)
            )
            self.reactor.doIteration(None)
            self.reactor.runUntilCurrent()
            self.assertEqual((self.direct.reads, bool(made)), (reads, True))

    def test_stop(self) -> None:
        """
        A reactor that is stopped while reading runs its turn.
        """
        self.reactor._stopped = False
        self.direct.then = self.reactor.stop
        self.reactor.doIteration(None)
        self.assertEqual(self.direct.reads, 1)
