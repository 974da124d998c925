"""
Tests for L{kaproto.rpc.incoming}.
"""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from kaproto.errors import (
    ConnectionClosed,
    RemoteProtocolError,
)
from kaproto.rpc.protocol import KeepAliveFactory
from kaproto.wire.message import (
    HEADER_SIZE,
    MESSAGE_MAX,
    PING,
    PONG,
    TURN_MAX,
    Message,
    packMessage,
)
from kaproto.wire.xdr import Unpacker
from tests.strategies import garbage, pieces
from tests.support import KEEPALIVE, Wire, call
from tests.support_protocol import HELLO, Plain, ProtocolTestCase


class FramingTests(ProtocolTestCase):
    """
    Tests for parsing messages.
    """

    def test_whole(self) -> None:
        """
        A message in one read is delivered, and is not answered automatically.
        """
        wire = self.plain()
        wire.feed(HELLO)
        self.assertEqual(wire.protocol.messages, [HELLO])
        self.assertEqual(wire.taken(), b"")

    def test_byteByByte(self) -> None:
        """
        A message received byte by byte is delivered with its last byte.
        """
        wire = self.plain()
        for byte in packMessage(HELLO)[:-1]:
            wire.feed(bytes([byte]))
        self.assertEqual(wire.protocol.messages, [])
        wire.feed(packMessage(HELLO)[-1:])
        self.assertEqual(wire.protocol.messages, [HELLO])

    def test_manyAtOnce(self) -> None:
        """
        Several messages in one read, the last one incomplete, are delivered in order.
        """
        wire = self.plain()
        messages = [call(1, serial=serial) for serial in range(10)]
        wire.feed(*messages, packMessage(HELLO)[:30])
        self.assertEqual(wire.protocol.messages, messages)
        wire.feed(packMessage(HELLO)[30:])
        self.assertEqual(wire.protocol.messages, [*messages, HELLO])

    def test_lengthOutOfBounds(self) -> None:
        """
        An invalid length closes the connection, and the reason names the length.
        """
        for length in (0, HEADER_SIZE - 1, MESSAGE_MAX + 1, 2**32 - 1):
            wire = self.plain()
            wire.feed(length.to_bytes(4, "big"))
            self.assertTrue(wire.aborted)
            reason = self.reasonOf(wire)
            self.assertIsInstance(reason, RemoteProtocolError)
            self.assertIn(f"a message of {length} bytes", str(reason))

    def test_pongInsideMessage(self) -> None:
        """
        Bytes that look like a pong inside a message are part of the message.
        """
        wire = self.plain()
        message = call(1, PONG)
        wire.feed(packMessage(message)[:HEADER_SIZE])
        wire.feed(PONG)
        self.assertEqual(wire.protocol.messages, [message])

    def test_nothingIsReadWhenClosing(self) -> None:
        """
        After a message that closes the connection nothing is parsed, in the same read or later.
        """
        wire = self.plain()
        wire.feed(bytes(4), HELLO)
        wire.feed(HELLO)
        self.assertEqual(wire.protocol.messages, [])

    def test_closedByMessage(self) -> None:
        """
        After a subclass closes the connection, no further messages are delivered.
        """

        class Obedient(Plain):
            def messageReceived(self, message: Message) -> None:
                super().messageReceived(message)
                self._kaproto.disconnect(ConnectionClosed("as you wish"))

        wire = self.plain(Obedient)
        wire.feed(HELLO, HELLO)
        self.assertEqual(wire.protocol.messages, [HELLO])
        self.assertIsInstance(self.reasonOf(wire), ConnectionClosed)

    def test_undecodable(self) -> None:
        """
        A payload that cannot be decoded closes the connection with a L{RemoteProtocolError}.
        """

        class Decoding(Plain):
            def messageReceived(self, message: Message) -> None:
                Unpacker(message.payload).uint64()

        wire = self.plain(Decoding)
        wire.feed(HELLO)
        reason = self.reasonOf(wire)
        self.assertIsInstance(reason, RemoteProtocolError)
        self.assertIn("cannot be decoded", str(reason))

    def test_protocolError(self) -> None:
        """
        A protocol error raised by a subclass closes the connection, and becomes the reason.
        """
        error = RemoteProtocolError("something that may not be")

        class Strict(Plain):
            def messageReceived(self, message: Message) -> None:
                raise error

        wire = self.plain(Strict)
        wire.feed(HELLO)
        self.assertIs(self.reasonOf(wire), error)

    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """
        Arbitrary bytes in arbitrary pieces never raise.  If they close the connection, the reason
        is a L{RemoteProtocolError}, and no timer is left.
        """
        clock = Clock()
        factory = KeepAliveFactory(cast(IReactorTime, clock))
        factory.protocol = Plain
        wire = Wire(cast(Plain, factory.buildProtocol(None)))
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        for piece in data.draw(garbage().flatmap(pieces)):
            wire.feed(piece)
        if wire.closing:
            self.assertIsInstance(self.reasonOf(wire), RemoteProtocolError)
        else:
            wire.lose()
        self.assertEqual(clock.getDelayedCalls(), [])


class TurnTests(ProtocolTestCase):
    """
    Tests for fairness: a peer that sends many messages at once must not delay others.
    """

    def many(self, count: int) -> list[Message]:
        """
        @return: C{count} messages.
        """
        return [call(1, serial=serial) for serial in range(count)]

    def test_turns(self) -> None:
        """
        At most C{TURN_MAX} messages are delivered per turn of the reactor, and reading is paused
        until all are delivered.
        """
        wire = self.plain()
        messages = self.many(2 * TURN_MAX + 1)
        wire.feed(*messages)
        self.assertEqual(wire.protocol.messages, messages[:TURN_MAX])
        self.assertFalse(wire.reading)
        others: list[int] = []
        self.clock.callLater(0, lambda: others.append(len(wire.protocol.messages)))
        self.turns()
        self.assertEqual(others, [2 * TURN_MAX])
        self.assertEqual(wire.protocol.messages, messages)
        self.assertTrue(wire.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_oneTurn(self) -> None:
        """
        C{TURN_MAX} messages are delivered in one turn.
        """
        wire = self.plain()
        wire.feed(*self.many(TURN_MAX))
        self.assertTrue(wire.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moreComes(self) -> None:
        """
        Bytes that arrive during the pause, as they can over TLS, are parsed after the earlier ones.
        """
        wire = self.plain()
        messages = self.many(3 * TURN_MAX)
        wire.feed(*messages[: 2 * TURN_MAX])
        wire.feed(*messages[2 * TURN_MAX :])
        self.assertEqual(wire.protocol.messages, messages[:TURN_MAX])
        self.turns()
        self.assertEqual(wire.protocol.messages, messages)
        self.assertTrue(wire.reading)

    def test_notSilence(self) -> None:
        """
        A peer whose reading was paused for the turn is pinged again afterwards.
        """
        wire = self.plain()
        wire.protocol._kaproto.startKeepAlive(KEEPALIVE)
        wire.feed(PONG * (TURN_MAX + 1))
        self.turns()
        self.advance(KEEPALIVE.interval + 0.25)
        self.assertEqual(wire.taken(), PING)

    def test_error(self) -> None:
        """
        An invalid message in a later turn also closes the connection.
        """
        wire = self.plain()
        wire.feed(*self.many(TURN_MAX), bytes(28))
        self.assertFalse(wire.closing)
        self.turns()
        self.assertTrue(wire.aborted)
        self.assertIsInstance(self.reasonOf(wire), RemoteProtocolError)

    def test_closing(self) -> None:
        """
        After closing, the remaining messages are not delivered.
        """
        wire = self.plain()
        wire.feed(*self.many(2 * TURN_MAX))
        wire.protocol._kaproto.disconnect(ConnectionClosed("enough"))
        self.turns()
        self.assertEqual(len(wire.protocol.messages), TURN_MAX)

    def test_peerCloses(self) -> None:
        """
        When the peer closes cleanly, its remaining messages are delivered.
        """
        wire = self.plain()
        messages = self.many(4 * TURN_MAX)
        wire.feed(*messages)
        wire.lose()
        self.assertEqual(wire.protocol.messages, messages)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peerFails(self) -> None:
        """
        When the connection breaks, its remaining messages are not delivered.
        """
        wire = self.plain()
        wire.feed(*self.many(4 * TURN_MAX))
        wire.lose(ConnectionLost())
        self.assertEqual(len(wire.protocol.messages), TURN_MAX)
        self.assertEqual(self.clock.getDelayedCalls(), [])
