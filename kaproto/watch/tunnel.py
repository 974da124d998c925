"""
Keepalive below any protocol: a tunnel, of which both ends are ours and the application sees
nothing.

The tunnel is the transport of the application's protocol.  It closes as any other:
C{loseConnection} after what was written, C{abortConnection} at once, C{loseWriteConnection} in one
direction.
"""

from __future__ import annotations

from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from kaproto.errors import KeepAliveUnsupported
from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.liveness import KeepAlive
from kaproto.watch.ends import ClientFactory, ClientProtocol, ServerFactory, ServerProtocol
from kaproto.watch.interfaces import Control, IHeartbeatCodec, Kind
from kaproto.watch.protocol import WatchedProtocol
from kaproto.watch.tunnelwire import END, TunnelCodec, TunnelWire
from kaproto.watch.wires import Wire
from kaproto.watch.wrapper import BEARS, WAIT

__all__ = ["PLAIN_WAIT", "tunnelClient", "tunnelServer"]

PLAIN_WAIT: Final = 1.0
"""
Seconds after which a client that has said nothing is taken for one that knows no tunnel and waits
for the server to speak first.  Clients of a tunnel speak at once.
"""


class _TunnelProtocol(WatchedProtocol):
    """
    What both ends do.
    """

    _wire: TunnelWire
    _wroteEnd = False
    _readEnd = False

    def loseWriteConnection(self) -> None:
        """
        Send no more of the application's bytes.  Pings go on.
        """
        if self._wire.plain:
            super().loseWriteConnection()
        elif not self._wroteEnd:
            self._wroteEnd = True
            self.transport.write(END)
            self._closeIfBothEnded()

    def _streamEnded(self) -> None:
        """
        The peer's application sends no more.  As with TCP, an application that has no use for
        half a connection is disconnected.
        """
        self._readEnd = True
        application = self.wrappedProtocol
        if IHalfCloseableProtocol.providedBy(application):
            application.readConnectionLost()
            self._closeIfBothEnded()
        else:
            self.transport.loseConnection()

    def _closeIfBothEnded(self) -> None:
        if self._readEnd and self._wroteEnd:
            self.transport.loseConnection()


class _TunnelServerProtocol(ServerProtocol, _TunnelProtocol):
    """
    The server's end: finds out whether the client is of a tunnel.

    What the application writes before that is known is held back.
    """

    factory: _TunnelServerFactory
    _held: list[bytes] | None = None
    _producer: tuple[Any, bool] | None = None
    _closesLater = False

    def _started(self) -> None:
        self._held = []
        super()._started()
        wait = self.factory.plainWait
        if self.wrappedProtocol is not None and not self._decided and wait:
            self._timer = self.factory.clock.callLater(wait, self._becomePlain)

    def _becomePlain(self) -> None:
        said = self._wire.becomePlain()
        if said:
            self._applicationReceived(said)
        else:
            self._decide()
            self._release()

    def _negotiated(self, control: Control) -> None:
        if control.kind is Kind.END:
            self._streamEnded()
        else:
            self._stopTimer()
            super()._negotiated(control)
            self._release()

    def _applicationReceived(self, data: bytes) -> None:
        super()._applicationReceived(data)
        self._release()

    def _refusal(self, message: str, first: bytes) -> bytes:
        return super()._refusal(message, first) if self._peer.asked else b""

    def _release(self) -> None:
        """
        Send what was held back.
        """
        held, self._held = self._held, None
        if held is None or self._reason is not None:
            return
        if held:
            self.write(b"".join(held))
        if self._producer is not None:
            producer, streaming = self._producer
            self.transport.registerProducer(producer, streaming)
            if streaming:
                producer.resumeProducing()
        if self._closesLater:
            self.transport.loseConnection()

    def write(self, data: bytes) -> None:
        """
        Send the application's bytes.
        """
        if self._held is None:
            super().write(data)
        else:
            self._held.append(data)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Have a producer write as fast as the peer reads.
        """
        if self._held is None:
            self.transport.registerProducer(producer, streaming)
            return
        self._producer = (producer, streaming)
        if streaming:
            cast(Any, producer).pauseProducing()

    def unregisterProducer(self) -> None:
        """
        The producer has no more.
        """
        self._producer = None
        self.transport.unregisterProducer()

    def loseConnection(self) -> None:
        """
        Close after what was written.
        """
        self.disconnecting = 1
        if self._held is None:
            self.transport.loseConnection()
        else:
            self._closesLater = True


class _TunnelClientProtocol(ClientProtocol, _TunnelProtocol):
    """
    The client's end: connects the application once the server has answered.

    @ivar ready: fires with the application's protocol.
    """

    factory: _TunnelClientFactory
    ready: Deferred[IProtocol]

    def _started(self) -> None:
        factory = self.factory
        self.ready = Deferred()
        self.transport.write(factory.codec.ask(factory.bears))
        self._timer = factory.clock.callLater(factory.wait, self._end, _unsupported("it is silent"))

    def _negotiated(self, control: Control) -> None:
        if control.kind is Kind.END:
            self._streamEnded()
        elif control.kind is Kind.ANSWER:
            self._stopTimer()
            self._watch(self.factory.keepAlive, control.interval)
            self._connectApplication()
            self.ready.callback(self.wrappedProtocol)
        else:
            self._end(KeepAliveUnsupported(f"the server refused the tunnel: {control.reason}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is gone, perhaps before the tunnel was there.
        """
        super().connectionLost(reason)
        if not self.ready.called:
            why = self._reason
            if not isinstance(why, KeepAliveUnsupported):
                why = _unsupported(str(why or "it closed the connection"))
            self.ready.errback(Failure(why))


def _unsupported(why: str) -> KeepAliveUnsupported:
    return KeepAliveUnsupported(f"the server does not speak keepalive: {why}")


class _TunnelServerFactory(ServerFactory):
    """
    @ivar plainWait: seconds after which a silent client is taken for one that knows no tunnel, 0
        for any time.
    """

    protocol = _TunnelServerProtocol
    plainWait: float

    def newWire(self) -> Wire:
        """
        @return: for one connection.
        """
        return TunnelWire(server=True)


class _TunnelClientFactory(ClientFactory):
    """
    @ivar wait: seconds that the server has to answer.
    """

    protocol = _TunnelClientProtocol
    wait: float

    def newWire(self) -> Wire:
        """
        @return: for one connection.
        """
        return TunnelWire(server=False)


def tunnelServer(
    factory: IProtocolFactory,
    policy: IKeepAlivePolicy,
    *,
    wait: float = PLAIN_WAIT,
    bears: float = BEARS,
    clock: IReactorTime | None = None,
) -> ServerFactory:
    """
    Serve an application through a tunnel.

    @param factory: the application's.
    @param policy: how far keepalive goes with each client.  One that refuses clients which did not
        ask, as mode 2 does, refuses those that know no tunnel; otherwise they are served as if
        there were none.
    @param wait: seconds after which a silent client is taken for one that knows no tunnel; 0 for
        any time, which fits protocols whose client speaks first.
    @param bears: the shortest interval, in seconds, at which this side agrees to be pinged.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory to listen with.
    """
    made = _TunnelServerFactory(factory, cast(IHeartbeatCodec, TunnelCodec()), bears, clock)
    made.policy = policy
    made.wait = WAIT
    made.plainWait = wait
    return made


def tunnelClient(
    factory: IProtocolFactory,
    keepAlive: KeepAlive,
    *,
    wait: float = WAIT,
    bears: float = BEARS,
    clock: IReactorTime | None = None,
) -> ClientFactory:
    """
    Connect an application through a tunnel.

    @param factory: the application's.
    @param keepAlive: how closely to watch the server.
    @param wait: seconds that the server has to answer.
    @param bears: the shortest interval, in seconds, at which this side agrees to be pinged.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory to connect with; its protocol's C{ready} fires with the application's, or
        fails with L{KeepAliveUnsupported}.
    """
    made = _TunnelClientFactory(factory, cast(IHeartbeatCodec, TunnelCodec()), bears, clock)
    made.keepAlive = keepAlive
    made.wait = wait
    return made
