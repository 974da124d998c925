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
The messages that these tests inject.
"""


def parsed(data: bytes) -> list[Message]:
    """
    @return: the messages in C{data}.
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
    A filter that records its output.
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
        Record an intercepted message.
        """
        self.taken.append(message)
        self.raw.append(raw)

    def forward(self, data: Bytes) -> None:
        """
        Record forwarded bytes.
        """
        self.forwarded += data
        self.forwards.append(bytes(data))

    def feed(self, *data: bytes) -> None:
        """
        Feed the pieces one by one.
        """
        for piece in data:
            self.sieve.feed(piece)


class Discarding(Sieve):
    """
    A filter that drops three bytes after each intercepted message.
    """

    def take(self, message: Message, raw: bytes) -> None:
        """
        Record an intercepted message, and drop the bytes after it.
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
    Draw any L{Stream}.
    """
    some = messages() | messages().map(lambda message: message._replace(program=KEPT))
    drawn = draw(
        st.lists(some.filter(lambda message: packMessage(message) not in INJECTED), max_size=8)
    )
    return drawn, draw(pieces(b"".join(map(packMessage, drawn))))


class MessagesTests(SynchronousTestCase):
    """
    Tests for streams of messages, split in any way.
    """

    @given(streams(), st.data())
    def test_anything(self, drawn: Stream, data: st.DataObject) -> None:
        """
        In any stream each message is either forwarded unchanged or intercepted whole, in order.

        Injected messages are sent between two others, at once if possible, but a ping or pong waits
        only once.  Each header is seen once.  Messages up to C{whole} bytes are forwarded in one
        piece.
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
        At most C{TURN_MAX} messages are handled per turn, and the rest in later turns, in order.
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

    def test_keptOnce(self) -> None:
        """
        What waits for later turns is copied once, since its buffer is overwritten, and not again in
        each turn.
        """
        out = Sieve()
        packed = packMessage(PASSING) * (3 * TURN_MAX)
        buffer = bytearray(packed)
        self.assertTrue(out.sieve.feed(memoryview(buffer)))
        buffer[:] = bytes(len(buffer))
        assert out.sieve._later is not None
        kept = out.sieve._later.obj
        self.assertTrue(out.sieve.feed(b""))
        assert out.sieve._later is not None
        self.assertIs(out.sieve._later.obj, kept)
        self.assertFalse(out.sieve.feed(b""))
        self.assertEqual(bytes(out.forwarded), packed)

    def test_oneTurn(self) -> None:
        """
        C{TURN_MAX} messages are handled in one turn.
        """
        out = Sieve()
        self.assertFalse(out.sieve.feed(packMessage(PASSING) * TURN_MAX))

    @given(streams())
    def test_nothingHeldBack(self, drawn: Stream) -> None:
        """
        Of a forwarded message no more than an incomplete header is held back.
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
        Arbitrary bytes raise nothing but L{RemoteProtocolError}, and what is forwarded before the
        error is unchanged.
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
        When a message is intercepted, everything before it has been forwarded, and nothing after
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
    Tests for lengths of messages.
    """

    def refused(self, length: int, program: int, cut: int) -> str:
        """
        @return: the error for a message of C{length} bytes, whose header is split at C{cut}.
        """
        header = HEADER.pack(length, program, 1, 5, 0, 0, 0)
        out = Sieve()
        out.feed(header[:cut])
        error = self.assertRaises(RemoteProtocolError, out.feed, header[cut:])
        self.assertEqual(out.forwarded, b"")
        return str(error)

    def test_outOfBounds(self) -> None:
        """
        A length outside libvirt's bounds raises an error that names the length, the procedure, the
        program and the bounds, even if the header arrives in pieces.
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
        A message that is too long to be intercepted raises an error as soon as its header has
        arrived.
        """
        for cut in (0, 1, 27):
            for length in (INTERCEPTED_MAX + 1, MESSAGE_MAX):
                error = self.refused(length, KEPT, cut)
                self.assertIn(f"a message of {length} bytes", error)
                self.assertIn(f"28 to {INTERCEPTED_MAX} are allowed", error)

    def test_longest(self) -> None:
        """
        A message of the maximal length is accepted, forwarded or intercepted.
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
        C{between} is false while a message is incomplete or waits for the next turn.
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
        Messages before an invalid one are forwarded.
        """
        out = Sieve()
        passing = packMessage(PASSING)
        self.assertRaises(RemoteProtocolError, out.feed, passing + bytes(HEADER_SIZE))
        self.assertEqual(out.forwarded, passing)

    def test_memory(self) -> None:
        """
        A message of 32 MiB that arrives in pieces of 4 KiB is forwarded in the same pieces, and at
        most one piece is held in memory.
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
    Tests for forwarding short messages in one piece.
    """

    def test_inFront(self) -> None:
        """
        While a message is collected, injected messages are sent before it.
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
        Messages longer than C{whole} bytes are forwarded as they arrive.
        """
        packed = packMessage(PASSING)
        out = Sieve(len(packed) - 1)
        out.feed(packed[:-1])
        self.assertTrue(out.sieve.midMessage)
        self.assertEqual(out.forwarded, packed[:-1])


class InjectTests(SynchronousTestCase):
    """
    Tests for injected messages.
    """

    def test_atOnce(self) -> None:
        """
        An injected message is sent at once between two messages, and while an intercepted one
        arrives.
        """
        out = Sieve()
        out.feed(packMessage(KEEPING)[:-1])
        out.sieve.inject(PING)
        out.sieve.inject(PING)
        self.assertEqual(out.forwarded, PING * 2)

    def test_waits(self) -> None:
        """
        Inside a forwarded message, injected ones wait for its end, in order.  A ping or pong waits
        only once, but each of two equal replies is sent.
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
        When a message is intercepted, another one can be injected in its place.
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
        After an intercepted message a number of bytes can be discarded, in whatever pieces they
        arrive; bytes after them are forwarded.
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
        A waiting message is injected right after the last byte of the current one, not when the
        next one arrives.
        """
        out = Sieve()
        packed = packMessage(PASSING)
        out.feed(packed[:50])
        out.sieve.inject(PING)
        out.feed(packed[50:])
        self.assertEqual(out.forwarded, packed + PING)


class StopTests(SynchronousTestCase):
    """
    Tests for stopping a filter.
    """

    def test_stopped(self) -> None:
        """
        A stopped filter forwards and intercepts nothing, and raises nothing.
        """
        for sent in (b"", packMessage(PASSING)[:50]):
            out = Sieve()
            out.feed(sent)
            out.sieve.stopped = True
            out.feed(b"\0" * 10, packMessage(PASSING), packMessage(KEEPING), b"\0" * 100)
            self.assertEqual((out.forwarded, out.taken), (sent, []))

    def test_stoppedMeanwhile(self) -> None:
        """
        A filter can be stopped while it hands over a message: nothing after that message is
        forwarded.
        """
        taken: list[Message] = []
        forwarded: list[Bytes] = []

        def take(message: Message, raw: bytes) -> None:
            taken.append(message)
            sieve.stopped = True

        sieve = MessageFilter(lambda header: header[1] == KEPT, take, forwarded.append)
        sieve.feed(packMessage(KEEPING) * 2 + packMessage(PASSING))
        self.assertEqual((taken, forwarded), ([KEEPING], []))
