"""
Passes a stream of messages on as it comes, and intercepts some of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kaproto.errors import RemoteProtocolError
from kaproto.wire.message import HEADER, HEADER_SIZE, MESSAGE_MAX, PING, PONG, TURN_MAX, Message

__all__ = ["INTERCEPTED_MAX", "Bytes", "Header", "MessageFilter"]

Bytes = bytes | memoryview
"""
Bytes that are only looked at, or sent at once: the buffer they are in may be written to again.
"""

INTERCEPTED_MAX: Final = 65536
"""
The longest message that can be intercepted, in bytes.
"""

Header = tuple[int, int, int, int, int, int, int]
"""
The length word and the six words of the header: program, version, procedure, type, serial, status.
"""


_unpackHeader: Final = HEADER.unpack_from
_KEEPALIVE: Final = (PING, PONG)


class MessageFilter:
    """
    Forwards what it is fed, a 32 MiB message in the pieces in which it arrives.  Messages that
    somebody on the way must see are collected and handed over instead.

    Others can send messages the same way with L{inject}, which never breaks one that is being
    forwarded.  For example, with a ping injected after the first half of a message A::

        fed         A1      A2 B
        injected       PING
        forwarded   A1      A2 PING B

    @ivar stopped: set it to forward nothing any more.
    """

    __slots__ = (
        "_collecting",
        "_discarding",
        "_forward",
        "_injected",
        "_intercepted",
        "_intercepts",
        "_later",
        "_left",
        "_needed",
        "_partial",
        "_whole",
        "stopped",
    )

    def __init__(
        self,
        intercepts: Callable[[Header], bool],
        intercepted: Callable[[Message, bytes], None],
        forward: Callable[[Bytes], None],
        whole: int = 0,
    ) -> None:
        """
        @param intercepts: called with the header of every message, once; returns whether to
            intercept it.
        @param intercepted: called with each intercepted message, parsed and as it came.
        @param forward: called with everything else, in order.  It must not keep what it is given.
        @param whole: messages up to this size in bytes are forwarded in one piece.  While one is
            collected others can be sent in front of it.
        """
        self._intercepts = intercepts
        self._intercepted = intercepted
        self._forward = forward
        self._whole = whole
        # Bytes that are missing of the message that is being forwarded.
        self._left = 0
        # The beginning of a message that is being collected, the size at which to look at it
        # again, and whether it will be intercepted, once its header has been seen.
        self._partial: bytearray | None = None
        self._needed = HEADER_SIZE
        self._collecting: bool | None = None
        # Whole messages that have to wait for the next turn.
        self._later: bytes | None = None
        self._injected: list[bytes] | None = None
        self._discarding = 0
        self.stopped = False

    @property
    def midMessage(self) -> bool:
        """
        Whether a message has been forwarded in part.
        """
        return self._left > 0

    @property
    def between(self) -> bool:
        """
        Whether everything that was fed was whole messages, and all have been dealt with.
        """
        return not self._left and self._partial is None and self._later is None

    @property
    def waiting(self) -> int:
        """
        How many injected messages wait for the end of the one that is being forwarded.
        """
        return 0 if self._injected is None else len(self._injected)

    def inject(self, data: bytes) -> None:
        """
        Send a whole message, now or as soon as the one that is being forwarded has ended.  A ping
        does not wait twice, nor does a pong: one says as much as many.
        """
        if not self._left:
            self._forward(data)
        elif self._injected is None:
            self._injected = [data]
        elif data not in _KEEPALIVE or data not in self._injected:
            self._injected.append(data)

    def discard(self, size: int) -> None:
        """
        Drop as many bytes after a message that is being handed over: what comes with it and does
        not belong to it.
        """
        self._discarding += size

    def feed(self, data: Bytes) -> bool:
        """
        Take bytes as they came.

        @return: whether there is more to do, L{TURN_MAX} messages having been dealt with: feed it
            again, with nothing if nothing has come.
        @raise RemoteProtocolError: when a length word is out of bounds, or a message that should
            be intercepted is too long.
        """
        if self.stopped:
            return False
        size = len(data)
        if self._left:
            if self._left >= size:
                self._left -= size
                self._forward(data)
                if self._injected and not self._left:
                    self._flushInjected()
                return False
        elif self._partial is None and self._later is None and not self._discarding:
            # Most of what comes is one short message.
            if HEADER_SIZE <= size <= self._whole:
                header = _unpackHeader(data)
                if header[0] == size:
                    if not self._intercepts(header):
                        self._forward(data)
                        return False
                    self._collecting = True
        else:
            data = self._together(data)
            if not data:
                return False
        return self._split(data)

    def _together(self, data: Bytes) -> Bytes:
        """
        @return: C{data} with what waited for it in front; nothing if that is to wait further.
        """
        if self._discarding:
            data = data[self._drop(len(data)) :]
        if self._later is not None:
            data = self._later + data
            self._later = None
        elif self._partial is not None:
            self._partial += data
            if len(self._partial) < self._needed:
                return b""
            data = bytes(self._partial)
            self._partial = None
        return data

    def _split(self, data: Bytes) -> bool:
        """
        Split bytes into messages, forward most of them and intercept the others.

        Messages that follow one another are forwarded in one piece, since each piece costs a
        C{write}.  So the loop only moves C{end} past a message, and C{data[begin:end]} is what is
        to be forwarded; that happens when a message is intercepted, and at the end.  For example,
        of three messages of 100 bytes the second is intercepted, and the third has only 40 bytes
        yet::

            bytes       0.......100......200...240
            message     |   A    |   B    | C..
            after A     begin=0  end=100
            after B     forward [0:100], intercept [100:200], begin=end=200
            after C     end=300, beyond the data: forward [200:240], 60 bytes are left

        C{_left} is what the loop starts from when the next bytes arrive: here the first 60 of them
        are forwarded without a look.  A message that is collected is not forwarded in part: its
        beginning stays in C{_partial}, and C{end} before it.
        """
        size = len(data)
        begin = 0
        end = self._left
        # The message that was being forwarded ends here, so those injected come next.
        if self._injected:
            self._forward(data[:end])
            self._flushInjected()
            begin = end
        needed, collecting = HEADER_SIZE, self._collecting
        self._collecting = None
        for _ in range(TURN_MAX):
            if size - end < HEADER_SIZE:
                break
            header = _unpackHeader(data, end)
            length = header[0]
            if collecting is None:
                collecting = HEADER_SIZE <= length <= MESSAGE_MAX and self._intercepts(header)
                if not HEADER_SIZE <= length <= (INTERCEPTED_MAX if collecting else MESSAGE_MAX):
                    # What came before the bad message is still good.
                    self._left = 0
                    self._forward(data[begin:end])
                    raise _badLength(header, collecting)
            if size - end < length and (collecting or length <= self._whole):
                # Remember the answer, so that C{intercepts} is called once for each message.
                self._collecting, needed = collecting, length
                break
            if not collecting:
                end += length
                collecting = None
                continue
            collecting = None
            if begin < end:
                self._forward(data[begin:end])
            raw = bytes(data[end : end + length])
            begin = end = end + length
            self._left = 0
            self._intercepted(Message._make((*header[1:], raw[HEADER_SIZE:])), raw)
            begin = end = end + self._drop(size - end)
            if self.stopped:
                break
        else:
            # TURN_MAX messages are enough for this turn: the rest waits in C{_later}.
            self._later = bytes(data[end:]) or None
            data = data[:end]
            size = min(size, end)
        self._left = max(0, end - size)
        if end < size:
            self._partial = bytearray(data[end:])
            self._needed = needed
        if begin < min(end, size):
            self._forward(data[begin:end])
        return self._later is not None

    def _drop(self, available: int) -> int:
        dropped = min(self._discarding, available)
        self._discarding -= dropped
        return dropped

    def _flushInjected(self) -> None:
        injected, self._injected = self._injected, None
        self._left = 0
        for data in injected or ():
            self._forward(data)


def _badLength(header: Header, collecting: bool) -> RemoteProtocolError:
    length, program, _version, procedure, _type, _serial, _status = header
    most = INTERCEPTED_MAX if collecting else MESSAGE_MAX
    return RemoteProtocolError(
        f"a message of {length} bytes for procedure {procedure} of program {program:#x}, where "
        f"{HEADER_SIZE} to {most} are allowed"
    )
