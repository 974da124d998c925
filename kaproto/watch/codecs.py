"""
Keepalive in lines, netstrings, integer-prefixed strings and AMP boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Final

import attrs
from twisted.plugin import IPlugin
from zope.interface import implementer

from kaproto.keepalive.liveness import INTERVAL_MAX
from kaproto.watch.framing import Boxes, Framing, Lines, Netstrings, PrefixedStrings
from kaproto.watch.interfaces import Control, IHeartbeatCodec, Kind

__all__ = ["AMPCodec", "IntNCodec", "LineCodec", "NetstringCodec", "Words"]

_NUMBER_MAX: Final = 16


def _number(interval: float) -> bytes:
    return b"%.9g" % interval


def _interval(text: bytes) -> float | None:
    """
    @return: a number of seconds; C{None} if the text is none.
    """
    try:
        value = float(text) if len(text) <= _NUMBER_MAX else -1.0
    except ValueError:
        return None
    return value if isfinite(value) and 0 <= value <= INTERVAL_MAX else None


@attrs.frozen
class Words:
    """
    The payloads of control messages in protocols whose messages are strings.

    @ivar ping: asks for an answer.
    @ivar pong: the answer.
    @ivar ask: says that its sender answers pings; a blank follows and the shortest interval at
        which it agrees to be pinged.  C{None} where every peer answers pings, as in IRC.
    @ivar answer: the same, from a peer that was asked.
    @ivar refusal: what precedes the reason when a client is refused.
    """

    ping: bytes = b"PING"
    pong: bytes = b"PONG"
    ask: bytes | None = b"KEEPALIVE"
    answer: bytes = b"KEEPALIVE-OK"
    refusal: bytes = b"ERROR "

    def read(self, payload: bytes) -> Control | None:
        """
        @return: what a payload says about keepalive, C{None} when it is the application's.
        """
        if payload == self.pong:
            return Control(Kind.PONG)
        if payload == self.ping:
            return Control(Kind.PING)
        word, _blank, number = payload.partition(b" ")
        if word in (self.ask, self.answer) and word:
            interval = _interval(number or b"0")
            if interval is not None:
                return Control(Kind.ASK if word == self.ask else Kind.ANSWER, interval)
        return None

    def mayBegin(self, data: bytes) -> bool:
        """
        @return: whether a payload that begins so may become one of these.
        """
        words = [self.ping, self.pong, self.answer, *([] if self.ask is None else [self.ask])]
        asks = words[2:]
        return any(word.startswith(data) for word in words) or data.startswith(
            tuple(word + b" " for word in asks)
        )

    @property
    def most(self) -> int:
        """
        The length of the longest payload.
        """
        asks = len(self.answer), len(self.ask or b"")
        return max(len(self.ping), len(self.pong), max(asks) + 1 + _NUMBER_MAX)


class _StringCodec:
    """
    What protocols of strings have in common.
    """

    name = ""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.ping = self.framed(words.ping)
        self.pong = self.framed(words.pong)
        self.most = words.most

    def framed(self, payload: bytes) -> bytes:
        """
        @return: a whole message.
        """
        raise NotImplementedError

    def read(self, payload: bytes) -> Control | None:
        """
        @return: what a payload says about keepalive.
        """
        return self.words.read(payload)

    def mayBegin(self, data: bytes) -> bool:
        """
        @return: C{True}: a short string is passed on when it is complete.
        """
        return True

    def ask(self, interval: float) -> bytes:
        """
        @return: the word and a number.
        """
        word = self.words.ask
        return b"" if word is None else self.framed(word + b" " + _number(interval))

    def answer(self, interval: float) -> bytes:
        """
        @return: the word and a number.
        """
        return self.framed(self.words.answer + b" " + _number(interval))

    def decline(self) -> bytes:
        """
        @return: nothing.
        """
        return b""

    def refusal(self, reason: str, first: bytes) -> bytes:
        """
        @return: a word and the reason.
        """
        return self.framed(self.words.refusal + reason.encode())


@implementer(IPlugin, IHeartbeatCodec)
class LineCodec(_StringCodec):
    """
    Lines, as L{twisted.protocols.basic.LineReceiver} has them.

    What an application sends and receives in raw mode is passed on; C{PING} on a line of its own
    is a ping there too.
    """

    name = "lines"

    def __init__(self, words: Words = Words(), delimiter: bytes = b"\r\n") -> None:
        self._delimiter = delimiter
        super().__init__(words)

    def framing(self) -> Framing:
        """
        @return: lines.
        """
        return Lines(self._delimiter)

    def framed(self, payload: bytes) -> bytes:
        """
        @return: a line.
        """
        return payload.replace(self._delimiter, b" ") + self._delimiter

    def mayBegin(self, data: bytes) -> bool:
        """
        @return: whether the line begins like a control message, so that a prompt, which is a line
            without an end, does not have to wait for one.
        """
        # The end of the data may be the beginning of the delimiter.
        for keep in range(len(self._delimiter) - 1, 0, -1):
            if data.endswith(self._delimiter[:keep]):
                return self.words.mayBegin(data[:-keep])
        return self.words.mayBegin(data)


@implementer(IPlugin, IHeartbeatCodec)
class NetstringCodec(_StringCodec):
    """
    Netstrings, as L{twisted.protocols.basic.NetstringReceiver} has them.
    """

    name = "netstrings"

    def __init__(self, words: Words = Words()) -> None:
        super().__init__(words)

    def framing(self) -> Framing:
        """
        @return: netstrings.
        """
        return Netstrings()

    def framed(self, payload: bytes) -> bytes:
        """
        @return: a netstring.
        """
        return b"%d:%b," % (len(payload), payload)


@implementer(IPlugin, IHeartbeatCodec)
class IntNCodec(_StringCodec):
    """
    Strings with their length in front, as L{twisted.protocols.basic.IntNStringReceiver} has them.
    """

    name = "intn"

    def __init__(self, words: Words = Words(), structFormat: str = "!I") -> None:
        """
        @param structFormat: the length's, as the receiver's C{structFormat}.
        """
        self._format = structFormat
        super().__init__(words)

    def framing(self) -> PrefixedStrings:
        """
        @return: strings with this prefix.
        """
        return PrefixedStrings(self._format)

    def framed(self, payload: bytes) -> bytes:
        """
        @return: a string with its length in front, cut to what the prefix can count.
        """
        return self.framing().framed(payload)


_TAG: Final = b"kaproto"
_PING_TAG: Final = b"kaproto.ping"


def _box(**fields: bytes) -> bytes:
    packed = b""
    for key, value in fields.items():
        packed += len(key).to_bytes(2) + key.encode() + len(value).to_bytes(2) + value
    return packed + b"\0\0"


def _fields(box: bytes) -> Mapping[bytes, bytes]:
    """
    @param box: a whole one.
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
    # A peer that does not know the command is alive all the same.
    (b"_error", _PING_TAG): Kind.PONG,
}


@implementer(IPlugin, IHeartbeatCodec)
class AMPCodec:
    """
    AMP (L{twisted.protocols.amp}).  Control messages are commands of their own, whose tags no
    application uses.  A peer that knows no keepalive answers that it does not know the command,
    and no harm is done.
    """

    name = "amp"
    ping = _box(_ask=_PING_TAG, _command=b"kaproto.Ping")
    pong = _box(_answer=_PING_TAG)
    most = 1024

    def framing(self) -> Framing:
        """
        @return: boxes.
        """
        return Boxes()

    def read(self, payload: bytes) -> Control | None:
        """
        @return: what a box says about keepalive.
        """
        if _TAG not in payload:
            return None
        fields = _fields(payload)
        kind = next((each for each in _KINDS if fields.get(each[0]) == each[1]), None)
        interval = _interval(fields.get(b"interval", b"0"))
        if kind is None or interval is None:
            return None
        return Control(_KINDS[kind], interval)

    def mayBegin(self, data: bytes) -> bool:
        """
        @return: C{True}: a short box is passed on when it is complete.
        """
        return True

    def ask(self, interval: float) -> bytes:
        """
        @return: a command.
        """
        return _box(_ask=_TAG, _command=b"kaproto.KeepAlive", interval=_number(interval))

    def answer(self, interval: float) -> bytes:
        """
        @return: the command's result.
        """
        return _box(_answer=_TAG, interval=_number(interval))

    def decline(self) -> bytes:
        """
        @return: the error of a peer that does not know the command.
        """
        return _box(_error=_TAG, _error_code=b"UNHANDLED", _error_description=b"not offered")

    def refusal(self, reason: str, first: bytes) -> bytes:
        """
        @return: an error in answer to the first command, if that is complete and wants one.
        """
        found = Boxes().whole(first, 0, self.most)
        tag = None if found is None else _fields(found[1]).get(b"_ask")
        if tag is None:
            return b""
        return _box(
            _error=tag, _error_code=b"KEEPALIVE_REQUIRED", _error_description=reason.encode()
        )
