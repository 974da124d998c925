"""
The client's end of a tunnel.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from kaproto.errors import KeepAliveUnsupported
from kaproto.keepalive.liveness import KeepAlive
from kaproto.watch.ends import BEARS, WAIT, ClientFactory, ClientProtocol
from kaproto.watch.interfaces import Control, Kind
from kaproto.watch.tunnel import TunnelProtocol
from kaproto.watch.tunnelmessages import TunnelMessages
from kaproto.watch.tunnelwire import TunnelWire

__all__ = ["tunnelClient"]


class _TunnelClientProtocol(TunnelProtocol, ClientProtocol):
    """
    Connects the application once the server has answered.

    @ivar ready: fires with the application's protocol; closes the connection if it is cancelled.
    """

    factory: _TunnelClientFactory
    ready: Deferred[IProtocol]

    def _started(self) -> None:
        factory = self.factory
        self.ready = Deferred(lambda _: self.transport.abortConnection())
        self.transport.write(factory.messages.ask(factory.bears))
        self._timer = factory.clock.callLater(factory.wait, self._end, _unsupported("it is silent"))

    def _answered(self, control: Control) -> None:
        self._stopTimer()
        if control.kind is Kind.ANSWER:
            super()._answered(control)
            self._connectApplication()
            if self.wrappedProtocol is None:
                self.ready.errback(NoProtocol())
            else:
                self.ready.callback(self.wrappedProtocol)
        else:
            self._end(KeepAliveUnsupported(f"the server refused the tunnel: {control.reason}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is gone, perhaps before the tunnel was open.
        """
        super().connectionLost(reason)
        if not self.ready.called:
            why = self._reason
            if not isinstance(why, KeepAliveUnsupported):
                why = _unsupported(str(why or "it closed the connection"))
            self.ready.errback(Failure(why))


def _unsupported(why: str) -> KeepAliveUnsupported:
    return KeepAliveUnsupported(f"the server does not speak keepalive: {why}")


class _TunnelClientFactory(ClientFactory):
    """
    @ivar wait: seconds that the server has to answer.
    """

    protocol = _TunnelClientProtocol
    wait: float


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

    @param factory: the application's factory.
    @param keepAlive: interval and count for watching the server.
    @param wait: seconds that the server has to answer.
    @param bears: the shortest interval, in seconds, at which this side agrees to be pinged.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory to connect with; its protocol's C{ready} fires with the application's
        protocol, or fails with L{KeepAliveUnsupported}.
    """
    made = _TunnelClientFactory(
        factory,
        TunnelMessages(),
        partial(TunnelWire, server=False),
        keepAlive=keepAlive,
        bears=bears,
        clock=clock,
    )
    made.wait = wait
    return made
