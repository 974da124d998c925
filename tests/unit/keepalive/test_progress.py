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


class IsAskedTests(SynchronousTestCase):
    """
    Tests for L{Progress.isAsked}.
    """

    def test_heldBack(self) -> None:
        """
        What is written while a ping is held back is in front of it.
        """
        progress = Progress()
        self.assertFalse(progress.isAsked(1, Delivery(0, 0), 0, isHeldBack=True))
        self.assertFalse(progress.isAsked(2, Delivery(1000, 0), 0, isHeldBack=True))
        self.assertFalse(progress.isAsked(3, Delivery(1000, 1000), 0, isHeldBack=True))
        self.assertFalse(progress.isAsked(4, Delivery(5000, 1500), 0, isHeldBack=False))
        self.assertTrue(progress.isAsked(5, Delivery(5000, 2000), 0, isHeldBack=False))
        self.assertTrue(progress.isAsked(6, Delivery(9000, 2000), 0, isHeldBack=False))

    def test_memoryOfPings(self) -> None:
        """
        On a UNIX socket the queue is counted in memory, of which a ping takes more than its bytes.
        """
        self.assertTrue(Progress().isAsked(2, Delivery(768), 0, isHeldBack=False))
        self.assertFalse(Progress().isAsked(2, Delivery(768, 0), 0, isHeldBack=False))


class TakenAtTests(SynchronousTestCase):
    """
    L{Progress.takenAt}.
    """

    def test_kernel(self) -> None:
        """
        While segments are in flight bytes were taken when some were last acknowledged, else when
        some were last sent, but not before the last look, which has not seen them taken.
        """
        for inFlight, sent, acknowledged, expected in (
            (1, 0.9, 0.2, 2.8),
            (0, 0.4, 0.1, 2.6),
            (0, 5, 0.1, 2),
        ):
            progress = Progress()
            progress.isAsked(2, Delivery(5000, 0), 0, isHeldBack=False)
            found = Delivery(4000, 1000, inFlight, sinceSent=sent, sinceAcknowledged=acknowledged)
            progress.isAsked(3, found, 0, isHeldBack=False)
            self.assertAlmostEqual(progress.takenAt, expected)

    def test_unsent(self) -> None:
        """
        On a UNIX socket what the kernel has taken from us has not been taken by the peer.
        """
        progress = Progress()
        progress.isAsked(2, Delivery(18_000, unsent=8_000), 0, isHeldBack=False)
        before = progress.takenAt
        progress.isAsked(3, Delivery(18_000), 8_000, isHeldBack=False)
        self.assertEqual(progress.takenAt, before)
        progress.isAsked(4, Delivery(17_000), 8_000, isHeldBack=False)
        self.assertEqual(progress.takenAt, 4)
