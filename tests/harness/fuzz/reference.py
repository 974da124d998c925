"""
The messages that an application behind a codec or tunnel must see in a stream: a second
implementation of the protocols, which is slow, needs the whole stream, and shares no code with the
first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import attrs
from twisted.protocols.amp import AmpBox

__all__ = ["READERS", "TUNNEL_ASKS", "Bad", "Part", "readTunnel"]


class Bad(Exception):
    """
    A peer must not send this.
    """


@attrs.frozen
class Part:
    """
    A message, or the beginning of one.

    @ivar data: its bytes.
    @ivar kind: C{"ask"}, C{"answer"}, C{"decline"}, C{"ping"}, C{"pong"} or C{"end"}; C{""} for an
        application's message.
    @ivar whole: whether it is complete.
    """

    data: bytes
    kind: str = ""
    whole: bool = True


_INTERVAL: Final = r"(\d+(\.\d+)?(e[-+]?\d+)?)"
_WORDS: Final = re.compile(
    rf"(?P<ping>PING)|(?P<pong>PONG)|(?P<ask>KEEPALIVE)(| {_INTERVAL}?)"
    rf"|(?P<answer>KEEPALIVE-OK)(| {_INTERVAL}?)"
)
_MOST: Final = len("KEEPALIVE-OK 0123456789abcdef")
"""
The length of the longest keepalive word.  A longer string is not read as one.
"""

_INTERVAL_MAX: Final = 2_147_483


def _isInterval(text: bytes) -> bool:
    found = re.fullmatch(_INTERVAL, text.decode("latin-1"), re.ASCII)
    return found is not None and len(text) <= 16 and float(text) <= _INTERVAL_MAX


def _kindOfWord(payload: bytes) -> str:
    found = _WORDS.fullmatch(payload.decode("latin-1"))
    if found is None or not _isInterval(payload.partition(b" ")[2] or b"0"):
        return ""
    return next(name for name, value in found.groupdict().items() if value)


def _lines(data: bytes) -> Iterator[Part]:
    *lines, rest = data.split(b"\r\n")
    for line in lines:
        yield Part(line + b"\r\n", _kindOfWord(line))
    if rest:
        yield Part(rest, whole=False)


def _netstrings(data: bytes) -> Iterator[Part]:
    while data:
        head = re.match(rb"(0|[1-9][0-9]{0,9}):", data)
        if head is None:
            if re.fullmatch(rb"0|[1-9][0-9]{0,9}", data) is None:
                raise Bad("no length")
            yield Part(data, whole=False)
            return
        end = head.end() + int(head[1])
        if end >= len(data):
            yield Part(data, whole=False)
            return
        if data[end : end + 1] != b"," and int(head[1]) <= _MOST:
            raise Bad("no comma")
        yield Part(data[: end + 1], _kindOfWord(data[head.end() : end]))
        data = data[end + 1 :]


def _prefixed(size: int) -> Callable[[bytes], Iterator[Part]]:
    def read(data: bytes) -> Iterator[Part]:
        while data:
            end = size + int.from_bytes(data[:size])
            if len(data) < max(size, end):
                yield Part(data, whole=False)
                return
            yield Part(data[:end], _kindOfWord(data[size:end]))
            data = data[end:]

    return read


_BOXES: Final = {
    ("_ask", b"kaproto"): "ask",
    ("_answer", b"kaproto"): "answer",
    ("_error", b"kaproto"): "decline",
    ("_ask", b"kaproto.ping"): "ping",
    ("_answer", b"kaproto.ping"): "pong",
    ("_error", b"kaproto.ping"): "pong",
}


def _kindOfBox(fields: AmpBox, size: int) -> str:
    if size > 1024 or not _isInterval(fields.get(b"interval", b"0")):
        return ""
    for (key, tag), kind in _BOXES.items():
        if fields.get(key.encode()) == tag:
            return kind
    return ""


def _boxes(data: bytes) -> Iterator[Part]:
    at, fields, key = 0, AmpBox(), None
    while len(data) - at >= 2:
        length = int.from_bytes(data[at : at + 2])
        string, at = data[at + 2 : at + 2 + length], at + 2 + length
        if at > len(data):
            break
        if key is not None:
            fields[key] = string
            key = None
        elif length:
            key = string
        else:
            yield Part(data[:at], _kindOfBox(fields, at))
            data, at, fields = data[at:], 0, AmpBox()
    if data:
        yield Part(data, whole=False)


READERS: Final[dict[str, Callable[[bytes], Iterator[Part]]]] = {
    "lines": _lines,
    "netstrings": _netstrings,
    "int8": _prefixed(1),
    "int16": _prefixed(2),
    "int32": _prefixed(4),
    "amp": _boxes,
}
"""
Readers of streams, by the name of the codec.
"""

TUNNEL_ASKS: Final = bytes.fromhex("00000020 6b617475")
"""
The first bytes from the client of a tunnel.
"""

_PING: Final = bytes.fromhex("0000001c 6b656570 00000001 00000001 00000002 00000000 00000000")
_TUNNEL: Final = {
    _PING: "ping",
    _PING[:12] + b"\0\0\0\2" + _PING[16:]: "pong",
    bytes.fromhex("0000001c 6b617475 00000001 00000002 00000003 00000000 00000000"): "end",
}
_DATA: Final = bytes.fromhex("6b617475 00000001 00000002 00000003 00000000 00000002")
_OPENINGS: Final = {
    "ask": bytes.fromhex("00000020 6b617475 00000001 00000001 00000000 00000000 00000000"),
    "answer": bytes.fromhex("00000020 6b617475 00000001 00000001 00000001 00000000 00000000"),
}


def readTunnel(data: bytes, opening: str) -> Iterator[Part]:
    """
    @param data: what a peer that speaks the tunnel sends.
    @param opening: C{"ask"} or C{"answer"}, which must be first.
    @return: the application's bytes without their framing, and the tunnel's messages.
    """
    first, ended = True, False
    while data:
        length = int.from_bytes(data[:4])
        if len(data) < 28:
            yield Part(data, "head", whole=False)
            return
        if data[4:28] == _DATA and not first:
            if not 28 <= length <= 33_554_436 or ended:
                raise Bad("bytes")
            yield Part(data[28:length], whole=len(data) >= length)
        elif not 28 <= length <= 8220:
            raise Bad("length")
        elif len(data) < length:
            yield Part(data, "head", whole=False)
            return
        elif first:
            if data[:28] != _OPENINGS[opening]:
                raise Bad("opening")
            first = False
            yield Part(data[:length], opening)
        else:
            kind = _kindInTunnel(data[:length])
            if ended and kind == "end":
                raise Bad("a second end")
            ended = ended or kind == "end"
            yield Part(data[:length], kind)
        data = data[length:]


def _kindInTunnel(message: bytes) -> str:
    kind = _TUNNEL.get(message)
    if kind is None:
        raise Bad("not a tunnel's")
    return kind
