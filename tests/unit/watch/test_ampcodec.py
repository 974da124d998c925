"""
Tests for what only L{kaproto.watch.ampcodec} does.
"""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.protocols.amp import AMP
from twisted.trial.unittest import SynchronousTestCase

from kaproto.watch import (
    AMPCodec,
    Control,
    Kind,
)
from tests.unit.watch.test_codecs import sift


class PlainAMPTests(SynchronousTestCase):
    """
    A peer that speaks AMP and knows no keepalive: Twisted's own.
    """

    def answers(self, box: bytes) -> list[Control]:
        """
        What such a peer answers to a control message.
        """
        peer = AMP()
        transport = StringTransport()
        peer.makeConnection(transport)
        peer.dataReceived(box)
        self.assertFalse(transport.disconnecting)
        rest, controls, _ = sift(AMPCodec(), [transport.value()])
        self.assertEqual(rest, b"")
        return controls

    def test_ask(self) -> None:
        """
        It declines, and stays connected.
        """
        self.assertEqual(self.answers(AMPCodec().ask(5)), [Control(Kind.DECLINE)])

    def test_ping(self) -> None:
        """
        It answers all the same.
        """
        self.assertEqual(self.answers(AMPCodec().ping), [Control(Kind.PONG)])

    def test_decline(self) -> None:
        """
        A server that does not offer keepalive says the same.
        """
        self.assertEqual(sift(AMPCodec(), [AMPCodec().decline()])[1], [Control(Kind.DECLINE)])
