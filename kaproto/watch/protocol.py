"""
The wrapper between a transport and an application's protocol.  It removes control messages from the
received bytes, sends others between the application's messages, and passes on all other bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from twisted.internet.interfaces import IDelayedCall, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from kaproto.errors import ConnectionClosed, KeepAliveTimeout, RemoteProtocolError
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.liveness import KeepAlive
from kaproto.logbounds import BOUNDS
from kaproto.rpc.peerpings import PeerPings
from kaproto.transport import identify, unsent, writeNow
from kaproto.watch.interfaces import Control, Kind
from kaproto.watch.wires import Wire

__all__ = ["WatchedProtocol"]


class WatchedProtocol(ProtocolWrapper):
    """
    One end of a connection, and the transport of the application's protocol.

    @ivar heartbeat: watches the peer.  Applications can read C{heartbeat.latency} and
        C{heartbeat.keepAlive} of their C{transport}.
    """

    factory: Any
    transport: Any
    wrappedProtocol: Any
    heartbeat: Heartbeat
    _log = Logger(observer=BOUNDS)
    _reason: Exception | None = None
    _answersPings = False
    _paused = False
    _rest: Iterator[bytes | Control] | None = None
    _resuming: IDelayedCall | None = None
    _wire: Wire
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
        self._peerPings = PeerPings(factory)
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
            self._end(ConnectionClosed("the application refused the connection"))
        else:
            self.wrappedProtocol.makeConnection(self)

    def _isBetween(self) -> bool:
        return self._wire.between

    def _isPingWaiting(self) -> bool:
        return self._wire.isWaiting(self.factory.messages.ping)

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on the application's bytes.
        """
        if self._reason is None:
            self.heartbeat.heard()
            self._passOn(self._wire.feed(data))

    def _passOn(self, found: Iterator[bytes | Control]) -> None:
        """
        Handle control messages and pass on the application's bytes.  If the application pauses
        reading, it gets the rest when it resumes.
        """
        try:
            for each in found:
                if isinstance(each, Control):
                    self._controlReceived(each)
                else:
                    self._admit(each)
                    if self._paused:
                        found = chain((each,), found)
                    elif self._reason is None:
                        self.wrappedProtocol.dataReceived(each)
                if self._reason is not None:
                    return
                if self._paused:
                    self._rest = found
                    return
        except RemoteProtocolError as error:
            self._log.warn("dropped {peer}: it sent {error}", peer=self._peer, error=error)
            self._end(error)

    def _admit(self, data: bytes) -> None:
        """
        Called before each piece is passed on.  Before the first piece, connect the application or
        refuse the peer.
        """

    def _controlReceived(self, control: Control) -> None:
        """
        @raise RemoteProtocolError: when the peer may not send this message.
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
        Handle a control message that is neither a ping nor a pong.
        """
        raise NotImplementedError

    def _pingReceived(self) -> None:
        congested = unsent(self.transport)
        if not congested:
            self._peerPings.answersRead()
        self._peerPings.received(congested=congested)
        self._inject(self.factory.messages.pong)

    def _reassure(self) -> None:
        if not unsent(self.transport):
            self._inject(self.factory.messages.pong)

    def _sendPing(self) -> None:
        self._inject(self.factory.messages.ping)

    def _inject(self, message: bytes) -> None:
        """
        Send a control message, now or after the message that the application is writing.
        """
        now = self._wire.inject(message)
        if now:
            writeNow(self.transport, now)

    def _watch(self, keepAlive: KeepAlive, bears: float) -> None:
        """
        Start pinging the peer, at our interval or the shortest that it accepts, whichever is longer
        (RFC 5880, section 6.8.7).
        """
        if keepAlive.enabled and bears > keepAlive.interval:
            self._log.info(
                "pinging {peer} every {bears:g} s instead of {interval:g} s, as it requests",
                peer=self._peer,
                bears=bears,
                interval=keepAlive.interval,
            )
            keepAlive = KeepAlive(bears, keepAlive.count)
        self.heartbeat.start(keepAlive)

    def write(self, data: bytes) -> None:
        """
        Send the application's bytes.

        @raise LocalProtocolError: when they are not messages of the codec's protocol.
        """
        self.transport.write(self._wire.wrap(data))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Send several pieces.
        """
        self.write(b"".join(data))

    def pauseProducing(self) -> None:
        """
        Stop reading.  The peer is still pinged, because the kernel reports whether answers arrive.
        It gets unsolicited pongs, because its own pings are not read.
        """
        if self._paused:
            return
        self._paused = True
        if self._resuming is None:
            self.heartbeat.pause(pingOn=self._answersPings)
            self._peerPings.startReassuring(self._reassure, asked=self._answersPings)
            self.transport.pauseProducing()
        else:
            self._stopResuming()

    def resumeProducing(self) -> None:
        """
        Continue reading.  The bytes left from the last read are passed on first, in the next turn
        of the reactor.
        """
        if not self._paused:
            return
        self._paused = False
        if self._rest is None:
            self._readOn()
        else:
            self._resuming = self.factory.clock.callLater(0, self._resume)

    def _resume(self) -> None:
        rest, self._rest, self._resuming = self._rest, None, None
        self._readOn()
        if rest is not None and self._reason is None:
            self._passOn(rest)

    def _readOn(self) -> None:
        self._peerPings.stopReassuring()
        self.heartbeat.resume()
        self.transport.resumeProducing()

    def _stopResuming(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None

    def stopProducing(self) -> None:
        """
        Close the connection.
        """
        self.loseConnection()  # type: ignore[no-untyped-call]

    def loseWriteConnection(self) -> None:
        """
        Close the sending direction.  No pings can be sent then, so the peer is no longer watched.
        """
        self.heartbeat.stop()
        self.transport.loseWriteConnection()

    def _end(self, reason: Exception) -> None:
        """
        Close the connection at once.  The application gets the reason in C{connectionLost}.
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
        Tell the application, if it was connected, why the connection has ended.
        """
        self._stopTimer()
        self._stopResuming()
        self._peerPings.stopReassuring()
        self._rest = None
        self.heartbeat.end()
        self.factory.unregisterProtocol(self)
        application, self.wrappedProtocol = self.wrappedProtocol, None
        if application is not None:
            application.connectionLost(reason if self._reason is None else Failure(self._reason))
