"""
Codecs for protocols whose messages are strings: lines, netstrings and integer-prefixed strings.
"""

from __future__ import annotations

import struct

import attrs
from twisted.plugin import IPlugin
from zope.interface import implementer

from kaproto.watch.framing import Framing, Lines, Netstrings, PrefixedStrings
from kaproto.watch.interfaces import Control, IHeartbeatCodec, Kind
from kaproto.watch.intervals import INTERVAL_DIGITS, packInterval, readInterval

__all__ = ["IntNCodec", "LineCodec", "NetstringCodec", "Words"]


@attrs.frozen
class Words:
    """
    The payloads of control messages in protocols whose messages are strings.

    @ivar ping: a ping.
    @ivar pong: the answer to a ping.
    @ivar ask: promises that its sender answers pings.  A blank and the shortest interval at which
        the sender agrees to be pinged follow it.  C{None} if every peer answers pings, as in IRC.
    @ivar answer: the same promise, in reply to C{ask}.
    @ivar refusal: precedes the reason when a client is refused.
    @raise TypeError: when a word is not bytes.
    @raise ValueError: when two words are equal, one is empty, or C{ask} or C{answer} has a blank
        in it.
    """

    ping: bytes = b"PING"
    pong: bytes = b"PONG"
    ask: bytes | None = b"KEEPALIVE"
    answer: bytes = b"KEEPALIVE-OK"
    refusal: bytes = b"ERROR "

    def __attrs_post_init__(self) -> None:
        words = self.words
        if not all(isinstance(word, bytes) for word in (*words, self.refusal)):
            raise TypeError(f"words are bytes: {self}")
        if len(set(words)) < len(words):
            raise ValueError(f"two of these words are equal: {words}")
        if not all(words) or any(b" " in word for word in words[2:]):
            raise ValueError(f"a word is empty, or ask or answer has a blank in it: {words}")

    @property
    def words(self) -> list[bytes]:
        """
        The words with which control messages begin.
        """
        asks = [] if self.ask is None else [self.ask, self.answer]
        return [self.ping, self.pong, *asks]

    def read(self, payload: bytes) -> Control | None:
        """
        @return: the control message in a payload; C{None} if it is the application's.
        """
        if payload == self.pong:
            return Control(Kind.PONG)
        if payload == self.ping:
            return Control(Kind.PING)
        word, _blank, number = payload.partition(b" ")
        if self.ask is not None and word in (self.ask, self.answer):
            interval = readInterval(number or b"0")
            if interval is not None:
                return Control(Kind.ASK if word == self.ask else Kind.ANSWER, interval)
        return None

    def mayBegin(self, data: bytes) -> bool:
        """
        @return: whether a payload that begins with C{data} may become a control message.
        """
        words = self.words
        return any(word.startswith(data) for word in words) or data.startswith(
            tuple(word + b" " for word in words[2:])
        )

    @property
    def most(self) -> int:
        """
        The length of the longest control message's payload.
        """
        return max(map(len, self.words)) + 1 + INTERVAL_DIGITS


class _StringCodec:
    """
    Frames L{Words} as messages of a protocol.
    """

    name = ""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.ping = self.framed(words.ping)
        self.pong = self.framed(words.pong)
        self.most = words.most
        for word in words.words:
            message = self.framed(word)
            if self.framing().whole(message, 0, self.most) != (len(message), word):
                raise ValueError(f"{word!r} cannot be a message of the codec {self.name!r}")

    def framing(self) -> Framing:
        """
        @return: a framing for the messages of L{framed}.
        """
        raise NotImplementedError

    def framed(self, payload: bytes) -> bytes:
        """
        @return: a whole message.
        """
        raise NotImplementedError

    def read(self, payload: bytes) -> Control | None:
        """
        @return: the control message in a payload; C{None} if there is none.
        """
        return self.words.read(payload)

    def mayBegin(self, data: bytes) -> bool:
        """
        @return: C{True}: an incomplete string is held until it is complete or too long.
        """
        return True

    def ask(self, interval: float) -> bytes:
        """
        @return: the framed word and interval; C{b""} if the words have no C{ask}.
        """
        word = self.words.ask
        return b"" if word is None else self.framed(word + b" " + packInterval(interval))

    def answer(self, interval: float) -> bytes:
        """
        @return: the framed word and interval.
        """
        return self.framed(self.words.answer + b" " + packInterval(interval))

    def decline(self) -> bytes:
        """
        @return: C{b""}: to a client, no answer means no keepalive.
        """
        return b""

    def refusal(self, reason: str, first: bytes) -> bytes:
        """
        @return: the framed word and the reason.
        """
        return self.framed(self.words.refusal + reason.encode())


@implementer(IPlugin, IHeartbeatCodec)
class LineCodec(_StringCodec):
    """
    Lines, as L{twisted.protocols.basic.LineReceiver} reads them.

    Raw mode works, except that a line C{PING} in raw data is taken for a ping.
    """

    name = "lines"

    def __init__(self, words: Words = Words(), delimiter: bytes = b"\r\n") -> None:
        self._delimiter = delimiter
        super().__init__(words)

    def framing(self) -> Framing:
        """
        @return: a framing of lines.
        """
        return Lines(self._delimiter)

    def framed(self, payload: bytes) -> bytes:
        """
        @return: a line.
        """
        return payload.replace(self._delimiter, b" ") + self._delimiter

    def mayBegin(self, data: bytes) -> bool:
        """
        @return: whether the line begins like a control message.  Other beginnings, such as a prompt
            without a line end, are passed on at once.
        """
        # The data may end with the first bytes of the delimiter.
        for keep in range(len(self._delimiter) - 1, 0, -1):
            if data.endswith(self._delimiter[:keep]):
                return self.words.mayBegin(data[:-keep])
        return self.words.mayBegin(data)


@implementer(IPlugin, IHeartbeatCodec)
class NetstringCodec(_StringCodec):
    """
    Netstrings, as L{twisted.protocols.basic.NetstringReceiver} reads them.
    """

    name = "netstrings"

    def __init__(self, words: Words = Words()) -> None:
        super().__init__(words)

    def framing(self) -> Framing:
        """
        @return: a framing of netstrings.
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
    Strings with their length in front, as L{twisted.protocols.basic.IntNStringReceiver} reads them.

    @ivar name: C{int8}, C{int16} or C{int32}, by the length's size.
    """

    def __init__(self, words: Words = Words(), structFormat: str = "!I") -> None:
        """
        @param structFormat: the format of the length, as in the receiver's C{structFormat}.
        @raise ValueError: when the length is not an unsigned number, or is too small for a word.
        """
        self._format = structFormat
        self.name = f"int{8 * struct.calcsize(structFormat)}"
        super().__init__(words)

    def framing(self) -> PrefixedStrings:
        """
        @return: a framing of strings with this prefix.
        """
        return PrefixedStrings(self._format)

    def framed(self, payload: bytes) -> bytes:
        """
        @return: a string with its length in front, cut to the longest that the prefix allows.
        """
        return self.framing().framed(payload)
