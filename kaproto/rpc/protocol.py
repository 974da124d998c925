"""
The base class of both ends' protocols, with hooks for applications to override.
"""

from __future__ import annotations

import os
from typing import ClassVar, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.arguments import checkInstance, checkType
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.histogram import Histogram
from kaproto.keepalive.kernelwatch import TCPKeepAlive
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.monitor import Monitor
from kaproto.limits import Limits
from kaproto.rpc.connection import Connection
from kaproto.transport import StreamTransport
from kaproto.wire.message import PONG

__all__ = ["KeepAliveFactory", "KeepAliveProtocol", "connectionOf"]

_C = TypeVar("_C", bound=Connection)


class KeepAliveFactory(Factory):
    """
    State shared by the connections of one factory.

    @ivar clock: schedules timeouts by the monotonic clock.
    @ivar seconds: reads the monotonic clock.
    @ivar limits: the resource limits for each peer, and the timeouts.  To change one, replace the
        whole object.
    @ivar roundTrips: a histogram of the latencies.
    @ivar tcpKeepAlive: which peers the kernel watches.
    """

    protocol: type[KeepAliveProtocol]  # type: ignore[assignment]
    noisy = False
    tcpKeepAlive = TCPKeepAlive()

    def __init__(self, clock: IReactorTime | None = None, limits: Limits | None = None) -> None:
        """
        @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
        @param limits: by default C{Limits()}.
        @raise TypeError: when an argument has another type.
        """
        self.limits = Limits() if limits is None else limits
        checkType("limits", self.limits, Limits)
        if clock is None:
            from twisted.internet import reactor

            clock = IReactorTime(reactor)
        checkInstance("clock", clock, IReactorTime, "pass a reactor or a task.Clock")
        self.clock = monotonicClock(clock)
        self.seconds = self.clock.seconds
        # Keeps the reactor's monitor alive while there is no connection.
        self._monitor = Monitor.of(clock)
        self.roundTrips = Histogram()


_BASES: Final[list[type]] = []
"""
The classes that applications subclass.
"""

_HOOKS: Final = {
    "makeConnection": "connectionOpened(), which is called when the connection is open",
    "connectionMade": "connectionOpened(), which is called when the connection is open",
    "handshakeCompleted": "connectionOpened(), which is called when the connection is open",
    "connectionLost": "connectionClosed(reason), which is called when it has ended",
    "dataReceived": "procedures of a Program on a server, or listen() for events on a client",
    "fileDescriptorReceived": "procedures of a Program: no file descriptors are received here",
}
"""
The methods that the transport calls, which applications must not define, each with the hook to
define instead.
"""


@implementer(IFileDescriptorReceiver)
class KeepAliveProtocol(Protocol):
    """
    One end of a connection.  Subclass L{kaproto.server.KeepAliveServerProtocol} or
    L{kaproto.client.KeepAliveClientProtocol}.

    A subclass may use any other names, and never has to call C{super()}: the state and methods of
    the connection are on a separate object.

    @ivar factory: the L{KeepAliveFactory} that built it.
    """

    factory: KeepAliveFactory

    _kaprotoConnection: ClassVar[type[Connection]]
    _kaproto: Connection

    def __init_subclass__(cls, *, isBase: bool = False) -> None:
        """
        @param isBase: whether this is a class for applications to subclass.
        @raise TypeError: when a subclass defines a method that the transport calls; the message
            names the hook to define instead.
        """
        super().__init_subclass__()
        if isBase:
            _BASES.append(cls)
            return
        base = next(each for each in cls.__mro__ if each in _BASES)
        for name, hook in _HOOKS.items():
            if getattr(cls, name, None) is not getattr(base, name, None):
                raise TypeError(
                    f"{cls.__qualname__} defines {name}, which {base.__name__} needs for itself. "
                    f"Use {hook}."
                )

    def connectionOpened(self) -> None:
        """
        Called when the connection is open.  Override it.
        """

    def connectionClosed(self, reason: Exception) -> None:
        """
        Called once when the connection has ended, even if it never opened.  Override it.

        @param reason: the reason that L{whenClosed} fires with.
        """

    @property
    def keepAlive(self) -> KeepAlive:
        """
        The interval and count at which the peer is pinged; zeros if it is not.
        """
        return self._kaproto.heartbeat.keepAlive

    @property
    def latency(self) -> float | None:
        """
        The round trip of the latest ping, in seconds; C{None} before the first.
        """
        return self._kaproto.heartbeat.latency

    @property
    def silence(self) -> float:
        """
        Seconds since the peer was last heard, to the precision of
        L{kaproto.keepalive.pacemaker.TICK}; measured only while this process watches at least one
        peer.
        """
        return self._kaproto.heartbeat.silence

    def whenClosed(self) -> Deferred[Exception]:
        """
        @return: fires, never fails, with the reason once the connection has ended:
            L{kaproto.errors.KeepAliveTimeout}, L{kaproto.errors.ConnectionClosed},
            L{kaproto.errors.RemoteProtocolError} or what the transport reported.
        """
        return self._kaproto.closing.whenClosed()

    def makeConnection(self, transport: StreamTransport) -> None:
        """
        The transport is connected.
        """
        self._kaproto = self._kaprotoConnection(transport, self, self.factory)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        self._kaproto.start()

    def dataReceived(self, data: bytes) -> None:
        """
        Bytes arrived from the peer.  Any bytes are a sign of life.
        """
        # Heartbeat.heard(), inlined: for a pong the call would cost as much as the work.
        connection = self._kaproto
        heartbeat = connection.heartbeat
        liveness = heartbeat.liveness
        liveness.heard = heartbeat.pacemaker.now
        liveness.unanswered = 0
        incoming = connection.incoming
        if data == PONG and incoming.bypass is None and incoming.reader.partial is None:
            if heartbeat.pingedAt is not None:
                heartbeat.answered()
        else:
            incoming.feed(data)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """
        A file descriptor arrived over a UNIX socket: close it.  Whether the peer may send one is
        decided when its message is parsed.
        """
        os.close(descriptor)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The transport is gone.
        """
        self._kaproto.lost(reason)


def connectionOf(protocol: KeepAliveProtocol, kind: type[_C]) -> _C:
    """
    @return: the connection of a protocol, for kaproto's own modules.
    """
    connection = protocol._kaproto
    assert isinstance(connection, kind), f"{protocol!r} has a {type(connection).__name__}"
    return connection
