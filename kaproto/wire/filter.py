"""
Forwards a stream of messages as it arrives, and intercepts some of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kaproto.errors import RemoteProtocolError
from kaproto.wire.message import HEADER, HEADER_SIZE, MESSAGE_MAX, PING, PONG, TURN_MAX, Message

__all__ = ["INTERCEPTED_MAX", "Bytes", "Header", "MessageFilter"]

Bytes = bytes | memoryview
"""
Bytes that must be used or copied at once: the buffer that they are in is overwritten later.
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
    Forwards the bytes that it is fed, a 32 MiB message in the pieces in which it arrives.
    Intercepted messages are collected and passed to a callback instead.

    L{inject} sends messages of our own, never in the middle of a forwarded one.  For example, with
    a ping injected after the first half of a message A::

        fed         A1      A2 B
        injected       PING
        forwarded   A1      A2 PING B

    @ivar stopped: set it to stop forwarding.
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
        @param intercepted: called with each intercepted message, parsed and as bytes.
        @param forward: called with all other bytes, in order.  It must not keep its argument.
        @param whole: messages up to this size, in bytes, are forwarded in one piece.  Until such a
            message is complete, others can be injected before it.
        """
        self._intercepts = intercepts
        self._intercepted = intercepted
        self._forward = forward
        self._whole = whole
        # Bytes still missing from the message that is being forwarded.
        self._left = 0
        # The message that is being collected so far, the size at which to look at it again, and
        # whether it will be intercepted (None before its header is complete).
        self._partial: bytearray | None = None
        self._needed = HEADER_SIZE
        self._collecting: bool | None = None
        # Whole messages that have to wait for the next turn, in memory that does not change.
        self._later: memoryview | None = None
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
        Whether all bytes so far were whole messages, and all of these have been handled.
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
        Send a whole message, now or after the one that is being forwarded.  At most one ping and
        one pong wait at a time: one has the same effect as many.
        """
        if not self._left:
            self._forward(data)
        elif self._injected is None:
            self._injected = [data]
        elif data not in _KEEPALIVE or data not in self._injected:
            self._injected.append(data)

    def discard(self, size: int) -> None:
        """
        Called while a message is intercepted: drop this many bytes after it, which arrived with it
        but do not belong to it.
        """
        self._discarding += size

    def feed(self, data: Bytes) -> bool:
        """
        Handle bytes that have arrived.

        @return: whether L{TURN_MAX} messages were handled and some are left: then call this again
            in the next turn, with no bytes if none have arrived.
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
            # The usual case is one short message.
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
        @return: C{data} after the bytes that waited for it; nothing if these must wait further.
        """
        if self._discarding:
            data = data[self._drop(len(data)) :]
        if self._later is not None:
            data = b"".join((self._later, data)) if data else self._later
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
        C{write}.  So the loop only moves C{end} past each message.  When a message is intercepted,
        and at the end, it forwards C{data[begin:end]}.  For example, of three messages of 100 bytes
        the second is intercepted, and only 40 bytes of the third have arrived::

            bytes       0.......100......200...240
            message     |   A    |   B    | C..
            after A     begin=0  end=100
            after B     forward [0:100], intercept [100:200], begin=end=200
            after C     end=300, beyond the data: forward [200:240], 60 bytes are left

        C{_left} says how many of the next bytes are forwarded unread, here 60.  A message that is
        collected is not forwarded in part: its beginning stays in C{_partial}, and C{end} stays
        before it.
        """
        size = len(data)
        begin = 0
        end = self._left
        # The message that was being forwarded ends here: send the injected ones.
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
                    # Still forward the messages before the bad one.
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
            self._later = _kept(data, end)
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


def _kept(data: Bytes, begin: int) -> memoryview | None:
    """
    Keep bytes for later turns.  They are copied at most once.  Otherwise each of the many turns
    for a thousand short messages would copy the rest.

    @return: the bytes from C{begin} on; C{None} if there are none.
    """
    view = memoryview(data)[begin:]
    if not view:
        return None
    return view if view.readonly else memoryview(bytes(view))


def _badLength(header: Header, collecting: bool) -> RemoteProtocolError:
    length, program, _version, procedure, _type, _serial, _status = header
    most = INTERCEPTED_MAX if collecting else MESSAGE_MAX
    return RemoteProtocolError(
        f"a message of {length} bytes for procedure {procedure} of program {program:#x}, where "
        f"{HEADER_SIZE} to {most} are allowed"
    )
