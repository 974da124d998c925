"""
Short forms of the attacks that send too much, or read too little.
"""

from __future__ import annotations

from functools import partial

from tests.harness.attacks import floods
from tests.harness.attacks.case import AttackTestCase
from tests.harness.attacks.honest import quantile
from tests.interop import wire

PEERS = 20


class FloodTests(AttackTestCase):
    """
    Tests for peers that send too much.
    """

    def test_pings(self) -> None:
        """
        A flood of pings is disconnected at once.
        """
        target = self.kaserver("--mode=2")
        result = self.attack(target, partial(floods.flood, target.address, PEERS, 3, wire.PING))
        self.assertEnded(result.outcomes[0], 0, 2)
        self.assertEqual(result.log.count("more than 100 pings in a second"), PEERS)

    def test_others(self) -> None:
        """
        Floods of pongs, calls and unsolicited replies, as fast as possible or byte by byte, do not
        delay other clients.
        """
        target = self.kaserver("--mode=2", "--interval=0.3", "--count=3")
        pong = partial(floods.flood, target.address, PEERS, 0.7, wire.PONG)
        single = partial(floods.singleBytes, target.address, PEERS, 0.7)
        result = self.attack(target, pong, single)
        for outcome in result.outcomes:
            self.assertEqual(outcome.ends, {"stays": PEERS})
        call = wire.encode(wire.GET_HOSTNAME)
        self.attack(target, partial(floods.flood, target.address, PEERS, 0.7, call))

    def test_gateway(self) -> None:
        """
        A flood of pongs through the gateway does not delay other clients, and the gateway does not
        buffer what a client does not read.
        """
        target, _upstream = self.gateway("--mode=2")
        self.attack(target, partial(floods.flood, target.address, PEERS, 0.7, wire.PONG))
        result = self.attack(target, partial(floods.unreadReplies, target.address, 2, 1))
        self.assertEqual(result.outcomes[0].ends, {"stays": 2})
        self.assertLess(result.meter.growth, 3 * 1024)

    def test_unreadPongs(self) -> None:
        """
        A client that pings and does not read the pongs is disconnected.
        """
        target = self.kaserver("--mode=2")
        result = self.attack(target, partial(floods.unreadPongs, target.address, 5, 8))
        self.assertEnded(result.outcomes[0], 0.3, 8)
        self.assertEqual(result.log.count("it pings, but has left 64 pongs unread"), 5)

    def test_comeAndGo(self) -> None:
        """
        After 3,000 short connections, half of them ended by RST, the server has no files left open.
        """
        target = self.kaserver("--mode=2")
        result = self.attack(target, partial(floods.comeAndGo, target.address, 3000, 10))
        self.assertEqual(result.outcomes[0].ends, {"came and went": 3000})
        self.assertLess(quantile(result.honest.latencies, 0.5), 0.1)
