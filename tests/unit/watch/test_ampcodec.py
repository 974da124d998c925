"""
Tests for the parts of L{kaproto.watch.ampcodec} that other codecs do not have.
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
    Tests with Twisted's own AMP as a peer, which does not know keepalive.
    """

    def answers(self, box: bytes) -> list[Control]:
        """
        @return: the peer's answer to a control message.
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
        The peer declines a request for keepalive, and stays connected.
        """
        self.assertEqual(self.answers(AMPCodec().ask(5)), [Control(Kind.DECLINE)])

    def test_ping(self) -> None:
        """
        The peer's error reply to a ping counts as a pong.
        """
        self.assertEqual(self.answers(AMPCodec().ping), [Control(Kind.PONG)])

    def test_decline(self) -> None:
        """
        L{AMPCodec.decline} is read as C{DECLINE}.
        """
        self.assertEqual(sift(AMPCodec(), [AMPCodec().decline()])[1], [Control(Kind.DECLINE)])
