"""
What goes through a tunnel: the application's bytes as streams of a program of libvirt's RPC, with
the keepalive program beside it.

The client's first message asks, and the server's first one answers::

    length  program  version  OPEN  CALL   0  OK        milliseconds
    length  program  version  OPEN  REPLY  0  OK        milliseconds
    length  program  version  DATA  STREAM 0  CONTINUE  the application's bytes
    length  program  version  DATA  STREAM 0  OK        (the sender's end of the stream)

C{milliseconds} is the shortest interval at which the sender agrees to be pinged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from kaproto.errors import RemoteProtocolError
from kaproto.keepalive.liveness import INTERVAL_MAX
from kaproto.watch.interfaces import Control, Kind
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
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    PROGRAM_VERSION,
    ErrorCode,
    KeepAliveProcedure,
)
from kaproto.wire.xdr import XDRError

__all__ = ["END", "TUNNEL_PROGRAM", "TunnelCodec", "TunnelWire"]

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

_BEGINNING: Final = struct.pack(">II", _OPEN_SIZE, TUNNEL_PROGRAM)
"""
The 8 bytes that a client of the tunnel begins with, and the client of no other protocol.
"""


def _pack(
    procedure: int, kind: MessageType, status: Status = Status.OK, payload: bytes = b""
) -> bytes:
    return packMessage(
        Message(TUNNEL_PROGRAM, PROGRAM_VERSION, procedure, kind, 0, status, payload)
    )


END: Final = _pack(_DATA, MessageType.STREAM)
"""
The end of an application's stream, which goes on in the other direction.
"""


def _milliseconds(interval: float) -> bytes:
    return _MILLISECONDS.pack(min(round(interval * 1000), INTERVAL_MAX * 1000))


class TunnelCodec:
    """
    The control messages of the tunnel, as L{kaproto.watch.interfaces.IHeartbeatCodec} has them.
    """

    name = "tunnel"
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

    @ivar plain: whether the peer turned out to know no tunnel, so that bytes pass as they are.
    """

    def __init__(self, *, server: bool) -> None:
        """
        @param server: whether this is the server's end, whose peer may be the client of something
            else.
        """
        self.plain = False
        self._server = server
        self._opened = False
        self._partial = b""
        self._left = 0

    @property
    def between(self) -> bool:
        """
        Whether all that came was whole messages.
        """
        return not self._partial and not self._left

    @property
    def mayInject(self) -> bool:
        """
        Whether control messages may be sent.
        """
        return not self.plain

    def becomePlain(self) -> bytes:
        """
        The client has said too little to be one of the tunnel.

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
        if len(data) > _PIECE:
            pieces = range(0, len(data), _PIECE)
            return b"".join(self.wrap(data[start : start + _PIECE]) for start in pieces)
        header = HEADER.pack(
            HEADER_SIZE + len(data),
            TUNNEL_PROGRAM,
            PROGRAM_VERSION,
            _DATA,
            MessageType.STREAM,
            0,
            Status.CONTINUE,
        )
        return header + data if data else b""

    def feed(self, data: bytes) -> Iterator[bytes | Control]:
        """
        Bytes came.

        @return: the application's bytes, in the pieces in which they come, and control messages.
        @raise RemoteProtocolError: when they are no messages of a tunnel.
        """
        if self._partial:
            data, self._partial = self._partial + data, b""
        if not self._opened and not self.plain:
            self._recognize(data)
        if self.plain:
            yield data
            return
        at, size = 0, len(data)
        while at < size:
            if self._left:
                end = min(at + self._left, size)
                self._left -= end - at
                yield data[at:end]
                at = end
                continue
            if size - at < HEADER_SIZE:
                break
            header = HEADER.unpack_from(data, at)
            if self._isData(header):
                at += HEADER_SIZE
                continue
            end = at + self._lengthOf(header)
            if end > size:
                break
            yield self._control(header, data[at + HEADER_SIZE : end])
            at = end
        self._partial = data[at:]

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

    def _isData(self, header: tuple[int, ...]) -> bool:
        """
        @return: whether it is the header of the application's bytes, which are let through then.
        """
        expected = (TUNNEL_PROGRAM, PROGRAM_VERSION, _DATA, MessageType.STREAM, 0, Status.CONTINUE)
        if header[1:] != expected or not self._opened:
            return False
        length = header[0]
        if not HEADER_SIZE < length <= MESSAGE_MAX:
            raise RemoteProtocolError(f"a message of {length} bytes through a tunnel")
        self._left = length - HEADER_SIZE
        return True

    def _lengthOf(self, header: tuple[int, ...]) -> int:
        length = header[0]
        if not HEADER_SIZE <= length <= HEADER_SIZE + 2 * _REFUSAL_MAX:
            raise RemoteProtocolError(f"a message of {length} bytes through a tunnel")
        return length

    def _control(self, header: tuple[int, ...], payload: bytes) -> Control:
        program, version, procedure, kind, _serial, status = header[1:]
        if program == KEEPALIVE_PROGRAM and kind == MessageType.MESSAGE and self._opened:
            if procedure == KeepAliveProcedure.PING:
                return Control(Kind.PING)
            if procedure == KeepAliveProcedure.PONG:
                return Control(Kind.PONG)
        if program == TUNNEL_PROGRAM and version == PROGRAM_VERSION:
            if self._opened:
                if (procedure, kind, status) == (_DATA, MessageType.STREAM, Status.OK):
                    return Control(Kind.END)
            elif procedure == _OPEN:
                control = self._opening(kind, status, payload)
                if control is not None:
                    self._opened = True
                    return control
        raise RemoteProtocolError(
            f"procedure {procedure} of program {program:#x}, type {kind}, through a tunnel"
        )

    def _opening(self, kind: int, status: int, payload: bytes) -> Control | None:
        if self._server:
            if kind == MessageType.CALL and len(payload) == _MILLISECONDS.size:
                return Control(Kind.ASK, _MILLISECONDS.unpack(payload)[0] / 1000)
        elif kind == MessageType.REPLY and status == Status.ERROR:
            try:
                return Control(Kind.DECLINE, reason=unpackError(payload).message)
            except XDRError as error:
                raise RemoteProtocolError(f"a refusal that cannot be decoded: {error}") from error
        elif kind == MessageType.REPLY and len(payload) == _MILLISECONDS.size:
            return Control(Kind.ANSWER, _MILLISECONDS.unpack(payload)[0] / 1000)
        return None
