"""
Tests of an application with keepalive: both ends in memory, on a simulated clock.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chat import ChatFactory
from kaproto import KeepAlive, Mandatory
from kaproto.testing import memoryPair
from kaproto.watch import watched, watchedClient


class ChatTests(SynchronousTestCase):
    """
    The chat with keepalive.
    """

    def test_dead(self) -> None:
        """
        When the network loses everything, both ends detect it after three seconds.
        """
        clock = Clock()
        server = watched(ChatFactory(), Mandatory(KeepAlive(1, 2)), "lines", clock=clock)
        client = watchedClient(ChatFactory(), KeepAlive(1, 2), "lines", clock=clock)
        pair = memoryPair(server, client, clock)
        pair.flush()
        pair.blackhole()
        pair.advance(3.1)
        self.assertTrue(pair.serverTransport.disconnected)
        self.assertTrue(pair.clientTransport.disconnected)
