"""
Tests for L{kaproto.rpc.outgoing}.
"""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kaproto.rpc.outgoing import Outgoing
from kaproto.wire.filter import Header, MessageFilter
from kaproto.wire.message import HEADER, PING, PONG, packMessage
from tests.support import call

MESSAGE = packMessage(call(1, b"hello"))


class OutgoingTests(SynchronousTestCase):
    """
    Tests for writing to a peer, between relayed messages and in the middle of one.
    """

    def setUp(self) -> None:
        """
        Create the sending half of a connection.
        """
        self.transport = StringTransport()
        self.outgoing = Outgoing(self.transport)

    def relay(self) -> MessageFilter:
        """
        Relay messages to the peer.
        """
        self.outgoing.filter = MessageFilter(
            lambda _header: False, lambda _message, _raw: None, self.outgoing.forward
        )
        return self.outgoing.filter

    def test_written(self) -> None:
        """
        Everything is written; all bytes but those of pings are counted.  A trace gets the headers
        of messages.
        """
        shown: list[tuple[str, Header]] = []
        for isRelay in (False, True):
            self.setUp()
            if isRelay:
                self.relay()
            self.outgoing.write(PONG)
            self.outgoing.trace = lambda way, header: shown.append((way, header))
            self.outgoing.write(MESSAGE)
            self.outgoing.write(b"\1")
            self.outgoing.write(MESSAGE, atOnce=True)
            self.outgoing.forward(MESSAGE)
            self.outgoing.ping()
            expected = PONG + MESSAGE + b"\1" + MESSAGE + MESSAGE
            self.assertEqual(self.transport.value(), expected + PING)
            self.assertEqual(self.outgoing.bytesSent, len(expected))
        self.assertEqual(shown, [("out", HEADER.unpack_from(MESSAGE))] * 4)

    def test_midMessage(self) -> None:
        """
        Own messages and pings wait until the relayed message ends.  Meanwhile the peer waits for
        the rest, unless it is congested.
        """
        relayed = self.relay()
        for isMid, fed in ((False, MESSAGE), (True, MESSAGE[:30]), (False, MESSAGE[30:])):
            relayed.feed(fed)
            self.assertEqual(self.outgoing.isMidMessage, isMid)
            self.assertFalse(self.outgoing.isPingWaiting())
            for congested in (False, True):
                self.outgoing.congested = congested
                self.assertEqual(self.outgoing.isWaitingForRest(), isMid and not congested)
            self.transport.clear()
            self.outgoing.ping()
            self.outgoing.write(PONG)
            self.assertEqual(self.transport.value(), b"" if isMid else PING + PONG)
            self.assertEqual(self.outgoing.isPingWaiting(), isMid)
            self.transport.clear()
            if isMid:
                relayed.feed(MESSAGE[30:-1])
                relayed.feed(MESSAGE[-1:])
                self.assertEqual(self.transport.value(), MESSAGE[30:] + PING + PONG)
                relayed.feed(MESSAGE[:30])

    def test_stopped(self) -> None:
        """
        After C{stop} nothing is relayed.  Without a relay C{stop} does nothing.
        """
        self.outgoing.stop()
        relayed = self.relay()
        self.outgoing.stop()
        relayed.feed(MESSAGE)
        self.assertEqual(self.transport.value(), b"")
