"""
Messages: a length word, a header of six words, a payload (libvirt's C{virnetprotocol.x}).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

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
The size of the length word and the header, in bytes: also the size of the shortest message.
"""

MESSAGE_MAX = 33554436
"""
The size of the longest message, in bytes: 32 MiB and the length word (C{VIR_NET_MESSAGE_MAX}).
"""

TURN_MAX = 64
"""
The most messages of one peer that are handled in one turn of the reactor.  Twisted reads up to
64 KiB at once, which may be 2,340 messages, and other peers would wait for all of them.
"""

HEADER = struct.Struct(">IIIiIIi")
"""
The length word and the six words of the header.
"""

_LENGTH = struct.Struct(">I")


class MessageType(IntEnum):
    """
    The type of a message (C{virNetMessageType}).
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
    The result of a call, or the state of a stream (C{virNetMessageStatus}).
    """

    OK = 0
    ERROR = 1
    CONTINUE = 2


# A member of an enumeration takes longer to look up than a global name.
_REPLY: Final = MessageType.REPLY


class Message(NamedTuple):
    """
    One message: the six words of the header in order, and the payload.

    @ivar program: the program's number, such as L{kaproto.wire.programs.REMOTE_PROGRAM}.
    @ivar version: the program's version.
    @ivar procedure: the procedure's number.
    @ivar type: a L{MessageType}, or an unknown number from a peer.
    @ivar serial: the number of the call, which its reply repeats.
    @ivar status: a L{Status}, or an unknown number from a peer.
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
        program, version, procedure, _, serial, _, _ = self
        return _pack((program, version, procedure, _REPLY, serial, status), payload)


def packMessage(message: Message) -> bytes:
    """
    @return: the message as bytes.
    @raise LocalProtocolError: when it would be larger than L{MESSAGE_MAX}, or one of its numbers
        has more than 32 bits.
    """
    return _pack(message[:6], message.payload)


def _pack(words: tuple[int, int, int, int, int, int], payload: bytes) -> bytes:
    length = HEADER_SIZE + len(payload)
    if length > MESSAGE_MAX:
        raise LocalProtocolError(
            f"a message of {length} bytes is larger than the {MESSAGE_MAX} that the protocol allows"
        )
    try:
        header = HEADER.pack(length, *words)
    except struct.error as error:
        raise LocalProtocolError(f"{words} cannot be packed as a header: {error}") from error
    return header + payload


def _packKeepAlive(procedure: KeepAliveProcedure) -> bytes:
    return packMessage(
        Message(KEEPALIVE_PROGRAM, PROGRAM_VERSION, procedure, MessageType.MESSAGE, 0, Status.OK)
    )


PING = _packKeepAlive(KeepAliveProcedure.PING)
"""
A keepalive request: the whole message.
"""

PONG = _packKeepAlive(KeepAliveProcedure.PONG)
"""
A keepalive response: the whole message.
"""


_HTTP: Final = "an HTTP request"
_PROXY: Final = "a PROXY header where none is read: listen with proxy:"

_FOREIGN: Final = {
    b"\x16\x03": "a TLS handshake on a port without TLS: connect without TLS, or to a TLS port",
    b"\x15\x03": "a TLS alert on a port without TLS: connect with TLS",
    **dict.fromkeys(
        [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"CONN", b"PRI "], _HTTP
    ),
    b"HTTP": "an HTTP response",
    b"SSH-": "the greeting of SSH",
    b"PROX": _PROXY,
    b"\r\n\r\n": _PROXY,
}
"""
Descriptions of other protocols, by the first bytes that they send.
"""


def _explainLength(head: bytes, limit: int) -> str:
    """
    @param head: the four bytes of a length word that is out of bounds.
    @return: a description of what the peer has sent.
    """
    (length,) = _LENGTH.unpack(head)
    foreign = _FOREIGN.get(head) or _FOREIGN.get(head[:2])
    return foreign or f"a message of {length} bytes, where {HEADER_SIZE} to {limit} are allowed"


class MessageReader:
    """
    Splits a stream of bytes into messages.

    It copies bytes into its buffer once and out of it once, even if they arrive in small pieces.
    It keeps only bytes that have arrived, and allocates no memory for an announced length.

    @ivar limit: the longest message accepted at present, in bytes.
    @ivar partial: the bytes of messages not returned yet, C{None} for none.  Read only.
    """

    __slots__ = ("limit", "partial")

    def __init__(self, limit: int = MESSAGE_MAX) -> None:
        self.limit = limit
        self.partial: bytearray | None = None

    def __len__(self) -> int:
        return 0 if self.partial is None else len(self.partial)

    def feed(self, data: bytes) -> None:
        """
        Add bytes from the transport.
        """
        if self.partial is None:
            self.partial = bytearray(data)
        else:
            self.partial += data

    def whole(self, data: bytes) -> Message | None:
        """
        Parse data without the buffer, for the usual case of one whole message.

        @return: the message, if C{data} is exactly one and nothing is waiting; otherwise C{None}:
            then L{feed} the data.
        """
        if self.partial is None and HEADER_SIZE <= len(data) <= self.limit:
            words = HEADER.unpack_from(data)
            if words[0] == len(data):
                return Message._make((*words[1:], data[HEADER_SIZE:]))
        return None

    def next(self) -> Message | None:
        """
        @return: the next whole message, C{None} if it has not arrived.
        @raise RemoteProtocolError: when the length word is out of bounds.  The rest of the stream
            cannot be read then.
        """
        buffer = self.partial
        if buffer is None or len(buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if not HEADER_SIZE <= length <= self.limit:
            raise RemoteProtocolError(_explainLength(bytes(buffer[: _LENGTH.size]), self.limit))
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

        @return: the bytes of messages not returned yet.
        """
        rest = b"" if self.partial is None else bytes(self.partial)
        self.partial = None
        return rest


def packError(error: RemoteError) -> bytes:
    """
    @return: the payload of a reply with L{Status.ERROR} (C{remote_error}).  Strings that no client
        reads are left out.
    """
    packer = Packer().int32(error.code).int32(error.domain).optionalString(error.message)
    packer.int32(error.level)
    for _absent in ("domain", "str1", "str2", "str3"):
        packer.uint32(0)
    return packer.int32(-1).int32(-1).uint32(0).packed()


def rpcError(message: str, code: int = ErrorCode.RPC) -> RemoteError:
    """
    @return: an error in the RPC domain, which libvirtd uses for calls that it refuses.
    """
    return RemoteError(code, ErrorDomain.RPC, message)


def unpackError(payload: bytes) -> RemoteError:
    """
    @return: the error in a reply with L{Status.ERROR}, with the fields that clients need.
    @raise kaproto.wire.xdr.XDRError: when the payload is not an error.
    """
    unpacker = Unpacker(payload)
    code = unpacker.int32()
    domain = unpacker.int32()
    message = unpacker.optionalString()
    return RemoteError(code, domain, message or "Unknown error", unpacker.int32())
