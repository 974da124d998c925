"""
Multiplexes the application's stream and control messages on a tunnel's connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from kaproto.errors import RemoteProtocolError
from kaproto.watch.interfaces import Control, Kind
from kaproto.watch.tunnelmessages import (
    BEGINNING,
    CONTROL_MAX,
    DATA_FOLLOWS,
    END,
    readControl,
    readOpening,
)
from kaproto.wire.message import HEADER, HEADER_SIZE, MESSAGE_MAX

__all__ = ["DATA_MAX", "TunnelWire"]

DATA_MAX: Final = MESSAGE_MAX - HEADER_SIZE
"""
The most bytes of the application that one message can carry.
"""


class TunnelWire:
    """
    Both directions of one connection through a tunnel.

    @ivar plain: whether the peer is plain, so that bytes pass unchanged.
    @ivar wroteEnd: whether this side's application has ended its stream.
    @ivar readEnd: whether the peer's application has ended its stream.
    """

    isBusy: Callable[[], bool] | None = None

    def __init__(self, *, server: bool) -> None:
        """
        @param server: whether this is the server's end, whose peer may be a plain client.
        """
        self.plain = self.wroteEnd = self.readEnd = False
        self._server = server
        self._opened = False
        # The header before the peer's data.  Before the tunnel is open and after the peer's stream
        # has ended, it is empty, so that data is refused.
        self._dataFollows = b""
        # The beginning of a message that is not complete, and the bytes missing from a data message
        # whose beginning was passed on.
        self._partial = b""
        self._left = 0

    @property
    def between(self) -> bool:
        """
        Whether all bytes received so far were whole messages.
        """
        return not self._partial and not self._left

    def isWaiting(self, message: bytes) -> bool:
        """
        @return: C{False}: control messages are sent at once.
        """
        return False

    def inject(self, message: bytes) -> bytes:
        """
        @return: the message; C{b""} if the peer is plain.
        """
        return b"" if self.plain else message

    def becomePlain(self) -> bytes:
        """
        Treat the client as plain, since it has not sent enough to be a tunnel client.

        @return: the bytes that it has sent.
        """
        self.plain = True
        said, self._partial = self._partial, b""
        return said

    def wrap(self, data: bytes) -> bytes:
        """
        @return: messages that carry these bytes.
        """
        if self.plain:
            return data
        if not data or self.wroteEnd:
            return b""
        if len(data) > DATA_MAX:
            pieces = range(0, len(data), DATA_MAX)
            return b"".join(self.wrap(data[start : start + DATA_MAX]) for start in pieces)
        return self.header(data) + data

    def header(self, data: bytes) -> bytes:
        """
        @param data: the application's bytes for a single message.
        @return: the length word and header to send before them.
        """
        return (HEADER_SIZE + len(data)).to_bytes(4) + DATA_FOLLOWS

    def end(self) -> bytes:
        """
        End this side's stream.

        @return: the message for the peer.
        """
        self.wroteEnd = True
        return END

    def feed(self, data: bytes) -> Iterator[bytes | Control]:
        """
        Handle bytes that were received.

        @return: a lazy iterator over the application's bytes, in the pieces in which they arrive,
            and control messages.
        @raise RemoteProtocolError: from the iterator, after all valid messages, when the bytes are
            malformed.
        """
        if self._partial:
            data, self._partial = self._partial + data, b""
        if not self._opened and not self.plain:
            self._recognize(data)
        if self.plain:
            yield data
        else:
            yield from self._messages(data)

    def _messages(self, data: bytes) -> Iterator[bytes | Control]:
        at, size = 0, len(data)
        view = memoryview(data)
        pieces: list[memoryview] = []
        failure: RemoteProtocolError | None = None
        try:
            while at < size:
                if self._left:
                    end = min(at + self._left, size)
                    self._left -= end - at
                    pieces.append(view[at:end])
                elif size - at < HEADER_SIZE:
                    break
                elif view[at + 4 : at + HEADER_SIZE] == self._dataFollows:
                    self._left = self._lengthOf(data, at, MESSAGE_MAX) - HEADER_SIZE
                    end = at + HEADER_SIZE
                else:
                    end = at + self._lengthOf(data, at, CONTROL_MAX)
                    if end > size:
                        break
                    control = self._control(data[at:end])
                    if pieces:
                        yield b"".join(pieces)
                        pieces.clear()
                    yield control
                at = end
        except RemoteProtocolError as error:
            failure = error
        self._partial = data[at:] if failure is None else b""
        if pieces:
            # Bytes from the middle of a long message are passed on without a copy.
            yield data if len(pieces[0]) == size else b"".join(pieces)
        if failure is not None:
            raise failure

    def _recognize(self, data: bytes) -> None:
        """
        Check whether the peer's first bytes, as far as they have arrived, are those of a tunnel.  A
        client counts as plain if they are not.

        @raise RemoteProtocolError: when a server's first bytes are not.
        """
        if self._server:
            self.plain = not (data.startswith(BEGINNING) or BEGINNING.startswith(data))
            return
        # The length of the answer varies, but is less than 64 KiB.
        program = BEGINNING[4:]
        if (data[:2] + data[4:8]) != (b"\0\0"[: len(data)] + program[: max(0, len(data) - 4)]):
            raise RemoteProtocolError(f"{data[:16]!r} in place of the answer of a tunnel")

    def _lengthOf(self, data: bytes, at: int, most: int) -> int:
        length = int.from_bytes(data[at : at + 4])
        if not HEADER_SIZE <= length <= most:
            raise RemoteProtocolError(f"a message of {length} bytes through a tunnel")
        return length

    def _control(self, message: bytes) -> Control:
        if self._opened:
            control = readControl(message)
        else:
            control = readOpening(message, server=self._server)
        if control is None or (control.kind is Kind.END and self.readEnd):
            _length, program, _version, procedure, kind, *_ = HEADER.unpack_from(message)
            raise RemoteProtocolError(
                f"procedure {procedure} of program {program:#x}, type {kind}, through a tunnel"
            )
        self._opened = True
        self.readEnd = self.readEnd or control.kind is Kind.END
        self._dataFollows = b"" if self.readEnd else DATA_FOLLOWS
        return control
