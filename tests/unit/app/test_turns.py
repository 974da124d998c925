"""
Tests for L{kaproto.app.turns}.
"""

from __future__ import annotations

import select
import socket
import sys
from unittest import skipUnless

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kaproto.app.turns import MAX_EVENTS, limitEventsPerTurn

if hasattr(select, "epoll"):
    from twisted.internet.epollreactor import EPollReactor


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
        See L{IReadDescriptor}.
        """
        return self._near.fileno()

    def doRead(self) -> None:
        """
        It is this one's turn.
        """
        self.turns += 1

    def hush(self) -> None:
        """
        Have nothing to be read.
        """
        self._near.recv(1)

    def connectionLost(self, reason: Failure) -> None:
        """
        See L{IReadDescriptor}.
        """

    def logPrefix(self) -> str:
        """
        See L{IReadDescriptor}.
        """
        return "talker"

    def close(self) -> None:
        """
        Be gone.
        """
        self._near.close()
        self._far.close()


@skipUnless(hasattr(select, "epoll"), "there is no epoll here")
class BoundTurnsTests(SynchronousTestCase):
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
