"""
Extracts control messages from a stream, and passes on all other bytes unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator

from kaproto.errors import RemoteProtocolError
from kaproto.watch.framing import LONGER
from kaproto.watch.interfaces import Control, IHeartbeatCodec

__all__ = ["ControlFilter"]


class ControlFilter:
    r"""
    Filters one direction of one connection.

    A message is held only while it may become a control message, so no more bytes are held than the
    longest control message has.  With lines, C{b"hel"} passes at once, and C{b"PI"} is held until
    C{b"NG\r\n"} makes it a ping or C{b"E\r\n"} makes it a message of the application.
    """

    __slots__ = ("_codec", "_framing", "_held")

    def __init__(self, codec: IHeartbeatCodec) -> None:
        self._codec = codec
        self._framing = codec.framing()
        self._held = b""

    @property
    def between(self) -> bool:
        """
        Whether all bytes received so far were whole messages.
        """
        return not self._held and self._framing.between

    def feed(self, data: bytes) -> Iterator[bytes | Control]:
        """
        Filter bytes that were received.

        @return: a lazy iterator over the application's bytes and the control messages, in order.
        @raise RemoteProtocolError: from the iterator, after all valid messages, when the bytes are
            malformed.
        """
        if self._held:
            data, self._held = self._held + data, b""
        begin = at = 0
        failure: RemoteProtocolError | None = None
        try:
            while at < len(data):
                found = self._look(data, at)
                if found is None:
                    self._held = data[at:]
                    break
                end, control = found
                if control is not None:
                    if begin < at:
                        yield data[begin:at]
                    begin = end
                    yield control
                at = end
        except RemoteProtocolError as error:
            failure = error
        if begin < at:
            yield data[begin:at]
        if failure is not None:
            raise failure

    def _look(self, data: bytes, at: int) -> tuple[int, Control | None] | None:
        """
        @return: the offset at which the current message or the data ends, and the control message
            if it is one.  C{None} if the message has to be held.
        """
        framing, codec = self._framing, self._codec
        if framing.between:
            found = framing.whole(data, at, codec.most)
            if found is None and codec.mayBegin(data[at:]):
                return None
            if found is not None and found is not LONGER:
                control = codec.read(found[1])
                if control is not None:
                    return found[0], control
        return framing.passed(data, at), None
