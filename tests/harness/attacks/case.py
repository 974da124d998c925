"""
The base class of the short forms.
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
    A test that attacks servers, and measures how honest clients are served.
    """

    def setUp(self) -> None:
        """
        Wait until no other test runs on this machine.
        """
        useMachine(self, alone=True)

    def target(self, target: Target) -> None:
        """
        Start a server, and stop it when the test ends.
        """
        if isinstance(target, LibvirtTarget):
            requireInterop("libvirtd")
        self.enterContext(target)

    def kaserver(self, *arguments: str) -> KaTarget:
        """
        @return: a running kaserver.
        """
        target = KaTarget(*arguments)
        self.target(target)
        return target

    def gateway(self, *arguments: str, settings: str = "") -> tuple[KaTarget, LibvirtTarget]:
        """
        @param settings: more lines for libvirtd's configuration.
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
        Attack a server.  Check that its memory and files stay bounded, that its log has no
        unexpected error, and that honest clients are served.
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
        Check that the server ended all of these connections between C{least} and C{most} seconds
        after they began.
        """
        self.assertEqual(len(outcome.seconds), outcome.times, outcome)
        self.assertGreater(min(outcome.seconds), least)
        self.assertLess(max(outcome.seconds), most)
