"""
Tests for L{kaproto.wire.filter}.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import RemoteProtocolError
from kaproto.wire.filter import INTERCEPTED_MAX, Bytes, Header, MessageFilter
from kaproto.wire.message import (
    HEADER,
    HEADER_SIZE,
    MESSAGE_MAX,
    PING,
    PONG,
    TURN_MAX,
    Message,
    MessageReader,
    packMessage,
)
from tests.strategies import garbage, messages, pieces

KEPT = 0xCAFE
"""
The program whose messages are intercepted in these tests.
"""

PASSING = Message(0xABCD, 1, 2, 3, 4, 5, bytes(range(100)))
KEEPING = Message(KEPT, 1, 2, 3, 4, 5, b"kept")


ANSWER = packMessage(Message(0xBEEF, 1, 1, 2, 0, 0, b""))
INJECTED = (PING, PONG, ANSWER)
"""
What these tests inject.
"""


def parsed(data: bytes) -> list[Message]:
    """
    @return: the messages in these bytes.
    """
    reader = MessageReader()
    reader.feed(data)
    found = []
    while (message := reader.next()) is not None:
        found.append(message)
    assert not reader, "it does not end with a message"
    return found


class Sieve:
    """
    A filter and its output.
    """

    def __init__(self, whole: int = 0) -> None:
        self.forwarded = bytearray()
        self.forwards: list[bytes] = []
        self.taken: list[Message] = []
        self.raw: list[bytes] = []
        self.headers: list[Header] = []
        self.sieve = MessageFilter(self.keep, self.take, self.forward, whole)

    def keep(self, header: Header) -> bool:
        """
        Intercept the messages of one program.
        """
        self.headers.append(header)
        return header[1] == KEPT

    def take(self, message: Message, raw: bytes) -> None:
        """
        Note an intercepted message.
        """
        self.taken.append(message)
        self.raw.append(raw)

    def forward(self, data: Bytes) -> None:
        """
        Note forwarded bytes.
        """
        self.forwarded += data
        self.forwards.append(bytes(data))

    def feed(self, *data: bytes) -> None:
        """
        Feed bytes, piece by piece.
        """
        for piece in data:
            self.sieve.feed(piece)


class Discarding(Sieve):
    """
    A filter that drops three bytes after each intercepted message.
    """

    def take(self, message: Message, raw: bytes) -> None:
        """
        Note an intercepted message.
        """
        super().take(message, raw)
        self.sieve.discard(3)


Stream = tuple[list[Message], Sequence[bytes]]
"""
Messages, some of them to be intercepted, and their bytes in pieces.
"""


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """
    Any L{Stream}.
    """
    some = messages() | messages().map(lambda message: message._replace(program=KEPT))
    drawn = draw(
        st.lists(some.filter(lambda message: packMessage(message) not in INJECTED), max_size=8)
    )
    return drawn, draw(pieces(b"".join(map(packMessage, drawn))))


class MessagesTests(SynchronousTestCase):
    """
    Streams of messages, however they are cut.
    """

    @given(streams(), st.data())
    def test_anything(self, drawn: Stream, data: st.DataObject) -> None:
        """
        However the stream is cut and whenever messages are injected: each message is either
        forwarded unchanged or intercepted whole, in order; injected messages are sent between two
        others, at once if possible, but a ping or pong waits only once; each header is shown once;
        and messages up to a size are forwarded in one piece.
        """
        stream, cut = drawn
        whole = data.draw(st.sampled_from([0, 28, 60, 100, INTERCEPTED_MAX]))
        out = Sieve(whole)
        wanted: list[bytes] = []
        waiting: list[bytes] = []
        for piece in cut:
            for message in data.draw(st.lists(st.sampled_from(INJECTED), max_size=3)):
                if message is ANSWER or message not in waiting:
                    wanted.append(message)
                if out.sieve.midMessage:
                    waiting.append(message)
                out.sieve.inject(message)
            out.feed(piece)
            if not out.sieve.midMessage:
                self.assertEqual(out.sieve.waiting, 0)
            if not out.sieve.waiting:
                waiting.clear()
        self.assertFalse(out.sieve.midMessage)
        through = parsed(bytes(out.forwarded))
        self.assertEqual(
            [message for message in through if packMessage(message) not in INJECTED],
            [message for message in stream if message.program != KEPT],
        )
        packedThrough = map(packMessage, through)
        self.assertEqual([each for each in packedThrough if each in INJECTED], wanted)
        packed = [packMessage(message) for message in stream]
        self.assertEqual(out.headers, [HEADER.unpack_from(each) for each in packed])
        for each in packed:
            if len(each) <= whole and each not in out.raw:
                self.assertTrue(any(each in piece for piece in out.forwards))
        kept = [message for message in stream if message.program == KEPT]
        self.assertEqual(out.taken, kept)
        self.assertEqual(out.raw, [packMessage(message) for message in kept])

    def test_turns(self) -> None:
        """
        Only some of many messages are handled in a turn, the next ones in the next turn, and all of
        them in order.
        """
        out = Sieve()
        one, other = packMessage(KEEPING), packMessage(PASSING)
        self.assertTrue(out.sieve.feed((one + other) * TURN_MAX + other[:9]))
        self.assertEqual(out.taken, [KEEPING] * (TURN_MAX // 2))
        self.assertEqual(bytes(out.forwarded), other * (TURN_MAX // 2))
        self.assertTrue(out.sieve.feed(other[9:]))
        self.assertFalse(out.sieve.feed(b""))
        self.assertEqual(len(out.taken), TURN_MAX)
        self.assertEqual(bytes(out.forwarded), other * (TURN_MAX + 1))

    def test_oneTurn(self) -> None:
        """
        As many messages as one turn allows need no second turn.
        """
        out = Sieve()
        self.assertFalse(out.sieve.feed(packMessage(PASSING) * TURN_MAX))

    @given(streams())
    def test_nothingHeldBack(self, drawn: Stream) -> None:
        """
        No more than the beginning of a header is held of a message that is forwarded.
        """
        _messages, cut = drawn
        out = Sieve()
        reader = MessageReader()
        fed = 0
        for piece in cut:
            out.feed(piece)
            fed += len(piece)
            reader.feed(piece)
            while reader.next() is not None:
                pass
            held = fed - len(out.forwarded) - sum(map(len, out.raw))
            if held >= HEADER_SIZE:
                rest = reader.takeRest()
                self.assertEqual(held, len(rest))
                self.assertTrue(out.keep(HEADER.unpack_from(rest)))
                reader.feed(rest)

    @given(st.lists(garbage(), max_size=4))
    def test_garbage(self, data: list[bytes]) -> None:
        """
        For any bytes the only error is L{RemoteProtocolError}, and what was forwarded before it is
        what was fed.
        """
        out = Sieve()
        try:
            out.feed(*data)
        except RemoteProtocolError as error:
            self.assertIn("a message of ", str(error))
        if not out.taken:
            self.assertTrue(b"".join(data).startswith(out.forwarded))

    def test_order(self) -> None:
        """
        When a message is handed over, everything before it has been forwarded, and nothing after
        it.
        """
        seen: list[object] = []
        sieve = MessageFilter(
            lambda header: header[1] == KEPT,
            lambda message, _raw: seen.append(message),
            seen.append,
        )
        passing = packMessage(PASSING)
        sieve.feed(passing + packMessage(KEEPING) * 2 + passing)
        self.assertEqual(seen, [passing, KEEPING, KEEPING, passing])


class LengthTests(SynchronousTestCase):
    """
    What length words promise.
    """

    def refused(self, length: int, program: int, cut: int) -> str:
        """
        @return: the error for a message of that length, whose header arrives in two pieces.
        """
        header = HEADER.pack(length, program, 1, 5, 0, 0, 0)
        out = Sieve()
        out.feed(header[:cut])
        error = self.assertRaises(RemoteProtocolError, out.feed, header[cut:])
        self.assertEqual(out.forwarded, b"")
        return str(error)

    def test_outOfBounds(self) -> None:
        """
        A length word that is too small, or larger than libvirt allows, is an error that names
        the length, the procedure, the program and the bounds, also when it comes in pieces.
        """
        for cut in (0, 1, 27):
            for length in (0, 4, 27, MESSAGE_MAX + 1, 2**32 - 1):
                error = self.refused(length, 0xABCD, cut)
                self.assertEqual(
                    error,
                    f"a message of {length} bytes for procedure 5 of program 0xabcd, where 28 to "
                    f"{MESSAGE_MAX} are allowed",
                )

    def test_keptOutOfBounds(self) -> None:
        """
        A message that is to be intercepted and too long for it is an error as soon as its header
        has arrived: nothing of it is collected.
        """
        for cut in (0, 1, 27):
            for length in (INTERCEPTED_MAX + 1, MESSAGE_MAX):
                error = self.refused(length, KEPT, cut)
                self.assertIn(f"a message of {length} bytes", error)
                self.assertIn(f"28 to {INTERCEPTED_MAX} are allowed", error)

    def test_longest(self) -> None:
        """
        The longest message of each kind is accepted.
        """
        out = Sieve()
        kept = KEEPING._replace(payload=bytes(INTERCEPTED_MAX - HEADER_SIZE))
        packed = packMessage(kept)
        out.feed(packed[:30], packed[30:-1], packed[-1:])
        self.assertEqual(out.taken, [kept])
        out.feed(HEADER.pack(MESSAGE_MAX, 1, 1, 1, 0, 0, 0))
        self.assertTrue(out.sieve.midMessage)
        out.feed(bytes(MESSAGE_MAX - HEADER_SIZE))
        self.assertFalse(out.sieve.midMessage)
        self.assertEqual(len(out.forwarded), MESSAGE_MAX)

    def test_between(self) -> None:
        """
        Whether a message is under way can be told.
        """
        for message in (PASSING, KEEPING):
            out = Sieve()
            self.assertTrue(out.sieve.between)
            packed = packMessage(message)
            for size in (10, HEADER_SIZE + 1):
                out.feed(packed[:size])
                self.assertFalse(out.sieve.between)
                out.feed(packed[size:])
                self.assertTrue(out.sieve.between)
            out.feed(packed * (TURN_MAX + 1))
            self.assertFalse(out.sieve.between)
            out.feed(b"")
            self.assertTrue(out.sieve.between)

    def test_errorAfterGood(self) -> None:
        """
        What came before the error has been forwarded.
        """
        out = Sieve()
        passing = packMessage(PASSING)
        self.assertRaises(RemoteProtocolError, out.feed, passing + bytes(HEADER_SIZE))
        self.assertEqual(out.forwarded, passing)

    def test_memory(self) -> None:
        """
        A message of 32 MiB that arrives in pieces of 4 KiB is forwarded in the same pieces, of
        which one is held at a time.
        """
        total = 0

        def forward(data: Bytes) -> None:
            nonlocal total
            total += len(data)

        sieve = MessageFilter(lambda _header: False, lambda _message, _raw: None, forward)
        piece = bytes(4096)
        sieve.feed(HEADER.pack(MESSAGE_MAX, 1, 1, 1, 0, 0, 0))
        tracemalloc.start()
        try:
            for _count in range(MESSAGE_MAX // len(piece) - 1):
                sieve.feed(piece)
            _now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 2 * len(piece))
        self.assertGreater(total, MESSAGE_MAX - 2 * len(piece))
        self.assertTrue(sieve.midMessage)


class WholeTests(SynchronousTestCase):
    """
    Messages that are forwarded in one piece.
    """

    def test_inFront(self) -> None:
        """
        While such a message trickles in, others are sent in front of it.
        """
        packed = packMessage(PASSING)
        out = Sieve(len(packed))
        for size in (10, HEADER_SIZE, len(packed) - 1):
            out.feed(packed[:size])
            self.assertFalse(out.sieve.midMessage)
            self.assertFalse(out.sieve.between)
            out.sieve.inject(PING)
            self.assertEqual(out.forwarded, PING)
            out.feed(packed[size:])
            self.assertEqual(out.forwarded, PING + packed)
            self.assertTrue(out.sieve.between)
            out.forwarded.clear()

    def test_longer(self) -> None:
        """
        Longer ones are forwarded as they come.
        """
        packed = packMessage(PASSING)
        out = Sieve(len(packed) - 1)
        out.feed(packed[:-1])
        self.assertTrue(out.sieve.midMessage)
        self.assertEqual(out.forwarded, packed[:-1])


class InjectTests(SynchronousTestCase):
    """
    Injected messages.
    """

    def test_atOnce(self) -> None:
        """
        Between two messages an injected one is sent at once, also while one that is intercepted is
        arriving.
        """
        out = Sieve()
        out.feed(packMessage(KEEPING)[:-1])
        out.sieve.inject(PING)
        out.sieve.inject(PING)
        self.assertEqual(out.forwarded, PING * 2)

    def test_waits(self) -> None:
        """
        Within a message injected ones wait for its end, in order.  A ping or pong waits only once,
        but each of two equal replies is sent.
        """
        out = Sieve()
        packed = packMessage(PASSING)
        out.feed(packed[:50])
        for message in (PING, ANSWER, PONG, PING, ANSWER, PONG):
            out.sieve.inject(message)
        self.assertEqual(out.forwarded, packed[:50])
        self.assertEqual(out.sieve.waiting, 4)
        out.feed(packed[50:] + packed)
        self.assertEqual(out.forwarded, packed + PING + ANSWER + PONG + ANSWER + packed)
        self.assertEqual(out.sieve.waiting, 0)

    def test_whileTaking(self) -> None:
        """
        The receiver of a message can inject another in its place, after all that came before.
        """
        forwarded: list[Bytes] = []
        sieve = MessageFilter(
            lambda header: header[1] == KEPT,
            lambda _message, _raw: sieve.inject(PONG),
            forwarded.append,
        )
        packed = packMessage(PASSING)
        sieve.feed(packed[:50])
        sieve.feed(packed[50:] + packMessage(KEEPING) + packed)
        self.assertEqual(b"".join(forwarded), packed + PONG + packed)

    def test_discard(self) -> None:
        """
        The receiver of a message can have the bytes after it dropped, in whatever pieces they come;
        what follows them is forwarded.
        """
        packed, kept = packMessage(PASSING), packMessage(KEEPING)
        for fed in (
            [kept + b"xyz" + packed],
            [kept, b"x", b"yz", packed],
            [kept + b"x", b"y", b"z" + packed],
            [packed + kept + b"xy", b"z"],
        ):
            out = Discarding()
            out.feed(*fed)
            self.assertEqual(out.forwarded, packed)
            self.assertEqual(out.taken, [KEEPING])
            self.assertTrue(out.sieve.between)

    def test_exactEnd(self) -> None:
        """
        An injected message is sent right after the last byte of the one before, and does not wait
        for the next.
        """
        out = Sieve()
        packed = packMessage(PASSING)
        out.feed(packed[:50])
        out.sieve.inject(PING)
        out.feed(packed[50:])
        self.assertEqual(out.forwarded, packed + PING)


class StopTests(SynchronousTestCase):
    """
    A filter that was stopped.
    """

    def test_stopped(self) -> None:
        """
        Nothing is forwarded or intercepted any more, and nothing is an error.
        """
        for sent in (b"", packMessage(PASSING)[:50]):
            out = Sieve()
            out.feed(sent)
            out.sieve.stopped = True
            out.feed(b"\0" * 10, packMessage(PASSING), packMessage(KEEPING), b"\0" * 100)
            self.assertEqual((out.forwarded, out.taken), (sent, []))

    def test_stoppedMeanwhile(self) -> None:
        """
        The receiver of a message can stop the filter: nothing after the message is forwarded.
        """
        taken: list[Message] = []
        forwarded: list[Bytes] = []

        def take(message: Message, raw: bytes) -> None:
            taken.append(message)
            sieve.stopped = True

        sieve = MessageFilter(lambda header: header[1] == KEPT, take, forwarded.append)
        sieve.feed(packMessage(KEEPING) * 2 + packMessage(PASSING))
        self.assertEqual((taken, forwarded), ([KEEPING], []))
