"""
Keepalive below any protocol, through a tunnel between two programs that use kaproto.  The
application sees an ordinary connection.

The tunnel is the transport of the application's protocol, and closes like any other:
C{loseConnection} after sending what was written, C{abortConnection} at once,
C{loseWriteConnection} in one direction.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, ITransport

from kaproto.transport import connectionOf, writeNow
from kaproto.watch.interfaces import Control, Kind
from kaproto.watch.protocol import WatchedProtocol
from kaproto.watch.tunnelwire import DATA_MAX, TunnelWire
from kaproto.wire.message import HEADER_SIZE

__all__ = ["TunnelProtocol"]

_USUAL: Final = 65536 + HEADER_SIZE
_BULK: Final = 4 * 65536
"""
The most bytes to read in one turn of the reactor: usually as many as Twisted reads, and a header;
more during a transfer.
"""

_LARGE: Final = 16384
"""
The size, in bytes, from which a piece is worth a separate system call.
"""


class TunnelProtocol(WatchedProtocol):
    """
    The common part of both ends of a tunnel: carries the application's stream and its end.
    """

    _wire: TunnelWire
    _connection: Any = None

    def makeConnection(self, transport: ITransport) -> None:
        """
        Begin to watch the peer.
        """
        self._connection = connection = connectionOf(transport)
        if connection is not None:
            connection.bufferSize = _USUAL
            # Twisted pauses producers at this size.  Without room for the headers, an application
            # that writes what it has read, 64 KiB, would be paused twice as often.
            connection.SEND_LIMIT += 2 * HEADER_SIZE
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on the application's bytes.

        While more arrives than Twisted reads in one turn, read four times as much at once, which
        costs less for each byte.  Always reading that much would cost more for small messages: each
        read allocates the whole buffer.
        """
        if self._connection is not None:
            self._connection.bufferSize = _USUAL if len(data) < _USUAL else _BULK
        super().dataReceived(data)

    def write(self, data: bytes) -> None:
        """
        Send the application's bytes.

        A large piece is sent at once, which saves the reactor's system calls.  Small pieces are
        left to the reactor, which sends all pieces of a turn together.  Sent separately, the second
        would wait for the peer to acknowledge the first (Nagle's algorithm).
        """
        wire = self._wire
        if len(data) < _LARGE or len(data) > DATA_MAX or wire.plain or wire.wroteEnd:
            self.transport.write(wire.wrap(data))
        else:
            writeNow(self.transport, data, wire.header(data))

    def loseWriteConnection(self) -> None:
        """
        End the application's stream.  Pings go on.
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
        The peer's application has ended its stream.  As with TCP, an application that does not
        support half-close is disconnected.
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
