"""
Frames: valid ones of every kind, and mutations of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from kaproto.wire.message import HEADER_SIZE, MESSAGE_MAX, Message, packMessage
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    LXC_PROGRAM,
    QEMU_PROGRAM,
    REMOTE_PROGRAM,
    Procedure,
)
from kaproto.wire.sasl import SASLResult, packMechanisms, packResult, packStart, packStep
from kaproto.wire.xdr import Packer
from tests.support import Probe

__all__ = ["Frame", "Frames"]

_PROGRAMS: Final = (
    REMOTE_PROGRAM,
    QEMU_PROGRAM,
    LXC_PROGRAM,
    KEEPALIVE_PROGRAM,
    Probe.number,
    0,
    0x06900690,
    0xFFFFFFFF,
)
_WORDS: Final = (0, 1, 2, 3, 4, 20, 21, 27, 28, 0x7F, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_COUNTS: Final = (
    *_WORDS,
    65536,
    65537,
    4194304,
    4194305,
    MESSAGE_MAX,
    0x3FFFFFFF,
    0x40000000,
    0xFFFFFFFC,
)
_LENGTHS: Final = (
    0,
    1,
    4,
    27,
    28,
    29,
    255,
    16384,
    16385,
    65536,
    65537,
    MESSAGE_MAX,
    MESSAGE_MAX + 1,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
_PROCEDURES: Final = (*(int(each) for each in Procedure), 0, -1, 9999, -(2**31), 2**31 - 1, 16, 316)
_PLAIN_OPERATIONS: Final = (3, 4, 6, 7, 59, 110, 149, 157, 273)
_ANSWERED_BY_GATEWAY: Final = (249, 309, 310, 343, 419, 443)
_CALL: Final = 0
_REPLY: Final = 1
_MESSAGE: Final = 2
_STREAM: Final = 3
_CALL_WITH_FDS: Final = 4
_REPLY_WITH_FDS: Final = 5
_STREAM_HOLE: Final = 6
_SERIALS: Final = 12


class Frame(NamedTuple):
    """
    Bytes sent at once.

    @ivar data: the bytes.
    @ivar mutated: whether they differ from the valid frame.
    """

    data: bytes
    mutated: bool


class Frames:
    """
    Generates random frames.
    """

    def __init__(
        self,
        random: Random,
        script: Sequence[int] = (),
        serial: int = 0,
        sasl: Sequence[bytes] = (),
    ) -> None:
        """
        @param random: the source of randomness.
        @param script: the procedures that the other end calls, by serial, so that they can be
            answered.
        @param serial: the first of them without an answer.
        @param sasl: SASL data that is valid in the current login.
        """
        self._random = random
        self._sasl = sasl
        self._script = script
        self._next = serial

    def fromClient(self) -> Frame:
        """
        @return: a frame of a client.
        """
        return self._mutated(self._random.choice(_CLIENT)(self))

    def fromServer(self) -> Frame:
        """
        @return: a frame of a server.
        """
        return self._mutated(self._random.choice(_SERVER)(self))

    # What clients send

    def _serial(self) -> int:
        return self._random.randrange(_SERIALS)

    def _remote(self, procedure: int, payload: bytes = b"", kind: int = _CALL) -> bytes:
        return packMessage(Message(REMOTE_PROGRAM, 1, procedure, kind, self._serial(), 0, payload))

    def _open(self) -> bytes:
        name = self._random.choice(
            ("", "test:///default", "test:///default?x=1", "qemu:///system", "\udcff\udc80", None)
        )
        return self._remote(1, Packer().optionalString(name).uint32(self._word()).packed())

    def _feature(self) -> bytes:
        number = self._random.choice((10, 10, 8, 14, 15, 1, -1))
        return self._remote(60, Packer().int32(number).packed())

    def _featureWithFds(self) -> bytes:
        number = self._random.choice((10, 8, 14, 15))
        payload = Packer().uint32(0).int32(number).packed()
        return self._remote(60, payload, _CALL_WITH_FDS)

    def _plain(self) -> bytes:
        return self._remote(self._random.choice(_PLAIN_OPERATIONS), self._blob(8))

    def _special(self) -> bytes:
        kind = self._random.choice((_CALL, _CALL, _CALL_WITH_FDS))
        fds = b"" if kind == _CALL else self._random.choice((bytes(4), b"\0\0\0\1", b"\0"))
        return self._remote(
            self._random.choice((*_ANSWERED_BY_GATEWAY, 360, 361, 70)), fds + self._blob(40), kind
        )

    def _close(self) -> bytes:
        # Seldom, so that the connection lasts.
        return self._remote(2 if self._random.random() < 0.2 else 66)

    def _authList(self) -> bytes:
        return self._remote(66)

    def _saslInit(self) -> bytes:
        return self._remote(67)

    def _saslStart(self) -> bytes:
        mechanism = self._random.choice(("PLAIN", "SCRAM-SHA-256", "PLAIN", "ANONYMOUS", "", "\0"))
        return self._remote(68, packStart(mechanism, self._saslData()))

    def _saslStep(self) -> bytes:
        return self._remote(69, packStep(self._saslData()))

    def _saslData(self) -> bytes | None:
        if self._sasl and self._random.random() < 0.4:
            return self._random.choice(self._sasl)
        return self._random.choice(
            (
                None,
                b"",
                b"\0alice\0secret",
                b"\0alice\0wrong",
                b"bob\0alice\0secret",
                b"\0\xff\xfe\0secret",
                b"n,,n=alice,r=fyko+d2lbbFgONRv9qkxdawL",
                b"n,,n=al=2Cice,r=x",
                b"y,a=bob,n=alice,r=,m=ext",
                b"p=tls-unique,,n=alice,r=abc",
                b"n,,n=\xc2\xaa\xcc\xb7,r=abc",
                b"c=biws,r=fyko,p=AAAA",
                b"c=biws,r=fyko,p=" + b"A" * 43 + b"=",
                b"c=biws,r=,p=====",
                b"c=,r=,p=",
                b",,,,,",
                b"=",
                self._blob(64),
            )
        )

    def _probe(self) -> bytes:
        procedure = self._random.choice((Probe.ECHO, Probe.FAIL, Probe.DECODE, Probe.LATER))
        payload = self._random.choice((b"", Packer().string("text").packed(), self._blob(40)))
        return packMessage(Message(Probe.number, 1, procedure, _CALL, self._serial(), 0, payload))

    def _elsewhere(self) -> bytes:
        program = self._random.choice(_PROGRAMS)
        procedure = self._random.choice(_PROCEDURES)
        return packMessage(Message(program, 1, procedure, _CALL, self._serial(), 0, self._blob(24)))

    def _stream(self) -> bytes:
        kind = self._random.choice((_STREAM, _STREAM, _STREAM_HOLE))
        status = self._random.choice((0, 1, 2, 2, 2))
        payload = (
            Packer().uint64(self._random.getrandbits(63)).uint32(0).packed()
            if kind == _STREAM_HOLE
            else self._blob(200)
        )
        return packMessage(Message(REMOTE_PROGRAM, 1, 208, kind, self._serial(), status, payload))

    def _keepAlive(self) -> bytes:
        kind = self._random.choice((_MESSAGE,) * 16 + (_CALL, _REPLY, _STREAM, _CALL_WITH_FDS))
        return packMessage(
            Message(
                KEEPALIVE_PROGRAM,
                self._random.choice((1, 1, 1, 1, 2)),
                self._random.choice((1, 1, 2, 2, 3)),
                kind,
                0,
                0,
                self._random.choice((b"", b"", b"", self._blob(16))),
            )
        )

    # What servers send

    def _answer(self) -> bytes:
        """
        Answer the next call, or one that was not made.
        """
        number = self._next
        if self._random.random() < 0.1:
            number = self._random.randrange(max(len(self._script), 1) + 2)
        elif self._next < len(self._script):
            self._next += 1
        procedure = self._script[number] if number < len(self._script) else 59
        good = self._random.random() < 0.85
        payload = self._result(procedure) if good else self._error()
        return packMessage(Message(REMOTE_PROGRAM, 1, procedure, _REPLY, number, not good, payload))

    def _result(self, procedure: int) -> bytes:
        choose = self._random.choice
        match procedure:
            case 66:
                types = choose(((0,), (0,), (1,), (1, 2), (), (2,), (77, 0)))
                packer = Packer().uint32(len(types))
                for each in types:
                    packer.int32(each)
                return packer.packed()
            case 67:
                names = choose((["PLAIN"], ["SCRAM-SHA-256", "PLAIN"], [], ["\udcff", "X"]))
                return packMechanisms(names)
            case 68 | 69:
                return packResult(SASLResult(choose((False, True)), self._serverSASL()))
            case 60:
                return Packer().int32(choose((0, 1, 1, 1, 2, -1))).packed()
            case 59:
                return Packer().string(choose(("host", "", "\udcff"))).packed()
        return choose((b"", self._blob(24)))

    def _serverSASL(self) -> bytes | None:
        if self._sasl and self._random.random() < 0.3:
            return self._random.choice(self._sasl)
        return self._random.choice(
            (
                None,
                b"",
                b"r=fyko+3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                b"r=CLIENTNONCE123,s=QSXCR+Q6sek8bf92,i=1",
                b"r=CLIENTNONCE123,s=QSXCR+Q6sek8bf92,i=0",
                b"r=CLIENTNONCE123,s=QSXCR+Q6sek8bf92,i=-5",
                b"r=CLIENTNONCE123,s=QSXCR+Q6sek8bf92,i=99999999999",
                b"r=CLIENTNONCE123,s=QSXCR+Q6sek8bf92,i=4x",
                b"r=CLIENTNONCE123,s=,i=2",
                b"r=CLIENTNONCE123,s====,i=2",
                b"r=CLIENTNONCE123,s=\xff,i=2",
                b"r=CLIENTNONCE123",
                b"m=x,r=CLIENTNONCE123,s=QSXCR+Q6sek8bf92,i=2",
                b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
                b"v====",
                b"e=other-error",
                b"e=\xc3\xa9\n",
                self._blob(64),
            )
        )

    def _error(self) -> bytes:
        choose = self._random.choice
        message = choose(
            (
                "unknown procedure: 66",
                "refused",
                "two\nlines",
                "{braces} %s \x1b[31m",
                "\udcff\udc80",
                "",
                None,
            )
        )
        packer = Packer().int32(choose((39, 39, 1, 45, 0, -1))).int32(choose((7, 0)))
        packer.optionalString(message).int32(choose((2, 0, -1)))
        return packer.packed() + self._blob(8)

    def _event(self) -> bytes:
        program, procedure, payload = self._random.choice(
            (
                (REMOTE_PROGRAM, 316, self._blob(60)),
                (
                    REMOTE_PROGRAM,
                    362,
                    Packer().int32(self._random.choice((0, 1, 2, 3, 9))).packed(),
                ),
                (REMOTE_PROGRAM, 105, b""),
                (QEMU_PROGRAM, 6, self._blob(20)),
                (Probe.number, 1, b"news"),
            )
        )
        return packMessage(Message(program, 1, procedure, _MESSAGE, 1, 0, payload))

    def _replyWithFds(self) -> bytes:
        if self._random.random() < 0.8:
            return self._event()
        return packMessage(Message(REMOTE_PROGRAM, 1, 343, _REPLY_WITH_FDS, 3, 0, b"\0\0\0\1"))

    # Mutations

    def _blob(self, longest: int) -> bytes:
        return self._random.randbytes(self._random.randrange(longest + 1))

    def _word(self) -> int:
        return self._random.choice(_WORDS)

    def _mutated(self, data: bytes) -> Frame:
        if self._random.random() < 0.22:
            return Frame(data, mutated=False)
        changed = data
        for _time in range(self._random.choice((1, 1, 1, 2, 3))):
            changed = self._random.choices(_MUTATIONS, _WEIGHTS)[0](self, changed)
        return Frame(changed, changed != data)

    def _changeHeader(self, data: bytes) -> bytes:
        if len(data) < HEADER_SIZE:
            return data
        index, numbers = self._random.choice(
            (
                (4, _PROGRAMS),
                (8, (0, 2, 3, 0xFFFFFFFF)),
                (12, _PROCEDURES),
                (12, tuple(range(1, 10))),
                (16, (0, 1, 2, 2, 3, 4, 5, 6, 7, -1)),
                (16, (0, 0, 0, 2)),
                (20, (*range(_SERIALS), 0xFFFFFFFF)),
                (24, (0, 1, 2, 3, -1)),
            )
        )
        number = self._random.choice(numbers) & 0xFFFFFFFF
        return data[:index] + struct.pack(">I", number) + data[index + 4 :]

    def _changeLength(self, data: bytes) -> bytes:
        near = len(data) + self._random.randrange(-8, 9)
        length = self._random.choice((*_LENGTHS, *(max(near, 0),) * 16))
        return struct.pack(">I", length) + data[4:]

    def _withLength(self, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data[4:]

    def _changeCount(self, data: bytes) -> bytes:
        """
        Replace a word that may be a count, a length or an enum.
        """
        words = len(data) // 4 - HEADER_SIZE // 4
        if words <= 0:
            return data
        at = HEADER_SIZE + 4 * self._random.randrange(words)
        return data[:at] + struct.pack(">I", self._random.choice(_COUNTS)) + data[at + 4 :]

    def _cutPayload(self, data: bytes) -> bytes:
        return self._withLength(
            data[: self._random.randint(HEADER_SIZE, max(HEADER_SIZE, len(data)))]
        )

    def _growPayload(self, data: bytes) -> bytes:
        extra = self._blob(40)
        if self._random.random() < 0.01:
            extra = bytes(self._random.choice((16384, 65536, 70000, 300000)))
        return self._withLength(data + extra)

    def _flip(self, data: bytes) -> bytes:
        """
        Flip bits anywhere but in the length field.
        """
        changed = bytearray(data)
        for _time in range(self._random.randint(1, 4)):
            if len(changed) > 4:
                at = self._random.randrange(4, len(changed))
                changed[at] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._random.randrange(len(data) + 1)]

    def _repeat(self, data: bytes) -> bytes:
        times = 2 if self._random.random() < 0.97 else self._random.choice((5, 30, 120))
        return data * times if len(data) < 2000 else data

    def _join(self, data: bytes) -> bytes:
        """
        Append the end of another frame.
        """
        other = self._random.choice(_CLIENT + _SERVER)(self)
        return data + other[self._random.randrange(len(other)) :]

    def _garbage(self, data: bytes) -> bytes:
        return self._blob(60)

    def _frameOfGarbage(self, data: bytes) -> bytes:
        return self._withLength(bytes(4) + self._random.randbytes(self._random.randint(24, 80)))


_CLIENT: Final[tuple[Callable[[Frames], bytes], ...]] = (
    Frames._open,
    Frames._feature,
    Frames._feature,
    Frames._featureWithFds,
    Frames._plain,
    Frames._plain,
    Frames._special,
    Frames._special,
    Frames._close,
    Frames._authList,
    Frames._saslInit,
    Frames._saslStart,
    Frames._saslStart,
    Frames._saslStep,
    Frames._saslStep,
    Frames._probe,
    Frames._probe,
    Frames._elsewhere,
    Frames._stream,
    Frames._stream,
    Frames._keepAlive,
    Frames._keepAlive,
)

_SERVER: Final[tuple[Callable[[Frames], bytes], ...]] = (
    Frames._answer,
    Frames._answer,
    Frames._answer,
    Frames._answer,
    Frames._event,
    Frames._event,
    Frames._event,
    Frames._event,
    Frames._stream,
    Frames._keepAlive,
    Frames._keepAlive,
    Frames._replyWithFds,
)

_MUTATIONS: Final[tuple[Callable[[Frames, bytes], bytes], ...]] = (
    Frames._changeHeader,
    Frames._changeCount,
    Frames._cutPayload,
    Frames._growPayload,
    Frames._flip,
    Frames._repeat,
    Frames._frameOfGarbage,
    # After these the stream is out of step.
    Frames._changeLength,
    Frames._truncate,
    Frames._join,
    Frames._garbage,
)
_WEIGHTS: Final = (12, 10, 8, 8, 10, 3, 3, 0.8, 0.5, 0.5, 0.4)
