"""
The bytes in a tunnel: the application's stream as messages of a program of libvirt's RPC, with the
keepalive program beside it.

The client's first message asks, and the server's first one answers::

    length  program  version  OPEN  CALL   0  OK        milliseconds
    length  program  version  OPEN  REPLY  0  OK        milliseconds
    length  program  version  DATA  STREAM 0  CONTINUE  the application's bytes
    length  program  version  DATA  STREAM 0  OK        (the sender's end of the stream)

C{milliseconds} is the shortest interval at which the sender agrees to be pinged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from zope.interface import implementer

from kaproto.errors import RemoteProtocolError
from kaproto.keepalive.liveness import INTERVAL_MAX
from kaproto.watch.interfaces import Control, IControlMessages, Kind
from kaproto.wire.message import (
    HEADER,
    HEADER_SIZE,
    MESSAGE_MAX,
    PING,
    PONG,
    Message,
    MessageType,
    Status,
    packError,
    packMessage,
    rpcError,
    unpackError,
)
from kaproto.wire.programs import PROGRAM_VERSION, ErrorCode
from kaproto.wire.xdr import XDRError

__all__ = ["TUNNEL_PROGRAM", "TunnelMessages", "TunnelWire"]

TUNNEL_PROGRAM: Final = 0x6B617475
"""
The tunnel's program number.
"""

_OPEN: Final = 1
_DATA: Final = 2
_MILLISECONDS: Final = struct.Struct(">I")
_OPEN_SIZE: Final = HEADER_SIZE + _MILLISECONDS.size
_PIECE: Final = MESSAGE_MAX - HEADER_SIZE
_REFUSAL_MAX: Final = 4096
_CONTROL_MAX: Final = HEADER_SIZE + 2 * _REFUSAL_MAX

_BEGINNING: Final = struct.pack(">II", _OPEN_SIZE, TUNNEL_PROGRAM)
"""
The 8 bytes with which every client of a tunnel begins, and no client of another protocol.
"""


def _pack(
    procedure: int, kind: MessageType, status: Status = Status.OK, payload: bytes = b""
) -> bytes:
    return packMessage(
        Message(TUNNEL_PROGRAM, PROGRAM_VERSION, procedure, kind, 0, status, payload)
    )


_END: Final = _pack(_DATA, MessageType.STREAM)


_DATA_FOLLOWS: Final = _pack(_DATA, MessageType.STREAM, Status.CONTINUE)[4:]
"""
All of a header but its length, in front of the application's bytes.
"""


_CONTROLS: Final = {
    PING: Control(Kind.PING),
    PONG: Control(Kind.PONG),
    _END: Control(Kind.END),
}


def _milliseconds(interval: float) -> bytes:
    return _MILLISECONDS.pack(min(round(interval * 1000), INTERVAL_MAX * 1000))


def _seconds(payload: bytes) -> float:
    (milliseconds,) = _MILLISECONDS.unpack(payload)
    return float(milliseconds) / 1000


_ASKS: Final = _pack(_OPEN, MessageType.CALL, payload=_milliseconds(0))[:HEADER_SIZE]
_ANSWERS: Final = _pack(_OPEN, MessageType.REPLY, payload=_milliseconds(0))[:HEADER_SIZE]
_REFUSES: Final = _pack(_OPEN, MessageType.REPLY, Status.ERROR)[4:]


@implementer(IControlMessages)
class TunnelMessages:
    """
    The control messages of the tunnel.
    """

    ping = PING
    pong = PONG

    def ask(self, interval: float) -> bytes:
        """
        @return: the client's first message.
        """
        return _pack(_OPEN, MessageType.CALL, payload=_milliseconds(interval))

    def answer(self, interval: float) -> bytes:
        """
        @return: the server's first message.
        """
        return _pack(_OPEN, MessageType.REPLY, payload=_milliseconds(interval))

    def decline(self) -> bytes:
        """
        @return: the first message of a server that does not offer keepalive.
        """
        return self.refusal("this server does not offer keepalive", b"")

    def refusal(self, reason: str, first: bytes) -> bytes:
        """
        @return: the answer to a client of the tunnel.
        """
        error = rpcError(reason[:_REFUSAL_MAX], ErrorCode.OPERATION_FAILED)
        return _pack(_OPEN, MessageType.REPLY, Status.ERROR, packError(error))


class TunnelWire:
    """
    Both directions of one connection through a tunnel.

    @ivar plain: whether the peer is a plain one, so that bytes pass unchanged.
    @ivar wroteEnd: whether this side's application has ended its stream.
    @ivar readEnd: whether the peer's has.
    """

    isBusy: Callable[[], bool] | None = None

    def __init__(self, *, server: bool) -> None:
        """
        @param server: whether this is the server's end, whose peer may be the client of something
            else.
        """
        self.plain = self.wroteEnd = self.readEnd = False
        self._server = server
        self._opened = False
        self._dataFollows = b""
        self._partial = b""
        self._left = 0

    @property
    def between(self) -> bool:
        """
        Whether everything received so far was whole messages.
        """
        return not self._partial and not self._left

    def isWaiting(self, message: bytes) -> bool:
        """
        @return: C{False}: control messages are sent at once.
        """
        return False

    def inject(self, message: bytes) -> bytes:
        """
        @return: the message, unless the peer is plain.
        """
        return b"" if self.plain else message

    def becomePlain(self) -> bytes:
        """
        Take the client for a plain one, because it has said too little.

        @return: what it has said.
        """
        self.plain = True
        said, self._partial = self._partial, b""
        return said

    def wrap(self, data: bytes) -> bytes:
        """
        @return: messages with these bytes in them.
        """
        if self.plain:
            return data
        if not data or self.wroteEnd:
            return b""
        if len(data) > _PIECE:
            pieces = range(0, len(data), _PIECE)
            return b"".join(self.wrap(data[start : start + _PIECE]) for start in pieces)
        length = HEADER_SIZE + len(data)
        return b"%b%b%b" % (length.to_bytes(4), _DATA_FOLLOWS, data)

    def end(self) -> bytes:
        """
        The application sends no more.

        @return: what tells the peer so.
        """
        self.wroteEnd = True
        return _END

    def feed(self, data: bytes) -> Iterator[bytes | Control]:
        """
        Take bytes that were received.

        @return: the application's bytes, in the pieces in which they come, and control messages.
        @raise RemoteProtocolError: when they are not messages of a tunnel, after all that came
            before.
        """
        if self._partial:
            data, self._partial = self._partial + data, b""
        if not self._opened and not self.plain:
            self._recognize(data)
        if self.plain:
            yield data
        else:
            yield from self._messages(data)

    def _messages(self, data: bytes) -> Iterator[bytes | Control]:
        at, size = 0, len(data)
        view = memoryview(data)
        pieces: list[memoryview] = []
        failure: RemoteProtocolError | None = None
        try:
            while at < size:
                if self._left:
                    end = min(at + self._left, size)
                    self._left -= end - at
                    pieces.append(view[at:end])
                elif size - at < HEADER_SIZE:
                    break
                elif view[at + 4 : at + HEADER_SIZE] == self._dataFollows:
                    self._left = self._lengthOf(data, at, MESSAGE_MAX) - HEADER_SIZE
                    end = at + HEADER_SIZE
                else:
                    end = at + self._lengthOf(data, at, _CONTROL_MAX)
                    if end > size:
                        break
                    control = self._control(data[at:end])
                    if pieces:
                        yield b"".join(pieces)
                        pieces.clear()
                    yield control
                at = end
        except RemoteProtocolError as error:
            failure = error
        self._partial = data[at:] if failure is None else b""
        if pieces:
            # What was received in the middle of a long message is passed on without a copy.
            yield data if len(pieces[0]) == size else b"".join(pieces)
        if failure is not None:
            raise failure

    def _recognize(self, data: bytes) -> None:
        """
        Tell a peer of the tunnel from any other as soon as its first bytes differ.
        """
        if self._server:
            self.plain = not (data.startswith(_BEGINNING) or _BEGINNING.startswith(data))
            return
        # The length of the answer depends on what it says, but is less than 64 KiB.
        program = _BEGINNING[4:]
        if (data[:2] + data[4:8]) != (b"\0\0"[: len(data)] + program[: max(0, len(data) - 4)]):
            raise RemoteProtocolError(f"{data[:16]!r} in place of the answer of a tunnel")

    def _lengthOf(self, data: bytes, at: int, most: int) -> int:
        length = int.from_bytes(data[at : at + 4])
        if not HEADER_SIZE <= length <= most:
            raise RemoteProtocolError(f"a message of {length} bytes through a tunnel")
        return length

    def _control(self, message: bytes) -> Control:
        control = _CONTROLS.get(message) if self._opened else self._opening(message)
        if control is None or (control.kind is Kind.END and self.readEnd):
            _length, program, _version, procedure, kind, *_ = HEADER.unpack_from(message)
            raise RemoteProtocolError(
                f"procedure {procedure} of program {program:#x}, type {kind}, through a tunnel"
            )
        self._opened = True
        self.readEnd = self.readEnd or control.kind is Kind.END
        self._dataFollows = b"" if self.readEnd else _DATA_FOLLOWS
        return control

    def _opening(self, message: bytes) -> Control | None:
        header, payload = message[:HEADER_SIZE], message[HEADER_SIZE:]
        if self._server:
            return Control(Kind.ASK, _seconds(payload)) if header == _ASKS else None
        if header == _ANSWERS:
            return Control(Kind.ANSWER, _seconds(payload))
        if header[4:] != _REFUSES:
            return None
        try:
            return Control(Kind.DECLINE, reason=unpackError(payload).message)
        except XDRError as error:
            raise RemoteProtocolError(f"a refusal that cannot be decoded: {error}") from error
