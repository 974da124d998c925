"""
Tests for L{kaproto.rpc.reading}.
"""

from __future__ import annotations

from kaproto.rpc.reading import Pause
from kaproto.wire.message import (
    PING,
)
from tests.support import KEEPALIVE
from tests.support_protocol import ProtocolTestCase


class ReadingTests(ProtocolTestCase):
    """
    Tests for pausing reading.
    """

    def test_pausedSilence(self) -> None:
        """
        While reading is paused, the peer is neither pinged nor timed out; afterwards its silence
        continues from where it was.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        self.advance(0.5)
        wire.protocol._kaproto.pauseReading(Pause.CALLS)
        self.assertFalse(wire.reading)
        self.assertTrue(bool(wire.protocol._kaproto.reading.pauses))
        self.assertTrue(wire.protocol._kaproto.reading.pauses & Pause.CALLS)
        self.advance(100)
        self.assertEqual(wire.taken(), b"")
        wire.protocol._kaproto.reading.resume(Pause.CALLS)
        self.assertTrue(wire.reading)
        self.assertFalse(wire.protocol._kaproto.reading.pauses & Pause.CALLS)
        self.advance(0.25)
        self.assertEqual(wire.taken(), b"")
        self.advance(0.5)
        self.assertEqual(wire.taken(), PING)

    def test_reasons(self) -> None:
        """
        Reading resumes when no reason to pause is left.
        """
        wire = self.plain()
        wire.protocol._kaproto.reading.resume(Pause.CALLS)
        wire.protocol._kaproto.pauseReading(Pause.CALLS)
        wire.protocol._kaproto.pauseReading(Pause.CALLS)
        wire.protocol._kaproto.pauseReading(Pause.CONGESTION)
        wire.protocol._kaproto.reading.resume(Pause.CALLS)
        self.assertFalse(wire.reading)
        wire.protocol._kaproto.reading.resume(Pause.CONGESTION)
        self.assertTrue(wire.reading)
