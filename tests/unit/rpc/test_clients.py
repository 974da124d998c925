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
        Allow five clients, at most two of them anonymous.
        """
        self.clients: Clients[str, str] = Clients(Clock())
        self.limits = Limits(maxClients=5, maxAnonymousClients=2)

    def come(self, name: str, *, anonymous: bool = True) -> str | None:
        """
        Connect a client, and close the one it displaces.

        @return: the displaced client.
        """
        leaver = self.stay(name, anonymous=anonymous)
        if leaver is not None:
            self.clients.gone(leaver)
        return leaver

    def stay(self, name: str, *, anonymous: bool = False) -> str | None:
        """
        Connect a client.

        @return: the displaced client, which is not closed yet.
        """
        return self.clients.connected(name, f"of {name}", self.limits, anonymous=anonymous)

    def test_oldestAnonymousGoes(self) -> None:
        """
        If there are too many anonymous clients, the oldest of them is displaced.
        """
        self.assertEqual([self.come(name) for name in "abcd"], [None, None, "a", "b"])
        self.assertEqual((list(self.clients), len(self.clients)), (["c", "d"], 2))
        self.assertEqual(self.clients.protocols, ["of c", "of d"])
        self.assertEqual(self.clients.anonymous, 2)

    def test_knownStay(self) -> None:
        """
        Clients that have become known no longer count as anonymous.
        """
        self.come("a")
        self.clients.known("a")
        self.assertEqual([self.come(name) for name in "bcd"], [None, None, "b"])

    def test_goneAreNotCounted(self) -> None:
        """
        Clients that have gone no longer count as anonymous.
        """
        self.come("a")
        self.clients.gone("a")
        self.clients.gone("a")
        self.assertEqual([self.come(name) for name in "bcd"], [None, None, "b"])

    def test_full(self) -> None:
        """
        On a full server a new client displaces the oldest one that has not opened.
        """
        for name in "abcde":
            self.assertIsNone(self.come(name, anonymous=False))
        self.clients.opened("a")
        self.assertEqual([self.come(name, anonymous=False) for name in "fg"], ["b", "c"])

    def test_fullOfOthers(self) -> None:
        """
        If all others are open, new clients have no place and wait for an error; only a few of them
        may wait.
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
        A displaced client does not count, even before it is closed.
        """
        self.limits = Limits(maxClients=1)
        self.assertEqual([self.stay(name) for name in "abc"], [None, "a", "b"])
        self.assertTrue(self.clients.hasPlace("c"))

    def test_turnedAwayAtOnce(self) -> None:
        """
        Only a few clients without a place may wait, even if many connect in one turn.
        """
        self.limits = Limits(maxClients=1)
        self.stay("open")
        self.clients.opened("open")
        late = [f"late {number}" for number in range(3 * _TURNED_AWAY)]
        leavers = [self.stay(name) for name in late]
        self.assertEqual(leavers, [None] * _TURNED_AWAY + late[: 2 * _TURNED_AWAY])

    def test_unlimited(self) -> None:
        """
        Limits of 0 mean no limit.
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
        The limits on anonymous clients and on all clients always hold, and a client has no place
        only if all others are open.
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
                # A client without a place is not opened.
                if what == "opened" and name not in rejected:
                    opened.add(name)
                    self.clients.opened(name)
            self.assertLessEqual(self.clients.anonymous, anonymous)
            self.assertLessEqual(len(set(self.clients) - rejected), clients)
            self.assertLessEqual(len(self.clients), clients + _TURNED_AWAY)


class EndTests(SynchronousTestCase):
    """
    Tests for ending all connections.
    """

    def test_empty(self) -> None:
        """
        L{Clients.whenEmpty} fires when the last client has gone, or at once if there are none.
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
        L{Clients.endAll} ends all clients, a few in each turn of the reactor.
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
