"""
How an application's bytes and control messages share a connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from kaproto.errors import LocalProtocolError, RemoteProtocolError
from kaproto.watch.controlfilter import ControlFilter
from kaproto.watch.framing import Tracker
from kaproto.watch.interfaces import Control, IHeartbeatCodec

__all__ = ["CodecWire", "Wire"]


class Wire(Protocol):
    """
    Both directions of one connection.
    """

    @property
    def between(self) -> bool:
        """
        Whether all that came was whole messages.
        """

    @property
    def mayInject(self) -> bool:
        """
        Whether a control message may be sent now.
        """

    def feed(self, data: bytes, /) -> Iterator[bytes | Control]:
        """
        Bytes came.

        @return: the application's bytes and the control messages, in order.
        @raise RemoteProtocolError: when they are not what the peer may send.
        """

    def wrap(self, data: bytes, /) -> bytes:
        """
        @param data: what the application writes.
        @return: what is sent for it.
        @raise LocalProtocolError: when the application may not write that.
        """


class CodecWire:
    """
    Control messages between an application's own messages, which are sent as they are.
    """

    def __init__(self, codec: IHeartbeatCodec) -> None:
        self._codec = codec
        self._filter = ControlFilter(codec)
        self._tracker = Tracker(codec.framing())
        self.feed = self._filter.feed

    @property
    def between(self) -> bool:
        """
        Whether all that came was whole messages.
        """
        return self._filter.between

    @property
    def mayInject(self) -> bool:
        """
        Whether the application has written whole messages only.
        """
        return self._tracker.between

    def wrap(self, data: bytes) -> bytes:
        """
        @return: the same.
        @raise LocalProtocolError: when it is not a message of the codec's kind.
        """
        try:
            self._tracker.wrote(data)
        except RemoteProtocolError as error:
            raise LocalProtocolError(
                f"the application wrote {error}, and its codec is {self._codec.name!r}"
            ) from error
        return data
