"""
Keepalive below any protocol.  Both ends of a tunnel are kaproto's, and the application sees nothing
of it.

The tunnel is the transport of the application's protocol.  It closes as any other:
C{loseConnection} after what was written, C{abortConnection} at once, C{loseWriteConnection} in one
direction.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, ITransport

from kaproto.transport import connectionOf
from kaproto.watch.interfaces import Control, Kind
from kaproto.watch.protocol import WatchedProtocol
from kaproto.watch.tunnelwire import TunnelWire
from kaproto.wire.message import HEADER_SIZE

__all__ = ["TunnelProtocol"]


class TunnelProtocol(WatchedProtocol):
    """
    What both ends of a tunnel do: carry the application's stream and its end.
    """

    _wire: TunnelWire

    def makeConnection(self, transport: ITransport) -> None:
        """
        Begin to watch the peer.
        """
        # Twisted reads, sends and pauses producers at these sizes.  Without room for the headers
        # an application that writes as much as it has read, 64 KiB, is paused twice as often.
        connection: Any = connectionOf(transport)
        if connection is not None:
            connection.bufferSize += HEADER_SIZE
            connection.SEND_LIMIT += 2 * HEADER_SIZE
        super().makeConnection(transport)

    def loseWriteConnection(self) -> None:
        """
        Send no more of the application's bytes.  Pings go on.
        """
        if self._wire.plain:
            super().loseWriteConnection()
        elif not self._wire.wroteEnd:
            self.transport.write(self._wire.end())
            self._closeIfBothEnded()

    def _negotiated(self, control: Control) -> None:
        if control.kind is Kind.END:
            self._streamEnded()
        else:
            super()._negotiated(control)

    def _streamEnded(self) -> None:
        """
        The peer's application sends no more.  As with TCP, an application that cannot use half a
        connection is disconnected.
        """
        application = self.wrappedProtocol
        if IHalfCloseableProtocol.providedBy(application):
            application.readConnectionLost()
            self._closeIfBothEnded()
        else:
            self.loseConnection()  # type: ignore[no-untyped-call]

    def _closeIfBothEnded(self) -> None:
        if self._wire.readEnd and self._wire.wroteEnd:
            self.loseConnection()  # type: ignore[no-untyped-call]
