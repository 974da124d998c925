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
    Tests for peers that end their connection with RST.
    """

    def test_everyState(self) -> None:
        """
        In every state a RST ends that connection only, and nothing is logged.
        """
        target = self.kaserver("--mode=2")
        result = self.attack(target, partial(resets, target.address, 20, STATES))
        self.assertEqual(set(result.outcomes[0].ends.values()), {20})
        self.assertEqual(result.log, "")

    def test_refused(self) -> None:
        """
        Clients can reset their connection while being refused, and each refusal is logged at most
        once.
        """
        target = self.kaserver("--mode=2")
        result = self.attack(target, partial(resets, target.address, 20, REFUSAL_STATES))
        self.assertLessEqual(result.log.count("refused"), 40)

    def test_loggingIn(self) -> None:
        """
        Clients that are logging in can be reset, and others are served.
        """
        target = KaTarget("--auth-delay=0.2", login=LOGIN)
        self.target(target)
        self.attack(target, partial(resets, target.address, 20, LOGIN_STATES))

    def test_gateway(self) -> None:
        """
        Clients of the gateway can reset their connection in every state, and libvirtd keeps
        running.
        """
        target, upstream = self.gateway("--mode=2", settings="max_anonymous_clients = 0\n")
        self.attack(target, partial(resets, target.address, 10, GATEWAY_STATES))
        self.assertTrue(upstream.running)
