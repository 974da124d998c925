"""
The codec for AMP (L{twisted.protocols.amp}), whose control messages are AMP commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.plugin import IPlugin
from zope.interface import implementer

from kaproto.watch.framing import Boxes, Framing
from kaproto.watch.interfaces import Control, IHeartbeatCodec, Kind
from kaproto.watch.intervals import packInterval, readInterval

__all__ = ["AMPCodec"]

_TAG: Final = b"kaproto"
_PING_TAG: Final = b"kaproto.ping"


def _box(**fields: bytes) -> bytes:
    packed = b""
    for key, value in fields.items():
        packed += len(key).to_bytes(2) + key.encode() + len(value).to_bytes(2) + value
    return packed + b"\0\0"


def _fields(box: bytes) -> Mapping[bytes, bytes]:
    """
    @param box: a complete box.
    """
    strings = []
    at = 0
    while at < len(box):
        length = int.from_bytes(box[at : at + 2])
        strings.append(box[at + 2 : at + 2 + length])
        at += 2 + length
    return dict(zip(strings[:-1:2], strings[1::2], strict=False))


_KINDS: Final = {
    (b"_ask", _TAG): Kind.ASK,
    (b"_answer", _TAG): Kind.ANSWER,
    (b"_error", _TAG): Kind.DECLINE,
    (b"_ask", _PING_TAG): Kind.PING,
    (b"_answer", _PING_TAG): Kind.PONG,
    # "Unknown command" is an answer too: the peer is alive.
    (b"_error", _PING_TAG): Kind.PONG,
}


@implementer(IPlugin, IHeartbeatCodec)
class AMPCodec:
    """
    AMP.  The commands of control messages have tags that no application uses.  A peer without
    keepalive answers that it does not know the command, which does no harm.
    """

    name = "amp"
    ping = _box(_ask=_PING_TAG, _command=b"kaproto.Ping")
    pong = _box(_answer=_PING_TAG)
    most = 1024

    def framing(self) -> Framing:
        """
        @return: a framing of AMP boxes.
        """
        return Boxes()

    def read(self, payload: bytes) -> Control | None:
        """
        @return: the control message in a box; C{None} if it is the application's.
        """
        if _TAG not in payload:
            return None
        fields = _fields(payload)
        kind = next((each for each in _KINDS if fields.get(each[0]) == each[1]), None)
        interval = readInterval(fields.get(b"interval", b"0"))
        if kind is None or interval is None:
            return None
        return Control(_KINDS[kind], interval)

    def mayBegin(self, data: bytes) -> bool:
        """
        @return: C{True}: an incomplete box is held until it is complete or too long.
        """
        return True

    def ask(self, interval: float) -> bytes:
        """
        @return: a command.
        """
        return _box(_ask=_TAG, _command=b"kaproto.KeepAlive", interval=packInterval(interval))

    def answer(self, interval: float) -> bytes:
        """
        @return: the command's result.
        """
        return _box(_answer=_TAG, interval=packInterval(interval))

    def decline(self) -> bytes:
        """
        @return: the error that a peer without keepalive would send: the command is unknown.
        """
        return _box(_error=_TAG, _error_code=b"UNHANDLED", _error_description=b"not offered")

    def refusal(self, reason: str, first: bytes) -> bytes:
        """
        @return: an error in reply to the first command, if it is complete and wants a reply.
        """
        found = Boxes().whole(first, 0, self.most)
        tag = None if found is None else _fields(found[1]).get(b"_ask")
        if tag is None:
            return b""
        return _box(
            _error=tag, _error_code=b"KEEPALIVE_REQUIRED", _error_description=reason.encode()
        )
