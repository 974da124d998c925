"""
Reads pongs of idle connections without going through the reactor, whose dispatch costs more than
handling the pong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, cast

from twisted.internet.interfaces import IReactorFDSet, IUNIXTransport
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from kaproto.directreader import DirectReader
from kaproto.keepalive.histogram import SUM, Histogram
from kaproto.keepalive.liveness import Liveness
from kaproto.keepalive.pacemaker import Pacemaker
from kaproto.transport import StreamTransport

__all__ = ["BATCH", "WAKES", "IdleReader", "Idler"]

BATCH: Final = 256
"""
The most connections to read before the reactor runs again.
"""

WAKES: Final = 64
"""
At most this many connections are returned to the reactor in one turn: a message, or the end of a
connection, costs it many times more than a pong.
"""

_NONE: Final = -1


class Idler(Protocol):
    """
    A connection that may be idle: a L{kaproto.keepalive.heartbeat.Heartbeat}.

    @ivar idle: the file descriptor while it is read from here, else negative.  Only the
        L{IdleReader} changes it.
    @ivar transport: the connection's transport.
    @ivar pong: the only bytes that an idle peer sends.
    @ivar liveness: records when the peer was heard.
    @ivar pingedAt: when the unanswered ping was sent.
    @ivar latency: the round trip of the latest ping, in seconds.
    @ivar roundTrips: a histogram of latencies, if there is one.
    """

    idle: int
    transport: StreamTransport
    pong: bytes
    liveness: Liveness
    pingedAt: float | None
    latency: float | None
    roundTrips: Histogram | None


class IdleReader(DirectReader[tuple[Callable[[int], bytes], bytes, Idler]]):
    """
    Reads idle connections.  For a pong it only records the time.  If anything else arrives, the
    connection is no longer idle: its protocol gets the bytes, and the reactor reads it again.
    """

    name = "idle connections"

    def __init__(self, reactor: IReactorFDSet, pacemaker: Pacemaker) -> None:
        """
        @param reactor: the reactor, which waits for all idle connections by one file descriptor.
        @param pacemaker: the clock for liveness and latency.
        """
        super().__init__(reactor)
        self._pacemaker = pacemaker

    @classmethod
    def orNone(cls, clock: object, pacemaker: Pacemaker) -> IdleReader | None:
        """
        @param clock: a reactor or a L{twisted.internet.task.Clock}.
        @param pacemaker: the pacemaker of the same clock.
        @return: a reader; C{None} if the system has no C{epoll}, or C{clock} is not a reactor.
        """
        return cls(cast(IReactorFDSet, clock), pacemaker) if cls.worksWith(clock) else None

    def take(self, idler: Idler) -> None:
        """
        Start reading an idle connection, if its transport is one of Twisted's plain TCP
        connections.

        @param idler: the connection, between two messages.
        """
        transport = idler.transport
        # File descriptors can arrive over a UNIX socket, and only its transport can receive them.
        if isinstance(transport, Connection) and not IUNIXTransport.providedBy(transport):
            receive = transport.getHandle().recv
            idler.idle = self._add(transport, (receive, idler.pong, idler))

    def release(self, idler: Idler) -> None:
        """
        Stop reading a connection, if it is idle.  After that it is not read until
        C{resumeProducing} is called on its transport.
        """
        descriptor, idler.idle = idler.idle, _NONE
        self._remove(descriptor)

    def doRead(self) -> None:
        """
        Read from the idle connections that are readable.
        """
        if self._poller is None:
            return
        now = self._pacemaker.now
        seconds = self._pacemaker.seconds()
        idlers = self._reading
        wakes = 0
        for descriptor, _ in self._poller.poll(0, BATCH):
            idle = idlers.get(descriptor)
            if idle is None:
                continue
            receive, pong, idler = idle
            try:
                data = receive(len(pong))
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data == pong:
                liveness = idler.liveness
                liveness.heard = now
                liveness.unanswered = 0
                if idler.pingedAt is not None:
                    idler.latency = latency = seconds - idler.pingedAt
                    idler.pingedAt = None
                    roundTrips = idler.roundTrips
                    if roundTrips is not None:
                        # Histogram.add(), inlined.
                        micros = int(latency * 1e6)
                        roundTrips[micros.bit_length()] += 1
                        roundTrips[SUM] += micros
            else:
                self._wake(idler, data)
                wakes += 1
                if wakes == WAKES:
                    break

    def _wake(self, idler: Idler, data: bytes) -> None:
        self.release(idler)
        transport = idler.transport
        transport.resumeProducing()
        # No data means an end of file or an error, which the transport will detect itself.
        if not data or transport.disconnecting:  # type: ignore[attr-defined]
            return
        try:
            # If TLS was started meanwhile, this is the TLS layer, not the connection's protocol.
            transport.protocol.dataReceived(data)  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001
            self._log.failure("{idler!r} failed to handle received bytes", idler=idler)
            transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor shuts down.  Notify the idle connections, which it does not know.
        """
        for _, _, idler in list(self._reading.values()):
            self.release(idler)
            idler.transport.connectionLost(reason)  # type: ignore[attr-defined]
