"""
Multiplexes an application's bytes and control messages on one connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from kaproto.errors import LocalProtocolError, RemoteProtocolError
from kaproto.watch.controlfilter import ControlFilter
from kaproto.watch.framing import Tracker
from kaproto.watch.interfaces import Control, IHeartbeatCodec

__all__ = ["CodecWire", "Wire"]


class Wire(Protocol):
    """
    Both directions of one connection.

    @ivar isBusy: whether the application is in the middle of a message, so that a control message
        has to wait; C{None} if control messages fit in at any time.
    """

    isBusy: Callable[[], bool] | None

    def isWaiting(self, message: bytes, /) -> bool:
        """
        @return: whether this control message has not been sent yet.
        """

    @property
    def between(self) -> bool:
        """
        Whether all bytes received so far were whole messages.
        """

    def feed(self, data: bytes, /) -> Iterator[bytes | Control]:
        """
        Handle bytes that were received.

        @return: the application's bytes and the control messages, in order.
        @raise RemoteProtocolError: when the peer may not send these bytes.
        """

    def wrap(self, data: bytes, /) -> bytes:
        """
        @param data: bytes that the application writes.
        @return: the bytes to send.
        @raise LocalProtocolError: when the application may not write these bytes.
        """

    def inject(self, message: bytes, /) -> bytes:
        """
        @param message: a control message to be sent.
        @return: bytes to send now; C{b""} if it waits for the end of the application's message.
        """


class CodecWire:
    """
    Sends control messages between the application's own messages, which it does not change.
    """

    def __init__(self, codec: IHeartbeatCodec) -> None:
        self._codec = codec
        self._filter = ControlFilter(codec)
        self._tracker = Tracker(codec.framing())
        self._waiting: list[bytes] = []
        self.feed = self._filter.feed
        self.isBusy: Callable[[], bool] | None = self._isBusy

    @property
    def between(self) -> bool:
        """
        Whether all bytes received so far were whole messages.
        """
        return self._filter.between

    def _isBusy(self) -> bool:
        return not self._tracker.between

    def isWaiting(self, message: bytes) -> bool:
        """
        @return: whether this control message has not been sent yet.
        """
        return message in self._waiting

    def inject(self, message: bytes) -> bytes:
        """
        @return: the message; C{b""} if the application is in the middle of one of its own.
        """
        if self._tracker.between:
            return message
        if message not in self._waiting:
            self._waiting.append(message)
        return b""

    def wrap(self, data: bytes) -> bytes:
        """
        @return: the same bytes, with the waiting control messages after the first message in them.
        @raise LocalProtocolError: when they are not messages of the codec's protocol.
        """
        try:
            end = self._tracker.wrote(data)
        except RemoteProtocolError as error:
            raise LocalProtocolError(
                f"the application wrote {error}, which does not fit its codec {self._codec.name!r}"
            ) from error
        if not self._waiting or end is None:
            return data
        between = b"".join(self._waiting)
        self._waiting.clear()
        return data[:end] + between + data[end:]
