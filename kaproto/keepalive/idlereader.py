"""
Reads connections that say nothing but pong, past the reactor.
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
The most connections to look at before the reactor gets its turn.
"""

WAKES: Final = 64
"""
The most of these to give back to the reactor, since what they have to say, or that they are gone,
costs it many times more than a pong.  The others wait for the next turn.
"""

_NONE: Final = -1


class Idler(Protocol):
    """
    A connection that may be idle: a L{kaproto.keepalive.heartbeat.Heartbeat}.

    @ivar idle: its file descriptor while it is read from here, else negative; belongs to the
        L{IdleReader}.
    @ivar transport: what it is connected by.
    @ivar pong: the only bytes that are expected.
    @ivar liveness: what they stamp.
    @ivar pingedAt: when the ping was sent that has not been answered.
    @ivar latency: seconds that the latest answer took.
    @ivar roundTrips: where to count it, if anywhere.
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
    Reads idle connections.  A pong stamps its peer's liveness, and that is all.  Anything else ends
    the idleness: the transport reads on as if nothing had been, and gets first what has been read.
    """

    name = "idle connections"

    def __init__(self, reactor: IReactorFDSet, pacemaker: Pacemaker) -> None:
        """
        @param reactor: which reactor to wait in.
        @param pacemaker: has the time to stamp signs of life with, and to measure latency with.
        """
        super().__init__(reactor)
        self._pacemaker = pacemaker

    @classmethod
    def orNone(cls, clock: object, pacemaker: Pacemaker) -> IdleReader | None:
        """
        @param clock: a reactor or a L{twisted.internet.task.Clock}.
        @param pacemaker: that of the same clock.
        @return: a reader, or C{None} where there is no C{epoll} or no reactor to wait in.
        """
        return cls(cast(IReactorFDSet, clock), pacemaker) if cls.worksWith(clock) else None

    def take(self, idler: Idler) -> None:
        """
        Read from a connection of which nothing but pongs is expected, if its transport is such
        that this can be done.

        @param idler: the connection, between two messages.
        """
        transport = idler.transport
        # A message by a UNIX socket can bring file descriptors, which need the transport's own way.
        if isinstance(transport, Connection) and not IUNIXTransport.providedBy(transport):
            receive = transport.getHandle().recv
            idler.idle = self._add(transport, (receive, idler.pong, idler))

    def release(self, idler: Idler) -> None:
        """
        Read no more from a connection, which may or may not be idle now.  It is not read from at
        all until C{resumeProducing} is called on its transport.
        """
        descriptor, idler.idle = idler.idle, _NONE
        self._remove(descriptor)

    def doRead(self) -> None:
        """
        Some connections have something to say.
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
                        # Histogram.add(), without the cost of a call.
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
        # Without data it is the end or an error, which the transport is about to find out itself.
        if not data or transport.disconnecting:  # type: ignore[attr-defined]
            return
        try:
            # TLS, if it was started meanwhile, stands between the transport and the connection.
            transport.protocol.dataReceived(data)  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001
            self._log.failure("{idler!r} failed to take in what it received", idler=idler)
            transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor shuts down: tell the connections, which it does not know of.
        """
        for _, _, idler in list(self._reading.values()):
            self.release(idler)
            idler.transport.connectionLost(reason)  # type: ignore[attr-defined]
