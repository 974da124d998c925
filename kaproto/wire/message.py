"""
Messages: a length word, a header of six words, a payload (libvirt's C{virnetprotocol.x}).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from kaproto.errors import LocalProtocolError, RemoteError, RemoteProtocolError
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    PROGRAM_VERSION,
    ErrorCode,
    ErrorDomain,
    KeepAliveProcedure,
)
from kaproto.wire.xdr import Packer, Unpacker

__all__ = [
    "HEADER",
    "HEADER_SIZE",
    "MESSAGE_MAX",
    "PING",
    "PONG",
    "TURN_MAX",
    "Message",
    "MessageReader",
    "MessageType",
    "Status",
    "packError",
    "packMessage",
    "rpcError",
    "unpackError",
]

HEADER_SIZE = 28
"""
Bytes in the length word and the header, so the least that a message can have.
"""

MESSAGE_MAX = 33554436
"""
Bytes in the largest message (C{VIR_NET_MESSAGE_MAX} and the length word): 32 MiB and 4.
"""

TURN_MAX = 64
"""
How many messages of one peer are looked at before others have their turn, so that one that sends
small messages as fast as it can does not have everybody wait for each 64 KiB of them.
"""

HEADER = struct.Struct(">IIIiIIi")
"""
The length word and the six words of the header.
"""

_LENGTH = struct.Struct(">I")


class MessageType(IntEnum):
    """
    What a message is for (C{virNetMessageType}).
    """

    CALL = 0
    REPLY = 1
    MESSAGE = 2
    STREAM = 3
    CALL_WITH_FDS = 4
    REPLY_WITH_FDS = 5
    STREAM_HOLE = 6


class Status(IntEnum):
    """
    How a call went, or where a stream stands (C{virNetMessageStatus}).
    """

    OK = 0
    ERROR = 1
    CONTINUE = 2


class Message(NamedTuple):
    """
    One message, in the order of its words.

    @ivar program: whom it is for, such as L{kaproto.wire.programs.REMOTE_PROGRAM}.
    @ivar version: the version of that program.
    @ivar procedure: which of the program's procedures.
    @ivar type: a L{MessageType}, or any other number a peer may send.
    @ivar serial: ties a reply to its call.
    @ivar status: a L{Status}, or any other number a peer may send.
    @ivar payload: the arguments or results, in XDR.
    """

    program: int
    version: int
    procedure: int
    type: int
    serial: int
    status: int
    payload: bytes = b""

    def reply(self, payload: bytes = b"", status: Status = Status.OK) -> bytes:
        """
        @return: the bytes of the reply to this call.
        """
        return packMessage(
            Message(
                self.program,
                self.version,
                self.procedure,
                MessageType.REPLY,
                self.serial,
                status,
                payload,
            )
        )


def packMessage(message: Message) -> bytes:
    """
    @return: the message as it goes on the wire.
    @raise LocalProtocolError: when it would be larger than L{MESSAGE_MAX}, or one of its numbers
        has more than 32 bits.
    """
    length = HEADER_SIZE + len(message.payload)
    if length > MESSAGE_MAX:
        raise LocalProtocolError(
            f"a message of {length} bytes is larger than the {MESSAGE_MAX} that the protocol allows"
        )
    try:
        header = HEADER.pack(length, *message[:6])
    except struct.error as error:
        raise LocalProtocolError(f"{message[:6]} is no header: {error}") from error
    return header + message.payload


def _packKeepAlive(procedure: KeepAliveProcedure) -> bytes:
    return packMessage(
        Message(KEEPALIVE_PROGRAM, PROGRAM_VERSION, procedure, MessageType.MESSAGE, 0, Status.OK)
    )


PING = _packKeepAlive(KeepAliveProcedure.PING)
"""
The whole of a keepalive request.
"""

PONG = _packKeepAlive(KeepAliveProcedure.PONG)
"""
The whole of a keepalive response.
"""


class MessageReader:
    """
    Cuts a stream of bytes into messages.

    Bytes are copied into the buffer once and taken out once, however small the pieces they come
    in; what is held is what has arrived, never what a length word promises.

    @ivar limit: the longest message accepted at present, in bytes.
    @ivar partial: what has come of messages not taken yet, C{None} for nothing; to be looked at
        only.
    """

    __slots__ = ("limit", "partial")

    def __init__(self, limit: int = MESSAGE_MAX) -> None:
        self.limit = limit
        self.partial: bytearray | None = None

    def __len__(self) -> int:
        return 0 if self.partial is None else len(self.partial)

    def feed(self, data: bytes) -> None:
        """
        Take in bytes as they came from the transport.
        """
        if self.partial is None:
            self.partial = bytearray(data)
        else:
            self.partial += data

    def next(self) -> Message | None:
        """
        @return: the next whole message, or C{None} until more bytes have come.
        @raise RemoteProtocolError: when the length word is out of bounds.  The stream cannot be
            read any further then.
        """
        buffer = self.partial
        if buffer is None or len(buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if not HEADER_SIZE <= length <= self.limit:
            raise RemoteProtocolError(
                f"a message of {length} bytes, where {HEADER_SIZE} to {self.limit} are allowed"
            )
        if len(buffer) < length:
            return None
        words = HEADER.unpack_from(buffer)
        message = Message._make((*words[1:], bytes(memoryview(buffer)[HEADER_SIZE:length])))
        if len(buffer) == length:
            self.partial = None
        else:
            del buffer[:length]
        return message

    def takeRest(self) -> bytes:
        """
        Stop reading.

        @return: the bytes that have come and belong to no message taken so far.
        """
        rest = b"" if self.partial is None else bytes(self.partial)
        self.partial = None
        return rest


def packError(error: RemoteError) -> bytes:
    """
    @return: the payload of a reply with L{Status.ERROR} (C{remote_error}); the strings that only
        libvirt's own client library would translate are left out.
    """
    packer = Packer().int32(error.code).int32(error.domain).optionalString(error.message)
    packer.int32(error.level)
    for _absent in ("domain", "str1", "str2", "str3"):
        packer.uint32(0)
    return packer.int32(-1).int32(-1).uint32(0).packed()


def rpcError(message: str, code: int = ErrorCode.RPC) -> RemoteError:
    """
    @return: an error in the RPC domain, as libvirtd sends for calls that it refuses.
    """
    return RemoteError(code, ErrorDomain.RPC, message)


def unpackError(payload: bytes) -> RemoteError:
    """
    @return: the error that a reply with L{Status.ERROR} carries, up to the fields clients need.
    @raise kaproto.wire.xdr.XDRError: when there is no such error in it.
    """
    unpacker = Unpacker(payload)
    code = unpacker.int32()
    domain = unpacker.int32()
    message = unpacker.optionalString()
    return RemoteError(code, domain, message or "Unknown error", unpacker.int32())
