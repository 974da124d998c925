"""
Tests for L{kaproto.rpc.clients}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.limits import Limits
from kaproto.rpc.clients import _TURNED_AWAY, Clients


class ClientsTests(SynchronousTestCase):
    """
    Tests for L{Clients}.
    """

    def setUp(self) -> None:
        """
        Allow five clients, of which two may be anonymous.
        """
        self.clients: Clients[str, str] = Clients(Clock())
        self.limits = Limits(maxClients=5, maxAnonymousClients=2)

    def come(self, name: str, *, anonymous: bool = True) -> str | None:
        """
        Connect, and close the connection that has to go.

        @return: which that is.
        """
        leaver = self.stay(name, anonymous=anonymous)
        if leaver is not None:
            self.clients.gone(leaver)
        return leaver

    def stay(self, name: str, *, anonymous: bool = False) -> str | None:
        """
        Connect.

        @return: the connection that has to go, and is not closed yet.
        """
        return self.clients.connected(name, f"of {name}", self.limits, anonymous=anonymous)

    def test_oldestAnonymousGoes(self) -> None:
        """
        The anonymous one that came first goes when there is one too many.
        """
        self.assertEqual([self.come(name) for name in "abcd"], [None, None, "a", "b"])
        self.assertEqual((list(self.clients), len(self.clients)), (["c", "d"], 2))
        self.assertEqual(self.clients.protocols, ["of c", "of d"])
        self.assertEqual(self.clients.anonymous, 2)

    def test_knownStay(self) -> None:
        """
        Those who have become known are not counted any more.
        """
        self.come("a")
        self.clients.known("a")
        self.assertEqual([self.come(name) for name in "bcd"], [None, None, "b"])

    def test_goneAreNotCounted(self) -> None:
        """
        Nor are those who are gone.
        """
        self.come("a")
        self.clients.gone("a")
        self.clients.gone("a")
        self.assertEqual([self.come(name) for name in "bcd"], [None, None, "b"])

    def test_full(self) -> None:
        """
        When there are as many as may be, the one goes that has not opened for longest.
        """
        for name in "abcde":
            self.assertIsNone(self.come(name, anonymous=False))
        self.clients.opened("a")
        self.assertEqual([self.come(name, anonymous=False) for name in "fg"], ["b", "c"])

    def test_fullOfOthers(self) -> None:
        """
        When all others are open there is no place for the newcomer, nor for those who come while
        it is there still; of these no more than a few stay.
        """
        for name in "abcde":
            self.come(name, anonymous=False)
            self.clients.opened(name)
        late = [f"late {number}" for number in range(_TURNED_AWAY + 2)]
        leavers = [self.come(name, anonymous=False) for name in late]
        self.assertEqual(leavers, [None] * _TURNED_AWAY + late[:2])
        self.assertFalse(any(map(self.clients.hasPlace, late[2:])))
        self.clients.gone("a")
        self.assertIsNone(self.come("next", anonymous=False))
        self.assertTrue(self.clients.hasPlace("next"))

    def test_displacedHasNotGone(self) -> None:
        """
        Who had to go for another does not count, even if it takes its time.
        """
        self.limits = Limits(maxClients=1)
        self.assertEqual([self.stay(name) for name in "abc"], [None, "a", "b"])
        self.assertTrue(self.clients.hasPlace("c"))

    def test_turnedAwayAtOnce(self) -> None:
        """
        Of those who come in one turn, before any has gone, no more than a few stay either.
        """
        self.limits = Limits(maxClients=1)
        self.stay("open")
        self.clients.opened("open")
        late = [f"late {number}" for number in range(3 * _TURNED_AWAY)]
        leavers = [self.stay(name) for name in late]
        self.assertEqual(leavers, [None] * _TURNED_AWAY + late[: 2 * _TURNED_AWAY])

    def test_unlimited(self) -> None:
        """
        There need be no limits.
        """
        self.limits = Limits(maxClients=0, maxAnonymousClients=0)
        self.assertEqual([self.come(str(n)) for n in range(3000)], [None] * 3000)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["come", "plain", "known", "opened", "gone"]), st.integers(0, 50)
            )
        ),
        st.integers(1, 4),
        st.integers(1, 6),
    )
    def test_neverTooMany(
        self, script: list[tuple[str, int]], anonymous: int, clients: int
    ) -> None:
        """
        Whatever happens, there is never one anonymous client too many, never one client too many
        that may open, and the newcomer is never turned away for somebody who is not open.
        """
        self.setUp()
        self.limits = Limits(maxClients=clients, maxAnonymousClients=anonymous)
        opened: set[str] = set()
        rejected: set[str] = set()
        for number, (what, which) in enumerate(script):
            here = list(self.clients)
            name = here[which % len(here)] if here else ""
            if what in ("come", "plain"):
                leaver = self.come(str(number), anonymous=what == "come")
                self.assertNotIn(leaver, opened)
                if not self.clients.hasPlace(str(number)):
                    rejected.add(str(number))
                    self.assertEqual(len(opened & set(self.clients)), clients)
            elif name and what == "gone":
                self.clients.gone(name)
            elif name:
                self.clients.known(name)
                # Whoever is one too many is not let open.
                if what == "opened" and name not in rejected:
                    opened.add(name)
                    self.clients.opened(name)
            self.assertLessEqual(self.clients.anonymous, anonymous)
            self.assertLessEqual(len(set(self.clients) - rejected), clients)
            self.assertLessEqual(len(self.clients), clients + _TURNED_AWAY)


class EndTests(SynchronousTestCase):
    """
    Tests for the end of all connections.
    """

    def test_empty(self) -> None:
        """
        Whoever waits for the end is told when the last one is gone, or at once.
        """
        clients: Clients[int, int] = Clients(Clock())
        self.successResultOf(clients.whenEmpty())
        for number in range(2):
            clients.connected(number, number, Limits(), anonymous=False)
        waiting = [clients.whenEmpty(), clients.whenEmpty()]
        clients.gone(0)
        self.assertNoResult(waiting[0])
        clients.gone(1)
        for each in waiting:
            self.successResultOf(each)

    def test_endAll(self) -> None:
        """
        All are ended, a few in each turn of the reactor.
        """
        clock = Clock()
        clients: Clients[int, int] = Clients(clock)
        for number in range(1000):
            clients.connected(number, number, Limits(), anonymous=False)
        ended: list[int] = []
        clients.endAll(ended.append)
        self.assertTrue(0 < len(ended) < 500)
        clock.pump([0] * 1000)
        self.assertEqual(sorted(ended), list(range(1000)))
        self.assertEqual(clock.getDelayedCalls(), [])
