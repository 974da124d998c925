"""
The messages of a tunnel: an RPC program in libvirt's format, beside the keepalive program.

The client's first message asks, and the server's first message answers::

    length  program  version  OPEN  CALL   0  OK        milliseconds
    length  program  version  OPEN  REPLY  0  OK        milliseconds
    length  program  version  DATA  STREAM 0  CONTINUE  the application's bytes
    length  program  version  DATA  STREAM 0  OK        (the sender's end of the stream)

C{milliseconds} is the shortest interval at which the sender agrees to be pinged.
"""

from __future__ import annotations

import struct
from typing import Final

from zope.interface import implementer

from kaproto.errors import RemoteProtocolError
from kaproto.keepalive.liveness import INTERVAL_MAX
from kaproto.watch.interfaces import Control, IControlMessages, Kind
from kaproto.wire.message import (
    HEADER_SIZE,
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

__all__ = [
    "BEGINNING",
    "CONTROL_MAX",
    "DATA_FOLLOWS",
    "END",
    "TUNNEL_PROGRAM",
    "TunnelMessages",
    "readControl",
    "readOpening",
]

TUNNEL_PROGRAM: Final = 0x6B617475
"""
The tunnel's program number.
"""

_OPEN: Final = 1
_DATA: Final = 2
_MILLISECONDS: Final = struct.Struct(">I")
_OPEN_SIZE: Final = HEADER_SIZE + _MILLISECONDS.size

CONTROL_MAX: Final = HEADER_SIZE + 8192
"""
The size of the longest control message, in bytes.
"""

_REFUSAL_MAX: Final = 2000
"""
The most characters in a refusal.
"""

BEGINNING: Final = struct.pack(">II", _OPEN_SIZE, TUNNEL_PROGRAM)
"""
The first 8 bytes that every tunnel client sends.  No client of another protocol begins with them.
"""


def _pack(
    procedure: int, kind: MessageType, status: Status = Status.OK, payload: bytes = b""
) -> bytes:
    return packMessage(
        Message(TUNNEL_PROGRAM, PROGRAM_VERSION, procedure, kind, 0, status, payload)
    )


END: Final = _pack(_DATA, MessageType.STREAM)
"""
The message that ends the application's stream.
"""

DATA_FOLLOWS: Final = _pack(_DATA, MessageType.STREAM, Status.CONTINUE)[4:]
"""
The header in front of the application's bytes, without its length word.
"""


_CONTROLS: Final = {
    PING: Control(Kind.PING),
    PONG: Control(Kind.PONG),
    END: Control(Kind.END),
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


def readControl(message: bytes) -> Control | None:
    """
    @param message: a message after the opening.
    @return: the control message; C{None} if no peer may send it.
    """
    return _CONTROLS.get(message)


def readOpening(message: bytes, *, server: bool) -> Control | None:
    """
    @param message: the peer's first message.
    @param server: whether a server has received it.
    @return: the control message; C{None} if no peer may begin with it.
    @raise RemoteProtocolError: when it is a refusal that cannot be decoded.
    """
    header, payload = message[:HEADER_SIZE], message[HEADER_SIZE:]
    if server:
        return Control(Kind.ASK, _seconds(payload)) if header == _ASKS else None
    if header == _ANSWERS:
        return Control(Kind.ANSWER, _seconds(payload))
    if header[4:] != _REFUSES:
        return None
    try:
        return Control(Kind.DECLINE, reason=unpackError(payload).message)
    except XDRError as error:
        raise RemoteProtocolError(f"a refusal that cannot be decoded: {error}") from error
