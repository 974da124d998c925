"""
Tests for L{kaproto.keepalive.progress}.
"""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from kaproto.keepalive.kernel import Delivery
from kaproto.keepalive.progress import Progress


class HeardAtTests(SynchronousTestCase):
    """
    Tests for L{Progress.heardAt}.
    """

    def test_kernel(self) -> None:
        """
        The kernel says how long ago the latest bytes came, at the first look too.
        """
        progress = Progress()
        self.assertEqual(progress.heardAt(10, Delivery(0, silence=0.25), None), 9.75)
        self.assertEqual(progress.heardAt(12, Delivery(0, silence=2.25), 500), 9.75)

    def test_tlsLayer(self) -> None:
        """
        Where the kernel does not say, bytes came if the TLS layer has more than at the last look.
        """
        for found in (None, Delivery(0)):
            progress = Progress()
            looks = [progress.heardAt(at, found, n) for at, n in ((2, 500), (3, 500), (4, 501))]
            self.assertEqual(looks, [-inf, -inf, 4])

    def test_nobodyKnows(self) -> None:
        """
        Without either nothing was heard.
        """
        progress = Progress()
        looks = [progress.heardAt(at, None, None) for at in (2, 3)]
        self.assertEqual(looks, [-inf, -inf])
