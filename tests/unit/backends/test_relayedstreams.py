"""
Tests for L{kaproto.backends.relayedstreams}.
"""

from __future__ import annotations

from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.relayedstreams import RelayedStreams
from kaproto.limits import Limits


class RelayedStreamsTests(SynchronousTestCase):
    """
    Tests for the record of open streams.
    """

    def setUp(self) -> None:
        """
        Create a record that distinguishes two streams.
        """
        self.shared = SimpleNamespace(limits=Limits(relayedStreams=2))
        self.streams = RelayedStreams(self.shared)

    def use(self, *serials: int) -> None:
        """
        Relay a message for each of these streams.
        """
        for serial in serials:
            self.streams.used(serial)

    def test_open(self) -> None:
        """
        A stream is open from its first message until the server has ended it.
        """
        self.assertFalse(self.streams.areOpen)
        self.use(1, 2, 1)
        self.assertEqual((self.streams.areOpen, self.streams.known), (True, 2))
        self.streams.ended(1, failed=False)
        self.assertEqual((self.streams.areOpen, self.streams.known), (True, 1))
        self.streams.ended(2, failed=False)
        self.assertEqual((self.streams.areOpen, self.streams.known), (False, 0))

    def test_more(self) -> None:
        """
        Streams beyond the limit are not distinguished: they count as open for ever.
        """
        self.use(1, 2, 3)
        for serial in (1, 2, 3):
            self.streams.ended(serial, failed=False)
        self.assertEqual((self.streams.areOpen, self.streams.known), (True, 0))

    def test_failed(self) -> None:
        """
        Messages that the client sends before it reads that a stream failed do not open it again.
        As many failed streams are remembered as open ones are distinguished.
        """
        for serial in (1, 2):
            self.use(serial)
            self.streams.ended(serial, failed=True)
            self.use(1)
        self.assertFalse(self.streams.areOpen)
        self.streams.ended(3, failed=True)
        self.use(1)
        self.assertTrue(self.streams.areOpen)

    def test_limitChanges(self) -> None:
        """
        The limit may change at any time.
        """
        self.shared.limits = Limits(relayedStreams=1)
        self.use(1, 2)
        self.assertEqual(self.streams.known, 1)
