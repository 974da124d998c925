"""
Short forms of the attacks with slow peers.
"""

from __future__ import annotations

from functools import partial

from tests.harness.attacks import slow
from tests.harness.attacks.case import AttackTestCase
from tests.harness.attacks.catalogue import LOGIN
from tests.harness.attacks.targets import KaTarget

PEERS = 30


class SlowTests(AttackTestCase):
    """
    Tests for peers that send too little.
    """

    def test_slow(self) -> None:
        """
        Clients that are not open in time are disconnected, whether they send byte by byte or
        nothing.  So are those that announce 32 MiB and do not answer pings.  An open client may
        send a call slowly.  Together they cost little processor time.
        """
        target = self.kaserver("--mode=2", "--interval=0.3", "--count=2", "--open-timeout=1")
        result = self.attack(
            target,
            partial(slow.dripFirst, target.address, PEERS, 2.5, 0.1),
            partial(slow.dripOpen, target.address, PEERS, 2.5, 0.1),
            partial(slow.idle, target.address, PEERS, 2.5),
            partial(slow.announced, target.address, PEERS, 2.5),
            partial(slow.announced, target.address, PEERS, 2.5, early=True),
            partial(slow.halfClose, target.address, PEERS, 2.5),
            partial(slow.dripCall, target.address, PEERS, 1.7, 0.1),
        )
        first, opening, idle, announced, early, half, calling = result.outcomes
        for outcome in (first, opening, idle):
            self.assertEnded(outcome, 0.9, 2.2)
        self.assertEnded(announced, 0.8, 2.2)
        self.assertEnded(early, 0, 0.9)
        self.assertEnded(half, 0, 0.9)
        self.assertEqual(calling.ends, {"stays": PEERS})
        late = "it did not open the connection within 1 s"
        self.assertEqual(result.log.count(late), 3 * PEERS)
        self.assertEqual(result.log.count("is dead: "), PEERS)
        self.assertEqual(result.log.count("a message of 33554436 bytes, where"), PEERS)
        self.assertLess(result.meter.share, 0.5)

    def test_login(self) -> None:
        """
        Clients that do not log in in time are disconnected.
        """
        target = KaTarget("--auth-timeout=1", login=LOGIN)
        self.target(target)
        result = self.attack(
            target,
            partial(slow.dripFirst, target.address, PEERS, 2.5, 0.1),
            partial(slow.idle, target.address, PEERS, 2.5),
        )
        for outcome in result.outcomes:
            self.assertEnded(outcome, 0.9, 2.2)
        self.assertEqual(result.log.count("it did not log in within 1 s"), 2 * PEERS)
