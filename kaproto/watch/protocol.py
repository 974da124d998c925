"""
What stands between a transport and an application's protocol: it takes control messages out of
what comes, puts its own between the application's messages, and passes on every other byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from kaproto.errors import KeepAliveTimeout, PeerFlooded, RemoteProtocolError
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pingbudget import PingBudget
from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.transport import identify, unsent, writeNow
from kaproto.watch.interfaces import Control, Kind
from kaproto.watch.wires import Wire

__all__ = ["WatchedProtocol"]

_LIMITS: Final = Limits()


class WatchedProtocol(ProtocolWrapper):
    """
    One end of a connection, and the transport of the application's protocol.

    @ivar heartbeat: the watch on the peer; C{heartbeat.latency} and C{heartbeat.keepAlive} are
        for the application, which finds this object as its C{transport}.
    """

    factory: Any
    transport: Any
    wrappedProtocol: Any
    heartbeat: Heartbeat
    _log = Logger(observer=BOUNDS)
    _reason: Exception | None = None
    _paused = False
    _wire: Wire
    _pongsUnread = 0
    _timer: IDelayedCall | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """
        Begin to watch the peer.
        """
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        factory = self.factory
        factory.registerProtocol(self)
        self._wire = factory.newWire()
        self.heartbeat = Heartbeat(
            transport,
            self._sendPing,
            died=self._end,
            pong=factory.messages.pong,
            isBetween=self._isBetween,
            clock=factory.clock,
        )
        if self._wire.isBusy is not None:
            self.heartbeat.relay(self._sendPing, self._wire.isBusy, self._isPingWaiting)
        self._budget = PingBudget(self.heartbeat.pacemaker.seconds())
        self._peer = identify(self.transport)
        self._started()

    def _started(self) -> None:
        """
        Negotiate, and connect the application.
        """
        raise NotImplementedError

    def _connectApplication(self) -> None:
        self.wrappedProtocol = self.factory.wrappedFactory.buildProtocol(self.transport.getPeer())
        if self.wrappedProtocol is None:
            self.transport.abortConnection()
        else:
            self.wrappedProtocol.makeConnection(self)

    def _isBetween(self) -> bool:
        return self._wire.between

    def _isPingWaiting(self) -> bool:
        return self._wire.isWaiting(self.factory.messages.ping)

    def dataReceived(self, data: bytes) -> None:
        """
        Bytes came: pass on those that are the application's.
        """
        if self._reason is not None:
            return
        self.heartbeat.heard()
        try:
            for each in self._wire.feed(data):
                if isinstance(each, Control):
                    self._controlReceived(each)
                else:
                    self._applicationReceived(each)
                if self._reason is not None:
                    return
        except RemoteProtocolError as error:
            self._log.warn("dropped {peer}: it sent {error}", peer=self._peer, error=error)
            self._end(error)

    def _applicationReceived(self, data: bytes) -> None:
        self.wrappedProtocol.dataReceived(data)

    def _controlReceived(self, control: Control) -> None:
        """
        @raise RemoteProtocolError: when the peer may not send this.
        """
        if self.disconnecting:
            return
        if control.kind is Kind.PING:
            self._pingReceived()
        elif control.kind is Kind.PONG:
            self.heartbeat.answered()
        else:
            self._negotiated(control)

    def _negotiated(self, control: Control) -> None:
        """
        The peer said something about keepalive that is neither ping nor pong.
        """
        raise NotImplementedError

    def _pingReceived(self) -> None:
        if not self._budget.spend(self.heartbeat.pacemaker.seconds(), _LIMITS.pingBudget):
            raise PeerFlooded(f"more than {_LIMITS.pingBudget} pings in a second")
        self._pongsUnread = self._pongsUnread + 1 if unsent(self.transport) else 0
        if self._pongsUnread > _LIMITS.unreadPongs:
            raise PeerFlooded(f"pings, and has not read {_LIMITS.unreadPongs} answers")
        self._inject(self.factory.messages.pong)

    def _sendPing(self) -> None:
        self._inject(self.factory.messages.ping)

    def _inject(self, message: bytes) -> None:
        """
        Send a control message, after the end of the application's if one is under way.
        """
        now = self._wire.inject(message)
        if now:
            writeNow(self.transport, now)

    def _watch(self, keepAlive: KeepAlive, bears: float) -> None:
        """
        Ping the peer, at our interval or at the shortest that it bears, whichever is longer
        (RFC 5880, section 6.8.7).
        """
        if keepAlive.enabled and bears > keepAlive.interval:
            self._log.info(
                "pinging {peer} every {bears:g} s instead of {interval:g} s, as it asks",
                peer=self._peer,
                bears=bears,
                interval=keepAlive.interval,
            )
            keepAlive = KeepAlive(bears, keepAlive.count)
        self.heartbeat.start(keepAlive)

    def write(self, data: bytes) -> None:
        """
        Send the application's bytes.

        @raise LocalProtocolError: when they are no messages of the codec's kind.
        """
        self.transport.write(self._wire.wrap(data))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        The same for several pieces.
        """
        self.write(b"".join(data))

    def pauseProducing(self) -> None:
        """
        Stop reading.  The peer's silence does not count meanwhile.
        """
        if not self._paused:
            self._paused = True
            self.heartbeat.pause()
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Read on.
        """
        if self._paused:
            self._paused = False
            self.heartbeat.resume()
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """
        Close the connection.
        """
        self.loseConnection()  # type: ignore[no-untyped-call]

    def loseWriteConnection(self) -> None:
        """
        Send no more.  That includes pings, so the peer is not watched any longer.
        """
        self.heartbeat.stop()
        self.transport.loseWriteConnection()

    def _end(self, reason: Exception) -> None:
        """
        Close the connection at once, for a reason that the application will be told.
        """
        self._reason = reason
        self.heartbeat.stop()
        if isinstance(reason, KeepAliveTimeout):
            self._log.warn("{peer} is dead: {reason}", peer=self._peer, reason=reason)
        self.transport.abortConnection()

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is gone: tell the application why, if it was connected.
        """
        self._stopTimer()
        self.heartbeat.end()
        self.factory.unregisterProtocol(self)
        application, self.wrappedProtocol = self.wrappedProtocol, None
        if application is not None:
            application.connectionLost(reason if self._reason is None else Failure(self._reason))
