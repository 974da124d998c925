"""
Short forms of the attacks by RST.
"""

from __future__ import annotations

from functools import partial

from tests.harness.attacks.case import AttackTestCase
from tests.harness.attacks.catalogue import LOGIN
from tests.harness.attacks.resets import (
    GATEWAY_STATES,
    LOGIN_STATES,
    REFUSAL_STATES,
    STATES,
    resets,
)
from tests.harness.attacks.targets import KaTarget


class ResetTests(AttackTestCase):
    """
    Peers that end their connection with RST.
    """

    def test_everyState(self) -> None:
        """
        In whatever state it comes, it is the end of that connection and of nothing else, and there
        is nothing to say about it.
        """
        target = self.kaserver("--mode=2")
        result = self.attack(target, partial(resets, target.address, 20, STATES))
        self.assertEqual(set(result.outcomes[0].ends.values()), {20})
        self.assertEqual(result.log, "")

    def test_refused(self) -> None:
        """
        So it is for those who are being refused.
        """
        target = self.kaserver("--mode=2")
        result = self.attack(target, partial(resets, target.address, 20, REFUSAL_STATES))
        self.assertLessEqual(result.log.count("refused"), 40)

    def test_loggingIn(self) -> None:
        """
        So it is for those who are logging in.
        """
        target = KaTarget("--auth-delay=0.2", login=LOGIN)
        self.target(target)
        self.attack(target, partial(resets, target.address, 20, LOGIN_STATES))

    def test_gateway(self) -> None:
        """
        So it is through the gateway, and libvirtd is rid of them as well.
        """
        target, upstream = self.gateway("--mode=2", settings="max_anonymous_clients = 0\n")
        self.attack(target, partial(resets, target.address, 10, GATEWAY_STATES))
        self.assertTrue(upstream.running)
