"""
Tests for L{kaproto.rpc.peerpings}.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import PeerFlooded
from kaproto.limits import Limits
from kaproto.rpc.peerpings import PeerPings


@dataclass
class Shared:
    """
    The shared state of connections, reduced to what L{PeerPings} uses.
    """

    clock: IReactorTime
    limits: Limits


class PeerPingsTests(SynchronousTestCase):
    """
    Tests for the pings of one peer.
    """

    def setUp(self) -> None:
        """
        Allow three pings per second and two unread pongs.
        """
        self.clock = Clock()
        self.pings = PeerPings(Shared(self.clock, Limits(pingBudget=3, unreadPongs=2)))
        self.pongs: list[float] = []

    def reassure(self, *, asked: bool) -> None:
        """
        Start to send pongs to a peer that is not read.
        """
        self.pings.startReassuring(
            lambda: self.pongs.append(self.clock.seconds()),
            asked=asked,
        )

    def test_budget(self) -> None:
        """
        A peer has a budget of pings for each second.
        """
        for _ in range(2):
            for _ in range(3):
                self.pings.received(congested=False)
            self.assertRaises(PeerFlooded, self.pings.received, congested=False)
            self.clock.advance(1)

    def test_unreadAnswers(self) -> None:
        """
        Unread pongs are counted until all are read.
        """
        for _ in range(3):
            self.pings.received(congested=True)
            self.pings.received(congested=True)
            self.pings.answersRead()
            self.clock.advance(1)
        self.pings.received(congested=True)
        self.pings.received(congested=True)
        error = self.assertRaises(PeerFlooded, self.pings.received, congested=True)
        self.assertEqual(str(error), "it pings, but has left 2 pongs unread")

    def test_reassuring(self) -> None:
        """
        A peer that is not read gets two pongs per ping interval, or one per second if that is
        unknown.  The interval is the shortest time between two pings, ignoring bursts.
        """
        for gaps, expected in (
            ((), [1, 2, 3]),
            ((0.01,), [1, 2, 3]),
            ((1,), [0.5, 1, 1.5, 2, 2.5, 3]),
            ((4, 3, 4), [1.5, 3]),
        ):
            self.setUp()
            self.pings.received(congested=False)
            for gap in gaps:
                self.clock.advance(gap)
                self.pings.received(congested=False)
            start = self.clock.seconds()
            self.reassure(asked=False)
            self.clock.pump([0.25] * 12)
            self.assertEqual([round(at - start, 2) for at in self.pongs], expected)
            self.pings.stopReassuring()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whoIsReassured(self) -> None:
        """
        Only a peer that has asked for keepalive or has pinged gets pongs.  A second start changes
        nothing.
        """
        self.reassure(asked=False)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pings.stopReassuring()
        self.reassure(asked=True)
        self.reassure(asked=True)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
