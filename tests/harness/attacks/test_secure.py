"""
Short forms of the attacks on TLS.
"""

from __future__ import annotations

from functools import partial

from tests.harness.attacks import secure
from tests.harness.attacks.case import AttackTestCase
from tests.harness.attacks.honest import quantile

ATTACKERS = 4
NEWCOMER = 0.25
MIB = 1024


class SecureTests(AttackTestCase):
    """
    Tests for peers that abuse TLS.
    """

    def secure(self, *, newest: bool = False) -> secure.TLSTarget:
        """
        @return: a kaserver with TLS.
        """
        target = secure.TLSTarget("--mode=2", newest=newest)
        self.target(target)
        return target

    def test_strangers(self) -> None:
        """
        Four strangers that present slow certificate chains repeatedly do not delay honest clients.
        """
        target = self.secure()
        for chain in ("20 slow certificates", "many names"):
            attack = partial(secure.strangers, target.anonymous, 1.5, chain)
            result = self.attack(target, *[attack] * ATTACKERS)
            for outcome in result.outcomes:
                self.assertEqual(set(outcome.ends), {"refused in the handshake"}, chain)
            self.assertLess(quantile(result.honest.newcomers, 0.5), NEWCOMER, chain)

    def test_renegotiations(self) -> None:
        """
        A client that renegotiates repeatedly is disconnected, and memory stays bounded.
        """
        target = self.secure()
        result = self.attack(target, partial(secure.renegotiations, target.address, 3, 6))
        self.assertEqual(result.outcomes[0].ends, {"closed": 3})
        self.assertEqual(result.log.count("TLS messages without data"), 3)
        self.assertLess(result.meter.growth, 3 * MIB)

    def test_keyUpdates(self) -> None:
        """
        A client that updates its keys repeatedly is disconnected, and memory stays bounded.
        """
        target = self.secure(newest=True)
        result = self.attack(target, partial(secure.keyUpdates, target.address, 3, 6))
        self.assertEqual(result.outcomes[0].ends, {"closed": 3})
        self.assertEqual(result.log.count("TLS messages without data"), 3)
        self.assertLess(result.meter.growth, 3 * MIB)

    def test_reloads(self) -> None:
        """
        The revocation list can be reloaded during handshakes: each handshake completes with the
        latest list, and honest clients are not affected.
        """
        target = self.secure()
        result = self.attack(target, partial(secure.reloads, target, 20))
        self.assertEqual(
            result.outcomes[0].ends,
            {"let in": 60, "mallory let in": 10, "mallory refused": 10},
        )
        self.assertEqual(result.log.count("reloaded"), 20)

    def test_endless(self) -> None:
        """
        A client that sends a handshake without end is disconnected.
        """
        target = self.secure()
        result = self.attack(target, partial(secure.endless, target.anonymous, 20, 6))
        self.assertEqual(result.outcomes[0].ends, {"closed": 20})
        self.assertEqual(result.log.count("without completing the TLS handshake"), 20)

    def test_announced(self) -> None:
        """
        A long message announced in a handshake takes no more memory than that message.
        """
        target = self.secure()
        result = self.attack(target, partial(secure.announced, target.anonymous, 50, 1))
        self.assertLess(result.meter.growth, 50 * 256)
