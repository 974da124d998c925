"""
Messages that pass through, without being collected, and a few that are kept back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kaproto.errors import RemoteProtocolError
from kaproto.wire.message import HEADER, HEADER_SIZE, MESSAGE_MAX, TURN_MAX, Message

__all__ = ["KEPT_MAX", "Header", "MessageFilter"]

KEPT_MAX: Final = 65536
"""
The longest message that can be kept back, in bytes.
"""

Header = tuple[int, int, int, int, int, int, int]
"""
The length word and the six words of the header.
"""


class MessageFilter:
    """
    Lets a stream of bytes through to the other side as it comes, a 32 MiB message in as many
    pieces as it arrives in, and keeps back the messages that somebody on the way must see whole.

    The same way is used by messages of one's own, which L{inject} puts between two others.

    @ivar stopped: set it to let nothing through any more.
    """

    __slots__ = (
        "_forward",
        "_injected",
        "_keep",
        "_later",
        "_left",
        "_partial",
        "_take",
        "stopped",
    )

    def __init__(
        self,
        keep: Callable[[Header], bool],
        take: Callable[[Message, bytes], None],
        forward: Callable[[bytes], None],
    ) -> None:
        """
        @param keep: is shown the header of every message, of some twice, and says whether to
            keep it back.
        @param take: is given the messages kept back, made up and as they came.
        @param forward: is given everything else, in order.
        """
        self._keep = keep
        self._take = take
        self._forward = forward
        self._left = 0
        self._partial: bytearray | None = None
        self._later: bytearray | None = None
        self._injected: list[bytes] | None = None
        self.stopped = False

    @property
    def midMessage(self) -> bool:
        """
        Whether the last bytes let through were not the end of a message.
        """
        return self._left > 0

    @property
    def between(self) -> bool:
        """
        Whether all that came was whole messages.
        """
        return not self._left and self._partial is None and self._later is None

    @property
    def waiting(self) -> int:
        """
        How many injected messages wait for the end of the one that is under way.
        """
        return 0 if self._injected is None else len(self._injected)

    @property
    def more(self) -> bool:
        """
        Whether there was more in what came than L{TURN_MAX} messages, so that L{feed} has to be
        called again, with nothing if nothing has come.
        """
        return self._later is not None

    def inject(self, data: bytes) -> None:
        """
        Send a whole message the same way as soon as no other is under way.  One that is waiting
        already is not sent twice.
        """
        if not self._left:
            self._forward(data)
        elif self._injected is None:
            self._injected = [data]
        elif data not in self._injected:
            self._injected.append(data)

    def feed(self, data: bytes) -> None:
        """
        Bytes came.

        @raise RemoteProtocolError: when a length word is out of bounds, or a message that should
            be kept is too long for that.
        """
        if self.stopped:
            return
        if self._later is not None:
            data = bytes(self._later) + data
            self._later = None
            self._sift(data)
            return
        if self._left >= len(data):
            self._left -= len(data)
            self._forward(data)
            if self._injected and not self._left:
                self._flushInjected()
            return
        if self._partial is not None:
            self._partial += data
            if len(self._partial) < self._wanted(self._partial):
                return
            data = bytes(self._partial)
            self._partial = None
        self._sift(data)

    def _wanted(self, partial: bytearray) -> int:
        if len(partial) < HEADER_SIZE:
            return HEADER_SIZE
        header = HEADER.unpack_from(partial)
        length = int(header[0])
        # One that is too long is not collected, and refused by what its header alone tells.
        if HEADER_SIZE <= length <= KEPT_MAX and self._keep(header):
            return length
        return HEADER_SIZE

    def _sift(self, data: bytes) -> None:
        size = len(data)
        begin = 0
        end = self._left
        if self._injected:
            self._forward(data[:end])
            self._flushInjected()
            begin = end
        for _ in range(TURN_MAX):
            if size - end < HEADER_SIZE or self.stopped:
                break
            header = HEADER.unpack_from(data, end)
            length = header[0]
            # Nobody is shown a header that is none, and what came before it is let through.
            legal = HEADER_SIZE <= length <= MESSAGE_MAX
            try:
                kept = legal and self._keep(header)
            except RemoteProtocolError:
                self._endWith(data[begin:end])
                raise
            if not legal or (kept and length > KEPT_MAX):
                self._endWith(data[begin:end])
                raise RemoteProtocolError(
                    f"a message of {length} bytes for procedure {header[3]} of program "
                    f"{header[1]:#x}, where {HEADER_SIZE} to {KEPT_MAX if kept else MESSAGE_MAX} "
                    "are allowed"
                )
            if not kept:
                end += length
                continue
            if begin < end:
                self._forward(data[begin:end])
            begin = end
            if size - end < length:
                break
            end = begin = end + length
            raw = data[end - length : end]
            self._left = 0
            self._take(Message._make((*header[1:], raw[HEADER_SIZE:])), raw)
        else:
            self._later = bytearray(data[end:]) or None
            data = data[:end]
            size = min(size, end)
        self._left = max(0, end - size)
        if end < size:
            self._partial = bytearray(data[end:])
            data = data[begin:end]
        elif begin:
            data = data[begin:]
        if data:
            self._forward(data)

    def _endWith(self, data: bytes) -> None:
        """
        Let through the last that is let through: the end of a message, so that others of one's
        own can follow.
        """
        self._left = 0
        self._forward(data)

    def _flushInjected(self) -> None:
        injected, self._injected = self._injected, None
        self._left = 0
        for data in injected or ():
            self._forward(data)
