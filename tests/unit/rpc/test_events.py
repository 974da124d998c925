"""
Tests for L{kaproto.rpc.events}.
"""

from __future__ import annotations

from kaproto.wire.message import MessageType
from kaproto.wire.programs import CloseReason
from tests.support import Probe, call
from tests.support_server import ServerTestCase, farewell


class EventsTests(ServerTestCase):
    """
    Tests for messages that answer no call.
    """

    def test_event(self) -> None:
        """
        A server can send messages that answer no call.
        """
        wire = self.connectOpen()
        wire.protocol.sendEvent(Probe.number, 9, b"abcd")
        self.assertEqual(
            wire.takeOne(), call(9, b"abcd", 1, program=Probe.number, kind=MessageType.MESSAGE)
        )
        wire.protocol.sendEvent(Probe.number, 9, b"", 3)
        self.assertEqual(wire.takeOne().version, 3)

    def test_closing(self) -> None:
        """
        The close event is sent only to a client that has registered for it, and not while closing.
        """
        wire = self.connectOpen()
        events = wire.protocol._kaproto.events
        for wants in (False, True, False):
            events.closeCallbackRegistered = wants
            events.closing(CloseReason.EOF)
            self.assertEqual(wire.take(), [farewell(CloseReason.EOF)] * wants)
        wire.protocol.abort(ValueError("enough"))
        events.closeCallbackRegistered = True
        events.closing(CloseReason.EOF)
        self.assertEqual(wire.take(), [])
