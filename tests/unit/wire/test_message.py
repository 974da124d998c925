"""
Tests for L{kaproto.wire.message}.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import LocalProtocolError, RemoteError, RemoteProtocolError
from kaproto.wire.message import (
    HEADER_SIZE,
    MESSAGE_MAX,
    PING,
    PONG,
    Message,
    MessageReader,
    MessageType,
    Status,
    packError,
    packMessage,
    unpackError,
)
from kaproto.wire.xdr import XDRError
from tests.strategies import errors, garbage, messages, pieces

UNKNOWN_PROCEDURE = bytes.fromhex(
    "00000088 20008086 00000001 0000270f 00000001 00000005 00000001"
    "00000027 00000007 00000001 00000017"
    "756e6b6e6f776e2070726f6365647572653a2039393939 00"
    "00000002 00000000 00000001 00000002 25730000 00000001 00000017"
    "756e6b6e6f776e2070726f6365647572653a2039393939 00"
    "00000000 ffffffff ffffffff 00000000"
)
"""
The reply of libvirtd 9.0.0 to a call of procedure 9999.
"""


def lengthWord(length: int) -> bytes:
    """
    @return: the first four bytes of a message of C{length} bytes.
    """
    return length.to_bytes(4, "big")


def readAll(reader: MessageReader, data: Iterable[bytes]) -> tuple[list[Message], str | None]:
    """
    @return: the messages in C{data} up to an error, and the error's text.
    """
    taken: list[Message] = []
    try:
        for piece in data:
            reader.feed(piece)
            while (message := reader.next()) is not None:
                taken.append(message)
    except RemoteProtocolError as error:
        return taken, str(error)
    return taken, None


def peakMemory(action: Callable[[], object]) -> int:
    """
    @return: the peak of Python's memory during the action, in bytes.
    """
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class PackTests(SynchronousTestCase):
    """
    Tests for packing messages.
    """

    def test_keepAliveMessages(self) -> None:
        """
        A ping and a pong are the 28 bytes that libvirt's clients send and expect.
        """
        self.assertEqual(
            PING, bytes.fromhex("0000001c 6b656570 00000001 00000001 00000002 00000000 00000000")
        )
        self.assertEqual(
            PONG, bytes.fromhex("0000001c 6b656570 00000001 00000002 00000002 00000000 00000000")
        )

    def test_wordsAndPayload(self) -> None:
        """
        The length includes itself, the header and the payload.  A negative procedure is packed as a
        signed number.
        """
        message = Message(0x20008086, 1, -1, MessageType.CALL, 5, Status.OK, b"\0\0\0\7")
        self.assertEqual(
            packMessage(message),
            bytes.fromhex(
                "00000020 20008086 00000001 ffffffff 00000000 00000005 00000000 00000007"
            ),
        )

    def test_largestMessage(self) -> None:
        """
        A message has at most 32 MiB and 4 bytes; libvirtd would close the connection if it were
        longer.
        """
        header = Message(0x20008086, 1, 1, MessageType.CALL, 0, Status.OK)
        largest = header._replace(payload=bytes(MESSAGE_MAX - HEADER_SIZE))
        self.assertEqual(len(packMessage(largest)), 33554436)
        error = self.assertRaises(
            LocalProtocolError, packMessage, largest._replace(payload=largest.payload + b"\0")
        )
        self.assertIn("33554437", str(error))

    def test_numbersThatDoNotFit(self) -> None:
        """
        A number that does not fit into its header field raises an error that names it.
        """
        good = Message(0x20008086, 1, 1, MessageType.CALL, 0, Status.OK)
        for bad, number in [
            (good._replace(program=2**32), "4294967296"),
            (good._replace(program=-1), "-1"),
            (good._replace(procedure=2**31), "2147483648"),
            (good._replace(serial=2**32), "4294967296"),
        ]:
            error = self.assertRaises(LocalProtocolError, packMessage, bad)
            self.assertIn(number, str(error))

    @given(messages())
    def test_replies(self, call: Message) -> None:
        """
        A reply has the program, version, procedure and serial of its call, and its own type, status
        and payload.
        """
        expected = call._replace(type=MessageType.REPLY, status=Status.OK, payload=b"done")
        self.assertEqual(readAll(MessageReader(), [call.reply(b"done")]), ([expected], None))
        failed = call._replace(type=MessageType.REPLY, status=Status.ERROR, payload=b"")
        self.assertEqual(
            readAll(MessageReader(), [call.reply(status=Status.ERROR)]), ([failed], None)
        )


class MessageReaderTests(SynchronousTestCase):
    """
    Tests for reading messages.
    """

    @given(st.lists(messages(), max_size=5), st.data())
    def test_roundTrip(self, sent: list[Message], data: st.DataObject) -> None:
        """
        The same messages are read, no matter how their bytes are split, and no bytes are left.
        """
        stream = b"".join(map(packMessage, sent))
        reader = MessageReader()
        self.assertEqual(readAll(reader, data.draw(pieces(stream))), (sent, None))
        self.assertEqual(len(reader), 0)
        self.assertIsNone(reader.next())

    @given(garbage(), st.data())
    def test_anyBytes(self, stream: bytes, data: st.DataObject) -> None:
        """
        Arbitrary bytes are read as messages or raise L{RemoteProtocolError}, with the same result
        no matter how they are split.
        """
        limit = data.draw(st.sampled_from([HEADER_SIZE, 40, MESSAGE_MAX]))
        whole = readAll(MessageReader(limit), [stream])
        single = [stream[index : index + 1] for index in range(len(stream))]
        self.assertEqual(readAll(MessageReader(limit), single), whole)
        self.assertEqual(readAll(MessageReader(limit), data.draw(pieces(stream))), whole)

    def test_messageIsCompleteWithItsLastByte(self) -> None:
        """
        A message is returned as soon as its last byte has arrived, and not before.
        """
        reader = MessageReader()
        for index in range(HEADER_SIZE):
            self.assertIsNone(reader.next())
            self.assertEqual(len(reader), index)
            reader.feed(PING[index : index + 1])
        message = reader.next()
        self.assertEqual(message, Message(0x6B656570, 1, 1, MessageType.MESSAGE, 0, Status.OK))
        self.assertEqual(len(reader), 0)

    def test_foreign(self) -> None:
        """
        The error for the beginning of another protocol names that protocol.
        """
        for begin, name in (
            (b"\x16\x03\x01\x02\x00\x01", "a TLS handshake"),
            (b"\x15\x03\x03\x00\x02", "a TLS alert"),
            (b"GET / HTTP/1.1\r\n", "an HTTP request"),
            (b"OPTIONS * HTTP/1.1\r\n", "an HTTP request"),
            (b"PRI * HTTP/2.0\r\n", "an HTTP request"),
            (b"HTTP/1.1 400 Bad Request\r\n", "an HTTP response"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "the greeting of SSH"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "a PROXY header"),
            (b"\r\n\r\n\x00\r\nQUIT\n", "a PROXY header"),
        ):
            for whole in (begin, begin[:4]):
                reader = MessageReader()
                reader.feed(whole)
                error = self.assertRaises(RemoteProtocolError, reader.next)
                self.assertTrue(str(error).startswith(name), error)

    def test_lengthBounds(self) -> None:
        """
        A length below 28 or above the limit raises an error as soon as its four bytes have arrived.
        The error names the length and both bounds.
        """
        limit = 100
        for length, good in [
            (0, False),
            (4, False),
            (27, False),
            (28, True),
            (limit, True),
            (limit + 1, False),
            (2**32 - 1, False),
        ]:
            reader = MessageReader(limit)
            reader.feed(lengthWord(length)[:3])
            self.assertIsNone(reader.next())
            reader.feed(lengthWord(length)[3:])
            if good:
                self.assertIsNone(reader.next())
                reader.feed(bytes(length - 4))
                message = reader.next()
                assert message is not None
                self.assertEqual(len(message.payload), length - HEADER_SIZE)
            else:
                error = self.assertRaises(RemoteProtocolError, reader.next)
                self.assertIn(f"of {length} bytes, where 28 to 100", str(error))

    def test_lengthBoundsOfTheProtocol(self) -> None:
        """
        By default the limit is libvirtd's: 33,554,436 bytes are accepted, 33,554,437 are not.
        """
        for length in (28, 33554436):
            reader = MessageReader()
            reader.feed(lengthWord(length))
            self.assertIsNone(reader.next())
        for length in (27, 33554437):
            reader = MessageReader()
            reader.feed(lengthWord(length))
            self.assertRaises(RemoteProtocolError, reader.next)

    def test_limitChangesBetweenMessages(self) -> None:
        """
        A new limit applies to the next message, even if its bytes have already arrived.
        """
        reader = MessageReader(HEADER_SIZE)
        long = packMessage(Message(1, 1, 1, MessageType.CALL, 0, Status.OK, b"payload"))
        reader.feed(PING + long + long)
        self.assertIsNotNone(reader.next())
        self.assertRaises(RemoteProtocolError, reader.next)
        reader.limit = len(long)
        message = reader.next()
        assert message is not None
        self.assertEqual(message.payload, b"payload")

    @given(st.binary(max_size=60), st.data())
    def test_takeRest(self, rest: bytes, data: st.DataObject) -> None:
        """
        The bytes after the last message can be taken out unchanged.
        """
        reader = MessageReader()
        for piece in data.draw(pieces(PING + rest)):
            reader.feed(piece)
        self.assertIsNotNone(reader.next())
        self.assertEqual(len(reader), len(rest))
        self.assertEqual(reader.takeRest(), rest)
        self.assertEqual(len(reader), 0)
        self.assertEqual(reader.takeRest(), b"")

    def test_manyMessagesInOneRead(self) -> None:
        """
        Thousands of messages in one read are all returned.
        """
        reader = MessageReader()
        taken, error = readAll(reader, [PING * 9_999 + PONG])
        self.assertIsNone(error)
        self.assertEqual(len(taken), 10_000)
        self.assertEqual(taken[0].procedure, 1)
        self.assertEqual(taken[-1].procedure, 2)


class MemoryTests(SynchronousTestCase):
    """
    Tests for the memory that reading needs.
    """

    def test_nothingIsAllocatedForAPromise(self) -> None:
        """
        If a peer announces 32 MiB and sends only the header, only the header is held.
        """
        reader = MessageReader()
        header = lengthWord(MESSAGE_MAX) + PING[4:]

        def read() -> None:
            reader.feed(header)
            self.assertIsNone(reader.next())

        self.assertLess(peakMemory(read), 100 * 1024)
        self.assertEqual(len(reader), HEADER_SIZE)

    def test_nothingIsHeldBetweenMessages(self) -> None:
        """
        The memory of a large message is freed after the message has been returned.
        """
        reader = MessageReader()
        large = packMessage(Message(1, 1, 1, MessageType.CALL, 0, Status.OK, bytes(1_000_000)))
        halves = [large[:500_000], large[500_000:]]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for half in halves:
            reader.feed(half)
        self.assertGreater(tracemalloc.get_traced_memory()[0], 1_000_000)
        self.assertIsNotNone(reader.next())
        self.assertLess(tracemalloc.get_traced_memory()[0], 10_000)

    def test_largeMessageInSmallReads(self) -> None:
        """
        A message of 32 MiB that arrives in reads of 4 KiB is copied into the buffer once and out of
        it once.  A copy at each read, as with concatenated bytes, would hold the message in memory
        twice before it is complete.
        """
        reader = MessageReader()
        first = lengthWord(MESSAGE_MAX) + PING[4:] + bytes(4096 - HEADER_SIZE)
        piece = bytes(4096)

        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        reader.feed(first)
        for count in range(1, MESSAGE_MAX // 4096):
            self.assertIsNone(reader.next())
            reader.feed(piece)
            if count % 128 == 0:
                _held, peak = tracemalloc.get_traced_memory()
                self.assertLess(peak, 1.25 * len(reader))
        self.assertIsNone(reader.next())
        tracemalloc.stop()
        reader.feed(bytes(4))

        def takeIt() -> None:
            message = reader.next()
            assert message is not None
            self.assertEqual(len(message.payload), MESSAGE_MAX - HEADER_SIZE)

        self.assertLess(peakMemory(takeIt), 1.25 * MESSAGE_MAX)


class ErrorTests(SynchronousTestCase):
    """
    Tests for error payloads.
    """

    def test_errorFromLibvirtd(self) -> None:
        """
        An error that a real libvirtd sent is decoded.
        """
        (message,), _ = readAll(MessageReader(), [UNKNOWN_PROCEDURE])
        self.assertEqual(message[:6], (0x20008086, 1, 9999, MessageType.REPLY, 5, Status.ERROR))
        error = unpackError(message.payload)
        self.assertEqual(
            (error.code, error.domain, error.message, error.level),
            (39, 7, "unknown procedure: 9999", 2),
        )

    def test_errorAsBytes(self) -> None:
        """
        An error has all fields that libvirt's clients read.  The strings that no client prints are
        absent, and the two numbers are -1, as in libvirtd's errors.
        """
        self.assertEqual(
            packError(RemoteError(9, 7, "no")),
            bytes.fromhex(
                "00000009 00000007 00000001 00000002 6e6f0000 00000002"
                "00000000 00000000 00000000 00000000 ffffffff ffffffff 00000000"
            ),
        )

    @given(errors())
    def test_roundTrip(self, error: RemoteError) -> None:
        """
        Code, domain, level and message survive packing and unpacking.
        """
        self.assertEqual(unpackError(packError(error)).args, error.args)

    def test_withoutText(self) -> None:
        """
        An error without a message gets one, so that a client has something to print.
        """
        absent = bytes.fromhex("00000001 00000000 00000000 00000002")
        empty = bytes.fromhex("00000001 00000000 00000001 00000000 00000002")
        for payload in (absent, empty):
            self.assertEqual(unpackError(payload).args, (1, 0, "Unknown error", 2))

    @given(st.binary(max_size=60))
    def test_anyBytes(self, payload: bytes) -> None:
        """
        Arbitrary bytes are unpacked as an error or raise L{XDRError}.
        """
        try:
            error = unpackError(payload)
        except XDRError:
            return
        self.assertIsInstance(error, RemoteError)
        self.assertTrue(error.message)
