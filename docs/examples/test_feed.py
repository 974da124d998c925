"""
Tests for the feed, without sockets and without waiting.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from feed import FEED, LATEST, SUBSCRIBE, FeedError, FeedFactory, Reading
from kaproto import KeepAliveClientFactory
from kaproto.errors import RemoteError
from kaproto.program import pack, unpack
from kaproto.testing import connectedPair


class FeedTests(SynchronousTestCase):
    """
    Tests for a server and a client of the feed.
    """

    def setUp(self) -> None:
        """
        Connect a client and a server in memory.
        """
        clock = Clock()
        self.factory = FeedFactory(clock)
        self.pair = connectedPair(self.factory, KeepAliveClientFactory(clock=clock))
        self.client = self.pair.client

    def test_latest(self) -> None:
        """
        A client can get the latest reading of a sensor.
        """
        self.factory.publish(Reading("door", 1))
        answer = self.client.call(FEED, LATEST, pack("door"))
        self.pair.flush()
        self.assertEqual(unpack(Reading, self.successResultOf(answer)), Reading("door", 1))

    def test_unknownSensor(self) -> None:
        """
        The answer for an unknown sensor is the feed's own error, and the connection stays open.
        """
        answer = self.client.call(FEED, LATEST, pack("window"))
        self.pair.flush()
        error = self.failureResultOf(answer, RemoteError).value
        self.assertEqual((error.code, error.domain), (FeedError.NO_SENSOR, FEED))
        self.assertEqual(error.message, "there is no such sensor")
        self.assertTrue(self.client.isAlive())

    def test_subscribe(self) -> None:
        """
        A client gets readings once it has subscribed.
        """
        heard = []
        self.client.listen(FEED, lambda _, payload: heard.append(unpack(Reading, payload)))
        self.factory.publish(Reading("door", 0))
        self.client.call(FEED, SUBSCRIBE)
        self.pair.flush()
        self.factory.publish(Reading("door", 1))
        self.pair.flush()
        self.assertEqual(heard, [Reading("door", 1)])

    def test_death(self) -> None:
        """
        A client whose cable was pulled is dropped after interval * (count + 1) seconds.
        """
        self.client.call(FEED, SUBSCRIBE)
        self.pair.flush()
        self.pair.blackhole()
        self.pair.advance(7.9)
        self.assertEqual(len(self.factory.connections), 1)
        self.pair.advance(0.2)
        self.assertEqual(len(self.factory.connections), 0)
        self.assertEqual(self.factory.counters.dead, 1)
