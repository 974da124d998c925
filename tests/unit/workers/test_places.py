"""
Tests for L{kaproto.workers.places}.
"""

from __future__ import annotations

import os
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.limits import Limits
from kaproto.rpc.clients import Clients
from kaproto.workers.places import Elsewhere, SharedCounts


class SharedCountsTests(SynchronousTestCase):
    """
    Tests for the counts of clients in shared memory.
    """

    def setUp(self) -> None:
        """
        Create counts with four rows.
        """
        self.counts = SharedCounts.create(4)
        self.addCleanup(self.counts.close)

    def test_shared(self) -> None:
        """
        A count that one process writes is read by others, until it is cleared.
        """
        other = SharedCounts(4, os.dup(self.counts.descriptor))
        self.addCleanup(other.close)
        other.set(1, 5)
        other.set(3, 2)
        self.assertEqual((len(self.counts), self.counts.of(1)), (7, 5))
        self.assertEqual((self.counts.clear(1), len(other)), (5, 2))

    def test_numbers(self) -> None:
        """
        Connection numbers are unique, even if a row is used again, and each yields its row.
        """
        first = list(islice(self.counts.numbers(2), 3))
        other = list(islice(self.counts.numbers(3), 3))
        again = list(islice(self.counts.numbers(2), 3))
        self.assertEqual(first, [6, 10, 14])
        self.assertEqual(len({*first, *other, *again}), 9)
        self.assertEqual({self.counts.rowOf(each) for each in first + again}, {2})


class ElsewhereTests(SynchronousTestCase):
    """
    Tests for limits across processes.
    """

    def processes(self, rows: int, room: int = 0) -> list[Clients[str, str]]:
        """
        @return: the clients of several processes with a common limit.
        """
        counts = SharedCounts.create(rows)
        self.addCleanup(counts.close)
        found: list[Clients[str, str]] = []
        for row in range(rows):
            clients: Clients[str, str] = Clients(Clock())
            clients.elsewhere = Elsewhere(counts, row, rows, room)
            found.append(clients)
        return found

    @given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("cog")), max_size=60))
    def test_maxClients(self, steps: list[tuple[int, str]]) -> None:
        """
        No matter how clients connect, open and leave, at most C{maxClients} have a place in all
        processes together.
        """
        limits = Limits(maxClients=4)
        processes = self.processes(3)
        present: list[list[str]] = [[], [], []]
        for number, (which, what) in enumerate(steps):
            clients, here = processes[which], present[which]
            if what == "c":
                here.append(name := str(number))
                displaced = clients.connected(name, name, limits, anonymous=False)
                if displaced is not None:
                    clients.gone(displaced)
                    here.remove(displaced)
            elif here and what == "o":
                clients.opened(here[0])
            elif here:
                clients.gone(here.pop(0))
            places = sum(
                clients.hasPlace(each)
                for clients, some in zip(processes, present, strict=True)
                for each in some
            )
            self.assertLessEqual(places, 4)

    def test_full(self) -> None:
        """
        A client is refused while clients of other processes have all places; when one of them
        leaves, the next client gets its place.
        """
        one, two = self.processes(2)
        limits = Limits(maxClients=2)
        for name in "ab":
            one.connected(name, name, limits, anonymous=False)
            one.opened(name)
        two.connected("c", "c", limits, anonymous=False)
        self.assertFalse(two.hasPlace("c"))
        one.gone("a")
        two.connected("d", "d", limits, anonymous=False)
        self.assertTrue(two.hasPlace("d"))

    def test_room(self) -> None:
        """
        A process accepts no more clients than it has room for, even if the common limit is higher.
        """
        (one, _two) = self.processes(2, room=1)
        for name, has in (("a", True), ("b", False)):
            one.connected(name, name, Limits(maxClients=9), anonymous=False)
            one.opened(name)
            self.assertEqual(one.hasPlace(name), has)

    def test_anonymous(self) -> None:
        """
        Each process may have its share of the anonymous clients.
        """
        one, two = self.processes(2)
        limits = Limits(maxAnonymousClients=3)
        for name, displaced in (("a", None), ("b", None), ("c", "a")):
            self.assertEqual(one.connected(name, name, limits, anonymous=True), displaced)
        self.assertIsNone(two.connected("d", "d", limits, anonymous=True))
