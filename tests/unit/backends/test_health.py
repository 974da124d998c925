"""
Tests for L{kaproto.backends.health}.
"""

from __future__ import annotations

from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.health import Health


class Asking:
    """
    In the place of a connection that asks.
    """

    lastHeard = -inf
    closed = False
    problem: str | None = None

    def close(self) -> None:
        """
        It is no longer needed.
        """
        self.closed = True


class HealthTests(SynchronousTestCase):
    """
    What is wrong with a server.
    """

    def setUp(self) -> None:
        """
        Nothing is.
        """
        self.clock = Clock()
        self.asked: list[Asking] = []
        self.health = Health(self.clock, self.ask)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def ask(self) -> Asking:
        """
        Connect.
        """
        self.asked.append(Asking())
        return self.asked[-1]

    def test_works(self) -> None:
        """
        A server that worked a moment ago is not asked, and neither is one that failed while nobody
        looks.
        """
        self.health.failed("it hangs")
        self.health.works()
        self.clock.advance(10)
        self.assertIsNone(self.health.look())
        self.assertEqual(self.asked, [])

    def refresh(self) -> Deferred[None]:
        """
        Wait until it is known how the server is.
        """
        return Deferred.fromCoroutine(self.health.refresh())

    def test_unknown(self) -> None:
        """
        A server that nobody has opened, or not for some seconds, or whose connections were lost, is
        asked, and whoever wants to know waits for the answer.
        """
        for seconds in (0.0, 10.1, 0.0):
            self.clock.advance(seconds)
            first, second = self.refresh(), self.refresh()
            asking = self.asked.pop()
            self.assertEqual(self.asked, [])
            self.clock.advance(0.06)
            self.assertNoResult(first)
            asking.lastHeard = 1.0
            self.clock.advance(0.06)
            for each in (first, second, self.refresh()):
                self.successResultOf(each)
            self.assertTrue(asking.closed)
            self.assertIsNone(self.health.look())
            if seconds:
                self.health.doubt()

    def test_away(self) -> None:
        """
        One that cannot be connected to, or does not answer in time, fails; that is known at once
        until it answers.
        """
        for problem, words in (("refused", "refused"), (None, "did not answer within 2 s")):
            waiting = self.refresh()
            asking = self.asked.pop()
            asking.problem = problem
            self.clock.pump([0.06] * (2 if problem else 40))
            self.successResultOf(waiting)
            self.assertIn(words, str(self.health.look()))
            self.successResultOf(self.refresh())
            asking.lastHeard = 1.0
            self.clock.advance(1)
            self.assertIsNone(self.health.look())
            self.health.doubt()

    def test_stops(self) -> None:
        """
        Nobody is left waiting when the gateway stops.
        """
        waiting = self.refresh()
        self.health.close()
        self.successResultOf(waiting)

    def test_asks(self) -> None:
        """
        One that failed is asked by one connection, until it has answered.
        """
        self.health.failed("it hangs")
        self.assertEqual(self.health.look(), "it hangs")
        self.health.failed("it is away")
        self.clock.pump([0.5] * 20)
        self.assertEqual(self.health.look(), "it is away")
        (asking,) = self.asked
        asking.lastHeard = 10.0
        self.clock.advance(1)
        self.assertIsNone(self.health.look())
        self.assertTrue(asking.closed)

    def test_clientIsFirst(self) -> None:
        """
        A client that is served shows as well that the server works.
        """
        self.health.failed("it hangs")
        self.health.look()
        self.health.works()
        self.assertIsNone(self.health.look())
        self.assertTrue(self.asked[0].closed)

    def test_close(self) -> None:
        """
        When the gateway stops, nobody is asked any more.
        """
        self.health.failed("it hangs")
        self.health.look()
        self.health.close()
        self.assertTrue(self.asked[0].closed)
