"""
Tests that apply to every codec: L{kaproto.watch.stringcodecs}, L{kaproto.watch.ampcodec},
L{kaproto.watch.intervals} and L{kaproto.watch.controlfilter}.
"""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols.amp import Box
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto.errors import RemoteProtocolError
from kaproto.watch import (
    AMPCodec,
    Control,
    IHeartbeatCodec,
    IntNCodec,
    Kind,
    LineCodec,
    NetstringCodec,
    Words,
)
from kaproto.watch.controlfilter import ControlFilter
from tests.unit.watch.test_framing import box, netstring, pieces

CODECS: list[IHeartbeatCodec] = [
    LineCodec(),
    LineCodec(Words(b"p", b"q", b"a", b"b"), b"\n"),
    NetstringCodec(),
    IntNCodec(),
    IntNCodec(structFormat="!B"),
    AMPCodec(),
]
CODEC = st.sampled_from(CODECS)


def sift(codec: IHeartbeatCodec, parts: list[bytes]) -> tuple[bytes, list[Control], ControlFilter]:
    """
    Feed a stream to a control filter.

    @return: the application's bytes, the control messages, and the filter.
    """
    found = ControlFilter(codec)
    data, controls = b"", []
    for part in parts:
        for each in found.feed(part):
            if isinstance(each, Control):
                controls.append(each)
            else:
                data += each
    return data, controls, found


def framed(codec: IHeartbeatCodec, payload: bytes) -> bytes:
    """
    @return: an application's message in the codec's framing.
    """
    if isinstance(codec, AMPCodec):
        return box(payload)
    assert isinstance(codec, LineCodec | NetstringCodec | IntNCodec)
    return codec.framed(payload)


class CodecTests(SynchronousTestCase):
    """
    Tests for control messages.
    """

    def test_interface(self) -> None:
        """
        Every codec provides L{IHeartbeatCodec}.
        """
        for codec in CODECS:
            verifyObject(IHeartbeatCodec, codec)

    @given(CODEC, st.floats(0, 2147483), st.data())
    def test_roundTrip(self, codec: IHeartbeatCodec, interval: float, data: st.DataObject) -> None:
        """
        Control messages are read back, no matter how they are split, and none of their bytes reach
        the application.
        """
        messages = [
            codec.ping,
            codec.ask(interval),
            codec.answer(interval),
            codec.pong,
        ]
        rest, controls, found = sift(codec, pieces(data, b"".join(messages)))
        self.assertEqual(rest, b"")
        self.assertEqual(
            [each.kind for each in controls], [Kind.PING, Kind.ASK, Kind.ANSWER, Kind.PONG]
        )
        for control in controls[1:3]:
            self.assertLessEqual(abs(control.interval - interval), interval * 1e-8)
        self.assertTrue(found.between)

    def test_bytes(self) -> None:
        """
        Control messages and the application's are told apart when bytes arrive one by one.
        """
        for codec in CODECS:
            first, last = framed(codec, b"kaproto?"), framed(codec, b"hi")
            stream = first + codec.ping + last
            parts = [stream[at : at + 1] for at in range(len(stream))]
            rest, controls, found = sift(codec, parts)
            self.assertEqual((rest, controls), (first + last, [Control(Kind.PING)]), codec)
            self.assertTrue(found.between)

    @given(CODEC, st.lists(st.binary(max_size=80)), st.data())
    def test_transparent(
        self, codec: IHeartbeatCodec, payloads: list[bytes], data: st.DataObject
    ) -> None:
        """
        The application's messages pass unchanged, and control messages between them are removed.
        """
        stream, wanted, pings = b"", b"", 0
        for payload in payloads:
            message = framed(codec, payload)
            whole = codec.framing().whole(message, 0, 1000)
            assert whole is not None
            if codec.read(whole[1]) is not None:
                continue
            stream += message
            wanted += message
            if data.draw(st.booleans()):
                stream += codec.ping
                pings += 1
        rest, controls, found = sift(codec, pieces(data, stream))
        self.assertEqual((rest, controls), (wanted, [Control(Kind.PING)] * pings))
        self.assertTrue(found.between)

    @given(CODEC, st.binary(max_size=200), st.data())
    def test_anything(self, codec: IHeartbeatCodec, stream: bytes, data: st.DataObject) -> None:
        """
        Arbitrary bytes pass in order, or raise L{RemoteProtocolError}; no more bytes are held back
        than the longest control message has.
        """
        found = ControlFilter(codec)
        rest = b""
        try:
            for part in pieces(data, stream):
                for each in found.feed(part):
                    if isinstance(each, bytes):
                        rest += each
                self.assertLessEqual(len(found._held), codec.most + 16)
        except RemoteProtocolError:
            self.assertIsInstance(codec, NetstringCodec)
            return
        if b"PING" not in stream and not isinstance(codec, LineCodec):
            self.assertEqual(rest + found._held, stream)

    def test_prompts(self) -> None:
        """
        An unfinished line that cannot become a control message, such as a prompt, passes at once.
        """
        for start, passes in (
            (b"login: ", b"login: "),
            (b"PONGO", b"PONGO"),
            (b"KEEPALIVES", b"KEEPALIVES"),
            (b"PIN", b""),
            (b"PING\r", b""),
            (b"KEEPALIVE", b""),
            (b"KEEPALIVE 0.", b""),
        ):
            self.assertEqual(sift(LineCodec(), [start])[0], passes, start)

    def test_notQuite(self) -> None:
        """
        Lines that only resemble a control message belong to the application.
        """
        for line in (
            b"ping",
            b"PING 1",
            b"KEEPALIVE nan",
            b"KEEPALIVE inf",
            b"KEEPALIVE -1",
            b"KEEPALIVE five",
            b"KEEPALIVE 5 5",
            b"KEEPALIVE  5",
            b"KEEPALIVE 5_0",
            b"KEEPALIVE +5",
            b"KEEPALIVE 1e99",
            b"KEEPALIVE .",
            b"KEEPALIVE 2147484",
            b"KEEPALIVE " + b"0" * 17,
            b"",
        ):
            rest, controls, _ = sift(LineCodec(), [line + b"\r\n"])
            self.assertEqual((rest, controls), (line + b"\r\n", []), line)

    def test_similarBox(self) -> None:
        """
        A box with one of kaproto's tags as a value belongs to the application.
        """
        mine = box(b"kaproto")
        rest, controls, _ = sift(AMPCodec(), [mine])
        self.assertEqual((rest, controls), (mine, []))

    def test_withoutNumber(self) -> None:
        """
        A request without an interval is valid.
        """
        _, controls, _ = sift(LineCodec(), [b"KEEPALIVE\r\n"])
        self.assertEqual(controls, [Control(Kind.ASK)])

    def test_noNetstrings(self) -> None:
        """
        Bytes that are not a netstring raise an error, after everything before them has passed.
        """
        for stream in (b"04:PING,", b"4:PING;", b":,", b"x", b"12345678901:"):
            found = ControlFilter(NetstringCodec()).feed(b"2:hi," + stream)
            self.assertEqual(next(found), b"2:hi,", stream)
            self.assertRaises(RemoteProtocolError, next, found)

    def test_everyoneAnswers(self) -> None:
        """
        With C{ask=None}, for protocols in which every peer answers pings, such as IRC, nothing is
        asked.
        """
        codec = LineCodec(Words(ask=None))
        self.assertEqual((codec.ask(1), codec.decline()), (b"", b""))
        self.assertIsNone(codec.read(b"KEEPALIVE 1"))
        self.assertTrue(codec.mayBegin(b"P"))

    def test_impossible(self) -> None:
        """
        Ambiguous words are refused when the codec is created.
        """
        for error, make in (
            (ValueError, lambda: Words(ping=b"")),
            (ValueError, lambda: Words(ping=b"X", pong=b"X")),
            (ValueError, lambda: Words(answer=b"KEEPALIVE")),
            (ValueError, lambda: Words(ask=b"KEEP ALIVE")),
            (TypeError, lambda: Words(ping=cast(bytes, "PING"))),
            (ValueError, lambda: LineCodec(Words(ping=b"A\r\nB"))),
            (ValueError, lambda: LineCodec(delimiter=b"")),
            (ValueError, lambda: IntNCodec(Words(ping=b"x" * 256), "!B")),
            (ValueError, lambda: IntNCodec(structFormat="!i")),
            (ValueError, lambda: IntNCodec(structFormat="!2B")),
        ):
            self.assertRaises(error, make)
        self.assertEqual(Words(ask=None, answer=b"").words, [b"PING", b"PONG"])

    def test_refusals(self) -> None:
        """
        A refusal is a message of the application's protocol.
        """
        for codec, first, refusal in (
            (LineCodec(), b"", b"ERROR no\r\n"),
            (NetstringCodec(), b"", netstring(b"ERROR no")),
            (IntNCodec(), b"", b"\0\0\0\x08ERROR no"),
            (AMPCodec(), b"", b""),
            (AMPCodec(), b"\0", b""),
            (AMPCodec(), b"\0\4_ask\0\1a\0\0", self.serialized(b"a")),
            (AMPCodec(), b"\0\4_ans\0\1a\0\0", b""),
        ):
            self.assertEqual(codec.refusal("no", first), refusal)

    def serialized(self, tag: bytes) -> bytes:
        """
        @return: the error box, serialized by Twisted.
        """
        error = Box(
            {
                b"_error": tag,
                b"_error_code": b"KEEPALIVE_REQUIRED",
                b"_error_description": b"no",
            }
        )
        made: bytes = error.serialize()
        return made
