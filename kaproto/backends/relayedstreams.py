"""
The open streams of a relayed connection.
"""

from __future__ import annotations

from kaproto.rpc.shared import Shared

__all__ = ["RelayedStreams"]


class RelayedStreams:
    """
    Records which streams are open, so that a connection is not closed in the middle of one.

    A client could open any number of streams, so at most C{limits.relayedStreams} are tracked.  If
    there are ever more, a stream counts as open until the connection ends.
    """

    __slots__ = ("_failed", "_more", "_open", "_shared")

    def __init__(self, shared: Shared) -> None:
        """
        @param shared: has the limits.
        """
        self._shared = shared
        self._open: set[int] = set()
        self._more = False
        self._failed: set[int] = set()

    @property
    def areOpen(self) -> bool:
        """
        Whether any stream is open.
        """
        return bool(self._open) or self._more

    @property
    def known(self) -> int:
        """
        The number of open streams that are tracked.
        """
        return len(self._open)

    def used(self, serial: int) -> None:
        """
        A message of a stream was relayed.

        @param serial: the serial of the call that opened the stream.
        """
        if serial in self._failed:
            # The client has not read yet that the stream failed; the server sends nothing more.
            return
        if len(self._open) < self._shared.limits.relayedStreams:
            self._open.add(serial)
        elif serial not in self._open:
            self._more = True

    def ended(self, serial: int, *, failed: bool) -> None:
        """
        The server has sent the last message of a stream.

        @param failed: whether this message is an error.  The client may send more until it has read
            the error.
        """
        self._open.discard(serial)
        if failed:
            if len(self._failed) >= self._shared.limits.relayedStreams:
                self._failed.clear()
            self._failed.add(serial)
