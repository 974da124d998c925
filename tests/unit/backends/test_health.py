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
    Stands in for the connection of a probe.
    """

    lastHeard = -inf
    closed = False
    problem: str | None = None

    def close(self) -> None:
        """
        Record that the probe was closed.
        """
        self.closed = True


class HealthTests(SynchronousTestCase):
    """
    Tests for L{Health}, which knows whether a server works.
    """

    def setUp(self) -> None:
        """
        Create a server without problems.
        """
        self.clock = Clock()
        self.asked: list[Asking] = []
        self.health = Health(self.clock, self.ask)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def ask(self) -> Asking:
        """
        Start a probe.
        """
        self.asked.append(Asking())
        return self.asked[-1]

    def test_works(self) -> None:
        """
        A server that worked in the last ten seconds is not probed.  A failure starts no probe until
        C{look} is called.
        """
        self.health.failed("it hangs")
        self.health.works()
        self.clock.advance(10)
        self.assertIsNone(self.health.look())
        self.assertEqual(self.asked, [])

    def refresh(self) -> Deferred[None]:
        """
        Wait for an up-to-date result.
        """
        return Deferred.fromCoroutine(self.health.refresh())

    def test_unknown(self) -> None:
        """
        A server is probed if no client ever opened it, none did in the last ten seconds, or
        connections were lost.  All callers of C{refresh} wait for the same probe.
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
        A server that refuses the connection, or does not answer within 2 seconds, has failed.
        C{refresh} then fires at once until the server answers.
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
        C{close} fires the Deferreds of all callers of C{refresh}.
        """
        waiting = self.refresh()
        self.health.close()
        self.successResultOf(waiting)

    def test_asks(self) -> None:
        """
        A server that has failed is probed on one connection until it answers.
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
        A client that opens proves that the server works, and so ends the probe.
        """
        self.health.failed("it hangs")
        self.health.look()
        self.health.works()
        self.assertIsNone(self.health.look())
        self.assertTrue(self.asked[0].closed)

    def test_close(self) -> None:
        """
        C{close} ends the probe.
        """
        self.health.failed("it hangs")
        self.health.look()
        self.health.close()
        self.assertTrue(self.asked[0].closed)
