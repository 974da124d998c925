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
    A garbage collector that does not look at everything again and again.
    """

    def setUp(self) -> None:
        """
        Tune the collector, in a server with one client.
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
        Objects from before the start are not looked at again.
        """
        frozen = gc.get_freeze_count()
        self.assertGreater(frozen, 1000)
        self.assertLess(len(gc.get_objects()), frozen)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)

    def test_oneLook(self) -> None:
        """
        A full collection frees young objects, and does not look at those that survived an
        earlier one.
        """
        aged = self.agedCycle()
        young = weakref.ref(Cycle())
        gc.collect()
        self.assertIsNone(young())
        self.assertIsNotNone(aged())

    def test_onlyFullCollections(self) -> None:
        """
        Objects that survived only smaller collections are looked at again.
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
        Once there are no clients, everything is looked at again.
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
        In a server that is never idle, everything is looked at again when it has doubled.
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


@implementer(IReadDescriptor)
class Talker:
    """
    A descriptor that always has something to be read.

    @ivar turns: how often it was served.
    """

    def __init__(self) -> None:
        self.turns = 0
        self._near, self._far = socket.socketpair()
        self._far.send(b"x")

    def fileno(self) -> int:
        """
        @return: of the socket that is read.
        """
        return self._near.fileno()

    def doRead(self) -> None:
        """
        Count the turn.
        """
        self.turns += 1

    def hush(self) -> None:
        """
        Have nothing to be read.
        """
        self._near.recv(1)

    def connectionLost(self, reason: Failure) -> None:
        """
        It never is.
        """

    def logPrefix(self) -> str:
        """
        @return: what a log would call it.
        """
        return "talker"

    def close(self) -> None:
        """
        Close it.
        """
        self._near.close()
        self._far.close()


@skipUnless(hasattr(select, "epoll"), "there is no epoll here")
class LimitEventsTests(SynchronousTestCase):
    """
    Turns of a real reactor that does not run, but is given its turns by the test.
    """

    def setUp(self) -> None:
        """
        Make a reactor, and a crowd.
        """
        self.reactor = EPollReactor()
        self.addCleanup(self.reactor._poller.close)
        self.addCleanup(self.reactor.waker.connectionLost, None)
        self.talkers = [self.talker() for _ in range(3 * MAX_EVENTS)]

    def talker(self) -> Talker:
        """
        One more of the crowd.
        """
        talker = Talker()
        self.addCleanup(talker.close)
        self.reactor.addReader(talker)
        return talker

    def served(self) -> int:
        """
        @return: how many are served in one turn.
        """
        before = sum(each.turns for each in self.talkers)
        self.reactor.doIteration(0)
        return sum(each.turns for each in self.talkers) - before

    def test_all(self) -> None:
        """
        By itself the reactor serves everybody in one turn.
        """
        self.assertEqual(self.served(), 3 * MAX_EVENTS)

    def test_few(self) -> None:
        """
        When its turns are bounded it serves a few, and then the next few, until all have had
        their turn, and the first again.
        """
        limitEventsPerTurn(self.reactor)
        for turn in (1, 2, 3):
            self.assertEqual(self.served(), MAX_EVENTS)
            self.assertEqual(max(each.turns for each in self.talkers), 1, turn)
        self.assertEqual([each.turns for each in self.talkers], [1] * 3 * MAX_EVENTS)
        self.assertEqual(self.served(), MAX_EVENTS)

    def test_stillWorks(self) -> None:
        """
        Descriptors come, change and go as ever.
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

    def test_twice(self) -> None:
        """
        Asking twice is asking once.
        """
        limitEventsPerTurn(self.reactor)
        poller = self.reactor._poller
        limitEventsPerTurn(self.reactor)
        self.assertIs(self.reactor._poller, poller)

    def test_anotherTwisted(self) -> None:
        """
        A reactor that has come to be built otherwise is left alone.
        """
        poller, self.reactor._poller = self.reactor._poller, None
        limitEventsPerTurn(self.reactor)
        self.assertIsNone(self.reactor._poller)
        self.reactor._poller = poller


class OtherReactorTests(SynchronousTestCase):
    """
    What is not Twisted's epoll reactor.
    """

    def test_leftAlone(self) -> None:
        """
        Other reactors, and what is none at all, are left as they are, also where there is no
        epoll.
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
    Reads the other end of nothing.

    @ivar then: what comes of reading.
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
        @return: of the socket that is read.
        """
        return self._near.fileno()

    def doRead(self) -> None:
        """
        Read a byte.
        """
        self._near.recv(1)
        self.reads += 1
        self.then()

    def close(self) -> None:
        """
        Close the sockets.
        """
        self._near.close()
        self._far.close()


@skipUnless(hasattr(select, "epoll"), "there is no epoll here")
class InPlaceTests(SynchronousTestCase):
    """
    What is read past the reactor takes none of its turns.
    """

    def setUp(self) -> None:
        """
        Have a reactor with three bytes to be read past it.
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
        They are all read in one turn, if nothing else is to be done, until the time is over that
        the reactor would have waited.
        """
        self.reactor.doIteration(0.01)
        self.assertEqual(self.direct.reads, 3)

    def test_time(self) -> None:
        """
        A reactor that does not want to wait gets its turn after each.
        """
        for reads in (1, 2, 3):
            self.reactor.doIteration(0)
            self.assertEqual(self.direct.reads, reads)

    def test_otherDescriptors(self) -> None:
        """
        As soon as there is anything else to read the reactor has its turn.
        """
        talker = Talker()
        self.addCleanup(talker.close)
        self.direct.then = lambda: self.reactor.addReader(talker)
        self.reactor.doIteration(None)
        self.assertEqual((self.direct.reads, talker.turns), (2, 1))

    def test_calls(self) -> None:
        """
        Reading can schedule calls, which are made in time, however long the reactor would have
        waited.
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
        A reactor that is stopped by what was read has its turn.
        """
        self.reactor._stopped = False
        self.direct.then = self.reactor.stop
        self.reactor.doIteration(None)
        self.assertEqual(self.direct.reads, 1)
