"""
Tests for L{kaproto.records.refusals}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from kaproto.peer import Peer
from kaproto.records.refusals import CALLERS_MAX, Refusals


def caller(host: int, port: int = 1) -> Peer:
    """
    @return: a peer.
    """
    return Peer(IPv4Address("TCP", f"10.0.{host // 256}.{host % 256}", port))


class RefusalsTests(SynchronousTestCase):
    """
    Tests for the sums of refusals by caller.
    """

    def test_sums(self) -> None:
        """
        A caller's port does not matter; the latest caller comes first.
        """
        refusals = Refusals()
        refusals.add(caller(1), 1.0, refused=False)
        refusals.add(caller(2), 2.0, refused=True)
        refusals.add(caller(1, 7), 3.0, refused=False)
        self.assertEqual(
            [(each.caller.host, each.refused, each.wouldRefuse, each.last) for each in refusals],
            [("10.0.0.1", 0, 2, 3.0), ("10.0.0.2", 1, 0, 2.0)],
        )

    def test_bounded(self) -> None:
        """
        The number of callers is bounded: those refused longest ago are dropped.
        """
        refusals = Refusals()
        for number in range(CALLERS_MAX):
            refusals.add(caller(number), number, refused=True)
        refusals.add(caller(0), CALLERS_MAX, refused=True)
        refusals.add(caller(CALLERS_MAX), CALLERS_MAX + 1, refused=True)
        self.assertEqual(len(refusals), CALLERS_MAX)
        hosts = [each.caller.host for each in refusals]
        self.assertEqual(hosts[:2], ["10.0.3.232", "10.0.0.0"])
        self.assertNotIn("10.0.0.1", hosts)
