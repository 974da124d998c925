"""
Tests for L{kaproto.rpc.replies}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import LocalProtocolError, RemoteError, RemoteProtocolError
from kaproto.rpc.replies import Replies
from kaproto.wire.message import (
    HEADER_SIZE,
    MESSAGE_MAX,
    Message,
    MessageReader,
    MessageType,
    Status,
    packError,
)

PROGRAM, PROCEDURE, VERSION = 0x66656564, 7, 3


class RepliesTests(SynchronousTestCase):
    """
    Tests for calls and their replies.
    """

    def setUp(self) -> None:
        """
        Create replies without pending calls.
        """
        self.replies = Replies()

    def expect(self) -> tuple[Message, Deferred[bytes]]:
        """
        Make a call.
        """
        packed, result = self.replies.expect(PROGRAM, PROCEDURE, b"abcd", VERSION)
        reader = MessageReader(MESSAGE_MAX)
        reader.feed(packed)
        message = reader.next()
        assert message is not None
        return message, result

    def answer(self, asked: Message, **changes: object) -> None:
        """
        Answer a call.

        @param changes: fields that differ from a correct reply.
        """
        right = asked._replace(type=MessageType.REPLY, payload=b"1234")
        self.replies.received(right._replace(**changes))  # type: ignore[arg-type]

    def test_calls(self) -> None:
        """
        Serials count up, and calls may be answered in any order.
        """
        asked = [self.expect() for _ in range(3)]
        self.assertEqual(
            [message for message, _ in asked],
            [
                Message(PROGRAM, VERSION, PROCEDURE, MessageType.CALL, serial, Status.OK, b"abcd")
                for serial in range(3)
            ],
        )
        self.assertEqual([serial in self.replies for serial in (0, 1, 2, 3)], [True] * 3 + [False])
        for number in (1, 0, 2):
            message, result = asked[number]
            self.assertNoResult(result)
            self.answer(message, payload=bytes([number] * 4))
            self.assertEqual(self.successResultOf(result), bytes([number] * 4))
            self.assertNotIn(number, self.replies)

    def test_serialsWrap(self) -> None:
        """
        The serial after the largest one is 0.
        """
        self.replies.serial = 2**32 - 1
        self.assertEqual([self.expect()[0].serial for _ in range(2)], [2**32 - 1, 0])

    def test_error(self) -> None:
        """
        An error reply fails the call with a L{RemoteError}.
        """
        message, result = self.expect()
        refused = RemoteError(9, 7, "not today")
        self.answer(message, status=Status.ERROR, payload=packError(refused))
        self.assertEqual(self.failureResultOf(result, RemoteError).value.message, "not today")

    def test_tooLarge(self) -> None:
        """
        A call that is too large for a message raises an error and is not recorded.
        """
        self.assertRaises(
            LocalProtocolError,
            self.replies.expect,
            PROGRAM,
            PROCEDURE,
            bytes(MESSAGE_MAX - HEADER_SIZE + 1),
            VERSION,
        )
        self.assertNotIn(0, self.replies)

    def test_wrongAnswers(self) -> None:
        """
        A reply that matches no pending call is a protocol error, and the call remains pending.
        """
        message, result = self.expect()
        for changes, said in (
            ({"serial": 5}, "serial 5 .*answers no call"),
            ({"program": 1}, "of program 0x1 to a call"),
            ({"procedure": 8}, "from procedure 8 of"),
            ({"status": 2}, "status 2"),
        ):
            error = self.assertRaises(RemoteProtocolError, self.answer, message, **changes)
            self.assertRegex(str(error), said)
        self.assertNoResult(result)
        self.answer(message)
        self.assertEqual(self.successResultOf(result), b"1234")
        self.assertRaises(RemoteProtocolError, self.answer, message)

    def test_givenUp(self) -> None:
        """
        The reply to a cancelled call is ignored once.
        """
        message, result = self.expect()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.answer(message)
        self.assertRaises(RemoteProtocolError, self.answer, message)

    def test_fail(self) -> None:
        """
        L{Replies.fail} fails each pending call once; cancelled calls are not affected.
        """
        (_, result), (_, givenUp) = self.expect(), self.expect()
        givenUp.cancel()
        self.failureResultOf(givenUp, CancelledError)
        reason = RemoteProtocolError("rubbish")
        self.replies.fail(reason)
        self.assertIs(self.failureResultOf(result).value, reason)
        self.replies.fail(reason)
