"""
Tests for L{kaproto.watch.framing}.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols.amp import Box
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import RemoteProtocolError
from kaproto.watch.framing import (
    LONGER,
    Boxes,
    Framing,
    Lines,
    Netstrings,
    PrefixedStrings,
    Tracker,
)


def netstring(payload: bytes) -> bytes:
    """
    @return: a netstring.
    """
    return b"%d:%b," % (len(payload), payload)


def box(payload: bytes) -> bytes:
    """
    @return: an AMP box, serialized by Twisted.
    """
    made: bytes = Box({b"key": payload, b"other": b""}).serialize()
    return made


Made = tuple[Callable[[], Framing], Callable[[bytes], bytes]]
FRAMINGS: list[Made] = [
    (Lines, lambda payload: payload.replace(b"\r\n", b"") + b"\r\n"),
    (lambda: Lines(b"\n"), lambda payload: payload.replace(b"\n", b"") + b"\n"),
    (Netstrings, netstring),
    (PrefixedStrings, PrefixedStrings().framed),
    (lambda: PrefixedStrings("!B"), PrefixedStrings("!B").framed),
    (Boxes, box),
]
FRAMING = st.sampled_from(FRAMINGS)
PAYLOADS = st.lists(st.binary(max_size=12) | st.sampled_from([b"a\r", b"\rb", b"x" * 300]))


def pieces(data: st.DataObject, stream: bytes) -> list[bytes]:
    """
    @return: a stream, split at random places.
    """
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    ends = [*cuts, len(stream)]
    return [stream[start:end] for start, end in zip([0, *cuts], ends, strict=True)]


class FramingTests(SynchronousTestCase):
    """
    Tests for finding the ends of messages.
    """

    @given(FRAMING, PAYLOADS, st.data())
    def test_ends(self, made: Made, payloads: list[bytes], data: st.DataObject) -> None:
        """
        The end of every message is found, no matter how the stream is split.
        """
        make, frame = made
        messages = [frame(payload) for payload in payloads]
        ends, total = set(), 0
        for message in messages:
            total += len(message)
            ends.add(total)
        framing, position, found = make(), 0, set()
        for piece in pieces(data, b"".join(messages)):
            at = 0
            while at < len(piece):
                before, at = at, framing.passed(piece, at)
                self.assertGreater(at, before)
                if framing.between:
                    found.add(position + at)
            position += len(piece)
        self.assertEqual(found, ends)
        self.assertTrue(framing.between)

    def test_incomplete(self) -> None:
        """
        C{whole} returns C{None} for any beginning of a message.
        """
        for make, frame in FRAMINGS:
            message = frame(b"abc")
            for end in range(len(message)):
                self.assertIsNone(make().whole(message[:end], 0, 1000))

    def test_bytes(self) -> None:
        """
        The end of every message is found when bytes arrive one by one.
        """
        for make, frame in FRAMINGS:
            framing = make()
            for message in (frame(b"abc"), frame(b"")):
                betweens = []
                for byte in message:
                    self.assertEqual(framing.passed(bytes([byte]), 0), 1)
                    betweens.append(framing.between)
                self.assertEqual(betweens, [False] * (len(message) - 1) + [True])

    @given(FRAMING, st.binary(max_size=40), st.binary(max_size=5))
    def test_whole(self, made: Made, payload: bytes, start: bytes) -> None:
        """
        C{whole} returns a message once it is complete, and C{LONGER} if its payload exceeds the
        limit.
        """
        make, frame = made
        message = frame(payload)
        stream = start + message
        found = make().whole(stream, len(start), 1000)
        assert found is not None
        self.assertEqual(found[0], len(stream))
        self.assertIn(found[1], message)
        for end in range(len(start), len(stream)):
            self.assertIsNone(make().whole(stream[:end], len(start), 1000))
        if found[1]:
            self.assertIn(make().whole(stream + b"xx", len(start), len(found[1]) - 1), (LONGER,))

    def test_payloads(self) -> None:
        """
        A payload does not include the framing.
        """
        for framing, message in (
            (Lines(), b"PING\r\n"),
            (Netstrings(), b"4:PING,"),
            (PrefixedStrings(), b"\0\0\0\4PING"),
        ):
            self.assertEqual(framing.whole(message, 0, 10), (len(message), b"PING"))

    def test_longerWithoutItsEnd(self) -> None:
        """
        A message that exceeds the limit is recognized before it is complete.
        """
        for framing, data in (
            (Lines(), b"x" * 13),
            (Netstrings(), b"11:"),
            (PrefixedStrings(), b"\0\0\0\x0b"),
            (Boxes(), b"\0\x0b"),
            (Boxes(), b"\0\1" + b"x" * 10),
        ):
            self.assertIs(framing.whole(data, 0, 10), LONGER)

    def test_noNetstrings(self) -> None:
        """
        Bytes that are not a netstring raise L{RemoteProtocolError}.
        """
        for data in (b"a", b":", b"1a", b"12345678901", b"-1:", b"1 :"):
            for act in (
                lambda data=data: Netstrings().whole(data, 0, 10),
                lambda data=data: Netstrings().passed(data, 0),
            ):
                error = self.assertRaises(RemoteProtocolError, act)
                self.assertIn("a netstring that begins with", str(error))

    def test_framed(self) -> None:
        """
        A string too long for its prefix is truncated.
        """
        self.assertEqual(PrefixedStrings("!B").framed(b"x" * 300), b"\xff" + b"x" * 255)


class TrackerTests(SynchronousTestCase):
    """
    Tests for tracking what an application writes.
    """

    def test_between(self) -> None:
        """
        The tracker reports the end of the first message, and whether another one is incomplete.
        """
        tracker = Tracker(Lines())
        self.assertTrue(tracker.between)
        for data, end, between in (
            (b"a", None, False),
            (b"\r", None, False),
            (b"\nb\r\n", 1, True),
            (b"", None, True),
            (b"c\r\nd", 3, False),
        ):
            self.assertEqual((tracker.wrote(data), tracker.between), (end, between), data)
