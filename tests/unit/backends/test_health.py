"""
Tests for L{kaproto.backends.health}.
"""

from __future__ import annotations

from math import inf

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.health import Health


class Asking:
    """
    In the place of a connection that asks.
    """

    lastHeard = -inf
    closed = False

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
        A server that works is not asked, and neither is one that failed while nobody looks.
        """
        self.assertIsNone(self.health.look())
        self.health.failed("it hangs")
        self.health.works()
        self.assertIsNone(self.health.look())
        self.assertEqual(self.asked, [])

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
