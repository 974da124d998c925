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
        The kernel knows how long ago the last bytes arrived.
        """
        progress = Progress()
        self.assertEqual(progress.heardAt(10, Delivery(0, silence=0.25), None), 9.75)
        self.assertEqual(progress.heardAt(12, Delivery(0, silence=2.25), 500), 9.75)

    def test_tlsLayer(self) -> None:
        """
        Without the kernel's time, bytes have arrived if the TLS layer counted more than at the last
        look.
        """
        for found in (None, Delivery(0)):
            progress = Progress()
            looks = [progress.heardAt(at, found, n) for at, n in ((2, 500), (3, 500), (4, 501))]
            self.assertEqual(looks, [-inf, -inf, 4])

    def test_nobodyKnows(self) -> None:
        """
        Without the kernel's time and a TLS layer, nothing was heard.
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
        Bytes written while a ping is held back precede it.
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
        On a UNIX socket the queue is measured in kernel memory, of which a ping takes more than its
        bytes.
        """
        self.assertTrue(Progress().isAsked(2, Delivery(768), 0, isHeldBack=False))
        self.assertFalse(Progress().isAsked(2, Delivery(768, 0), 0, isHeldBack=False))


class TakenAtTests(SynchronousTestCase):
    """
    Tests for L{Progress.takenAt}.
    """

    def test_kernel(self) -> None:
        """
        With segments in flight, bytes were taken when the last ones were acknowledged; otherwise
        when the last ones were sent. It was never before the previous look.
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
        On a UNIX socket, bytes that moved from our buffer into the kernel's were not taken by the
        peer.
        """
        progress = Progress()
        progress.isAsked(2, Delivery(18_000, unsent=8_000), 0, isHeldBack=False)
        before = progress.takenAt
        progress.isAsked(3, Delivery(18_000), 8_000, isHeldBack=False)
        self.assertEqual(progress.takenAt, before)
        progress.isAsked(4, Delivery(17_000), 8_000, isHeldBack=False)
        self.assertEqual(progress.takenAt, 4)
