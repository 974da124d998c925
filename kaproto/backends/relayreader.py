"""
Reads relayed connections, plain and TLS, without the reactor, and forwards the bytes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from twisted.internet.interfaces import IPushProducer, IReactorFDSet
from twisted.internet.tcp import Connection as Transport
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.directreader import DirectReader
from kaproto.errors import ProtocolError
from kaproto.keepalive.clock import MonotonicClock
from kaproto.keepalive.liveness import Liveness
from kaproto.keepalive.pacemaker import Pacemaker
from kaproto.rpc.connection import Connection
from kaproto.security.tlslayer import TLSLayer
from kaproto.security.tlsrecords import EXTRA
from kaproto.transport import StreamTransport
from kaproto.wire.filter import Bytes, MessageFilter
from kaproto.wire.message import PONG
from kaproto.wire.xdr import XDRError

__all__ = ["BATCH", "LARGE_SIZE", "PAUSED_MAX", "SIZE", "TURN_SIZE", "RelayReader"]

BATCH: Final = 32
"""
The most connections to read before the reactor gets its turn.
"""

SIZE: Final = 65536
"""
The most bytes read at once, as in Twisted, except in the middle of a long message.
"""

LARGE_SIZE: Final = 1048576
"""
The most bytes read at once in the middle of a message of more than
L{WHOLE_MAX<kaproto.backends.relay.WHOLE_MAX>} bytes.  With L{SIZE} bytes bulk would take twice the
processor time, for each read may be a wake-up.  Short messages are not read in such amounts, since
all of them would have to be handled, even if their sender has left.

Bytes that the receiver does not take are copied, so this bounds a connection's memory too.
"""

TURN_SIZE: Final = 8 * LARGE_SIZE
"""
The most bytes read before the reactor gets its turn, a few milliseconds' worth.
"""

PAUSED_MAX: Final = 64
"""
With more paused connections than this, at most L{SIZE} bytes are read at once: thousands of
receivers that do not read must not take a mebibyte each.
"""

_NONE: Final = -1
_PONG_SIZE: Final = len(PONG)
# The offset of the last byte of the program's number, in which the keepalive program differs from
# libvirt's other programs.  Comparing this byte first is cheaper than comparing the whole message.
_TELLING: Final = 7
_PONG_BYTE: Final = PONG[_TELLING]


class RelayReader(
    DirectReader[
        tuple[Callable[[bytearray, int], int], "_Reading", Liveness, Callable[[Bytes], bool]]
    ]
):
    """
    Reads all connections into one buffer, from which each connection's L{MessageFilter} forwards
    the bytes at once.  Bytes that the receiver's socket does not take are copied before the next
    read.  Bytes from a TLS connection are decrypted first.

    @ivar paused: the connections that are not read at the moment.
    """

    name = "relayed connections"

    def __init__(self, reactor: IReactorFDSet, pacemaker: Pacemaker) -> None:
        """
        @param reactor: the reactor, which waits for all connections by one file descriptor.
        @param pacemaker: the clock for recording when a peer was heard.
        """
        super().__init__(reactor)
        self._pacemaker = pacemaker
        self._buffer = bytearray(LARGE_SIZE)
        self._view = memoryview(self._buffer)
        self._room = memoryview(bytearray(LARGE_SIZE + EXTRA))
        self.paused: set[_Reading] = set()

    @classmethod
    def orNone(cls, clock: object, pacemaker: Pacemaker) -> RelayReader | None:
        """
        @param clock: a reactor, its L{MonotonicClock} or a L{twisted.internet.task.Clock}.
        @param pacemaker: the pacemaker of the same clock.
        @return: a reader; C{None} without C{epoll} or a real reactor.
        """
        reactor = clock.reactor if isinstance(clock, MonotonicClock) else clock
        if cls.worksWith(reactor):
            return cls(cast(IReactorFDSet, reactor), pacemaker)
        return None

    def read(self, connection: Connection, incoming: MessageFilter) -> None:
        """
        Start reading a connection, whenever it is not paused, if its transport allows that.

        @param connection: one that L{startRelay<Connection.startRelay>} was called on.
        @param incoming: is fed the bytes from the peer.
        """
        transport: object = connection.transport
        layer = transport if isinstance(transport, TLSLayer) else None
        below = transport if layer is None else layer.transport
        if isinstance(below, Transport) and (layer is None or below.protocol is layer):
            connection.reading.readBy(_Reading(self, connection, incoming, below, layer))

    def take(self, reading: _Reading) -> int:
        """
        Start reading a connection.

        @return: a descriptor to L{release}; negative if it cannot be read here now.
        """
        transport = reading.transport
        if not transport.connected:
            return _NONE
        receive = transport.getHandle().recv_into
        return self._add(transport, (receive, reading, reading.liveness, reading.incoming.feed))

    def release(self, descriptor: int) -> None:
        """
        Stop reading a descriptor from L{take}.
        """
        self._remove(descriptor)

    def doRead(self) -> None:
        """
        Read from the connections that are readable.
        """
        ready = [] if self._poller is None else self._poller.poll(0, BATCH)
        now = self._pacemaker.now
        crowded = len(self.paused) > PAUSED_MAX
        large = SIZE if crowded else min(LARGE_SIZE, TURN_SIZE // (len(ready) or 1))
        buffer, view, ways = self._buffer, self._view, self._reading
        for descriptor, _ in ready:
            way = ways.get(descriptor)
            if way is None:
                continue
            receive, reading, liveness, feed = way
            try:
                size = receive(buffer, large if reading.inLong else SIZE)
            except OSError as error:
                size = _NONE if isinstance(error, BlockingIOError) else 0
            if size <= 0:
                self._receivedNothing(descriptor, reading, isOver=not size)
                continue
            layer = reading.layer
            data: Bytes = view[:size]
            if layer is not None:
                data = self._decrypt(layer, data)
                size = len(data)
                if not size:
                    self._decrypted(descriptor, layer)
                    continue
            liveness.heard = now
            liveness.unanswered = 0
            connection = reading.connection
            if size == _PONG_SIZE and data[_TELLING] == _PONG_BYTE and self._isPong(reading, data):
                connection.heartbeat.answered()
            else:
                incoming = connection.incoming
                incoming.bytesReceived += size
                try:
                    more = feed(data)
                except Exception as error:  # noqa: BLE001
                    self._failed(connection, error)
                else:
                    if more or incoming.relayed is not None:
                        incoming.fed(more=more)
                asks = size > SIZE // 2 or reading.inLong
                reading.inLong = asks and reading.incoming.midMessage
            if layer is not None:
                self._decrypted(descriptor, layer)

    def _receivedNothing(self, descriptor: int, reading: _Reading, *, isOver: bool) -> None:
        if isOver:
            # An end of file or an error, which the transport will detect itself.
            self._remove(descriptor)
            reading.transport.resumeProducing()

    def _decrypt(self, layer: TLSLayer, data: Bytes) -> Bytes:
        try:
            return layer.decrypt(data, self._room)
        except Exception:  # noqa: BLE001
            self._abort(cast(Transport, layer.transport))
            return b""

    def _decrypted(self, descriptor: int, layer: TLSLayer) -> None:
        transport = cast(Transport, layer.transport)
        try:
            if layer.isEnding:
                layer.end()
        except Exception:  # noqa: BLE001
            self._abort(transport)
        if transport.disconnecting:
            self._remove(descriptor)

    def _isPong(self, reading: _Reading, data: Bytes) -> bool:
        return reading.incoming.between and data == PONG

    def _failed(self, connection: Connection, error: Exception) -> None:
        if isinstance(error, XDRError | ProtocolError):
            connection.incoming.fail(error)
        else:
            self._abort(connection.transport)

    def _abort(self, transport: StreamTransport) -> None:
        self._log.failure("could not relay bytes from {peer}", peer=transport.getPeer())
        transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor shuts down.  Notify the connections, which it does not know.
        """
        for descriptor, (_, reading, *_) in list(self._reading.items()):
            self._remove(descriptor)
            reading.transport.connectionLost(reason)


@implementer(IPushProducer)
class _Reading:
    """
    Reads one connection: by the L{RelayReader} if its transport allows that, else by the reactor.

    @ivar inLong: whether the bytes read so far end in the middle of a long message.  This is kept,
        since asking the filter before each read costs a call.
    """

    __slots__ = (
        "_descriptor",
        "_reader",
        "connection",
        "inLong",
        "incoming",
        "layer",
        "liveness",
        "transport",
    )

    def __init__(
        self,
        reader: RelayReader,
        connection: Connection,
        incoming: MessageFilter,
        transport: Transport,
        layer: TLSLayer | None,
    ) -> None:
        """
        @param incoming: is fed the bytes from the peer.
        @param transport: has the socket.
        @param layer: decrypts the bytes, if the connection uses TLS.
        """
        self.connection = connection
        self.liveness = connection.heartbeat.liveness
        self.incoming = incoming
        self.transport = transport
        self.layer = layer
        self.inLong = False
        self._reader = reader
        self._descriptor = _NONE

    def pauseProducing(self) -> None:
        """
        Stop reading.
        """
        self.stopProducing()
        self._reader.paused.add(self)
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Start reading again.
        """
        self._reader.paused.discard(self)
        self._descriptor = self._reader.take(self)
        if self._descriptor < 0:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """
        Stop reading for good.
        """
        self._reader.paused.discard(self)
        descriptor, self._descriptor = self._descriptor, _NONE
        self._reader.release(descriptor)
