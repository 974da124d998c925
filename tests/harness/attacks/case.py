"""
What the short forms have in common.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.attacks.honest import quantile
from tests.harness.attacks.rawsocket import Outcome
from tests.harness.attacks.scene import Result, play
from tests.harness.attacks.targets import KaTarget, LibvirtTarget, Target
from tests.interop.support import requireInterop
from tests.machine import useMachine

__all__ = ["AttackTestCase"]

_GROWTH = 16 * 1024
_BEGINNING = 0.2
_LATENCY = 0.12
_SLOWEST = 1.0


class AttackTestCase(SynchronousTestCase):
    """
    A test that attacks servers, and measures how others fare.
    """

    def setUp(self) -> None:
        """
        Have the machine alone.
        """
        useMachine(self, alone=True)

    def target(self, target: Target) -> None:
        """
        Start a server, which ends with the test.
        """
        if isinstance(target, LibvirtTarget):
            requireInterop("libvirtd")
        self.enterContext(target)

    def kaserver(self, *arguments: str) -> KaTarget:
        """
        @return: a kaserver.
        """
        target = KaTarget(*arguments)
        self.target(target)
        return target

    def gateway(self, *arguments: str, settings: str = "") -> tuple[KaTarget, LibvirtTarget]:
        """
        @param settings: for libvirtd.
        @return: a gateway and the libvirtd behind it.
        """
        upstream = LibvirtTarget(settings)
        self.target(upstream)
        target = KaTarget(*arguments, upstream=upstream)
        self.target(target)
        return target, upstream

    def attack(
        self, target: Target, *attacks: Callable[[], Outcome], newcomers: bool = True
    ) -> Result:
        """
        Attack a server, and check that it keeps within bounds, that nothing unexpected is in its
        log, and that the honest are served.
        """
        result = play(target, attacks, 15, newcomers=newcomers)
        target.check()
        honest = result.honest
        self.assertTrue(honest.alive, honest)
        self.assertGreater(honest.calls, 3)
        beginning = result.meter.before.at + _BEGINNING
        during = [
            latency
            for latency, begun in zip(honest.latencies, honest.begun, strict=True)
            if begun > beginning
        ]
        self.assertLess(quantile(during, 0.5), _LATENCY, during)
        self.assertLess(max(honest.latencies), _SLOWEST)
        self.assertLess(result.meter.growth, _GROWTH)
        self.assertEqual(result.leftFiles, 0)
        return result

    def assertEnded(self, outcome: Outcome, least: float, most: float) -> None:
        """
        The server has ended all of these connections, when they were so many seconds old.
        """
        self.assertEqual(len(outcome.seconds), outcome.times, outcome)
        self.assertGreater(min(outcome.seconds), least)
        self.assertLess(max(outcome.seconds), most)
