"""
Keepalive for a factory that knows nothing of it: L{watched} for servers, L{watchedClient} and
L{watchedEndpoint} for clients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.protocols.policies import WrappingFactory
from zope.interface import implementer

from kaproto.errors import ConnectionClosed
from kaproto.interfaces import IKeepAlivePolicy, Refused
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies.modes import MODES
from kaproto.watch.interfaces import Control, IHeartbeatCodec, Kind
from kaproto.watch.protocol import WatchedProtocol

__all__ = ["BEARS", "WAIT", "watched", "watchedClient", "watchedEndpoint"]

WAIT: Final = 10.0
"""
Seconds that a client has to ask for keepalive, where the policy refuses those that do not.
"""

BEARS: Final = 0.1
"""
The shortest interval, in seconds, at which either side agrees to be pinged, unless it names
another.
"""

_CLOSE_TIMEOUT: Final = 5.0


class _ServerProtocol(WatchedProtocol):
    """
    The server's end: asks the policy.
    """

    factory: _ServerFactory
    _decided = False

    def _started(self) -> None:
        factory = self.factory
        if not factory.codec.ask(0):
            # Every peer of this protocol answers pings.
            self._asked(0)
        elif isinstance(factory.policy.admit(self._peer), Refused):
            reason = f"it did not ask for keepalive within {factory.wait:g} s"
            self._timer = factory.clock.callLater(factory.wait, self._decide, b"", reason)
        else:
            self._connectApplication()

    def _negotiated(self, control: Control) -> None:
        if control.kind is Kind.ASK and not self._peer.asked:
            self._asked(control.interval)

    def _asked(self, bears: float) -> None:
        factory, peer = self.factory, self._peer
        if factory.policy.advertises(peer) is not True:
            self._inject(factory.codec.decline())
            return
        peer.asked = True
        if factory.codec.ask(0):
            self._inject(factory.codec.answer(factory.bears))
        keepAlive = factory.policy.keepAlive(peer)
        if keepAlive is not None:
            self._watch(keepAlive, bears)
        if self.wrappedProtocol is None:
            self._decide()

    def _applicationReceived(self, data: bytes) -> None:
        if not self._decided:
            self._decide(data)
        if self._reason is None:
            super()._applicationReceived(data)

    def _decide(self, first: bytes = b"", why: str | None = None) -> None:
        """
        Admit the client or refuse it.

        @param first: the first that came from its application.
        """
        self._decided = True
        self._stopTimer()
        policy = self.factory.policy
        admission = policy.admit(self._peer)
        if isinstance(admission, Refused):
            self._refuse(admission.message, first, why)
            return
        if admission.warning is not None:
            self._log.info("{peer}: {text}", peer=self._peer, text=admission.warning)
        if self.wrappedProtocol is None:
            self._connectApplication()

    def _refuse(self, message: str, first: bytes, why: str | None) -> None:
        factory = self.factory
        self._log.warn(
            "refused {peer} by policy {policy}: {why}",
            peer=self._peer,
            policy=factory.policy.name,
            why=why or message,
        )
        self._reason = ConnectionClosed(message)
        self.heartbeat.stop()
        self.transport.write(factory.codec.refusal(message, first))
        self.transport.loseConnection()
        self._timer = factory.clock.callLater(_CLOSE_TIMEOUT, self.transport.abortConnection)


class _ClientProtocol(WatchedProtocol):
    """
    The client's end: asks the server.
    """

    factory: _ClientFactory

    def _started(self) -> None:
        factory = self.factory
        ask = factory.codec.ask(factory.bears)
        if ask:
            self.transport.write(ask)
        else:
            self._watch(factory.keepAlive, 0)
        self._connectApplication()

    def _negotiated(self, control: Control) -> None:
        if control.kind is Kind.ANSWER:
            self._watch(self.factory.keepAlive, control.interval)
        elif control.kind is Kind.DECLINE:
            self._log.info("{peer} knows no keepalive, and is not pinged", peer=self._peer)


class _Factory(WrappingFactory[Any]):
    """
    What both ends' factories have.

    @ivar codec: how keepalive is said.
    @ivar bears: the shortest interval at which this side agrees to be pinged, in seconds.
    @ivar clock: where timeouts are scheduled.
    """

    noisy = False

    def __init__(
        self,
        wrappedFactory: IProtocolFactory,
        codec: IHeartbeatCodec,
        bears: float,
        clock: IReactorTime | None,
    ) -> None:
        super().__init__(wrappedFactory)  # type: ignore[no-untyped-call]
        if clock is None:
            from twisted.internet import reactor

            clock = IReactorTime(reactor)
        self.codec = codec
        self.bears = bears
        self.clock = monotonicClock(clock)

    def buildProtocol(self, addr: IAddress | None) -> WatchedProtocol:
        """
        @return: a protocol that builds the application's when that is to be connected.
        """
        built: WatchedProtocol = self.protocol(self, None)
        return built


class _ServerFactory(_Factory):
    """
    @ivar policy: how far keepalive goes with each client.
    @ivar wait: seconds that a client has to ask, where those that do not are refused.
    """

    protocol = _ServerProtocol
    policy: IKeepAlivePolicy
    wait: float


class _ClientFactory(_Factory):
    """
    @ivar keepAlive: how closely to watch a server that answers pings.
    """

    protocol = _ClientProtocol
    keepAlive: KeepAlive


def watched(
    factory: IProtocolFactory,
    policy: IKeepAlivePolicy | int,
    codec: IHeartbeatCodec,
    *,
    wait: float = WAIT,
    bears: float = BEARS,
    clock: IReactorTime | None = None,
) -> WrappingFactory[Any]:
    """
    Have a server watch the clients of a factory.

    @param factory: the application's.
    @param policy: how far keepalive goes with each client, such as
        L{kaproto.policies.Mandatory}, or a mode: 0, 1 or 2.
    @param codec: how keepalive is said in the application's protocol.
    @param wait: seconds that a client has to ask for keepalive, where the policy refuses those
        that do not.
    @param bears: the shortest interval, in seconds, at which this side agrees to be pinged.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory to listen with.
    """
    made = _ServerFactory(factory, codec, bears, clock)
    made.policy = MODES[policy] if isinstance(policy, int) else policy
    made.wait = wait
    return made


def watchedClient(
    factory: IProtocolFactory,
    keepAlive: KeepAlive,
    codec: IHeartbeatCodec,
    *,
    bears: float = BEARS,
    clock: IReactorTime | None = None,
) -> WrappingFactory[Any]:
    """
    Have a client ask for keepalive, and watch a server that answers pings.

    @param factory: the application's.
    @param keepAlive: how closely to watch the server; with a zero in it, the client only answers
        the server's pings.
    @param codec: how keepalive is said in the application's protocol.
    @param bears: the shortest interval, in seconds, at which this side agrees to be pinged.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory to connect with; L{watchedEndpoint} is for endpoints.
    """
    made = _ClientFactory(factory, codec, bears, clock)
    made.keepAlive = keepAlive
    return made


@implementer(IStreamClientEndpoint)
class _WatchedEndpoint:
    def __init__(
        self, wrapped: IStreamClientEndpoint, wrap: Callable[[IProtocolFactory], IProtocolFactory]
    ) -> None:
        self._wrapped = wrapped
        self._wrap = wrap

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @return: fires with the application's protocol.
        """
        connecting: Deferred[Any] = self._wrapped.connect(self._wrap(factory))
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


def watchedEndpoint(
    endpoint: IStreamClientEndpoint,
    keepAlive: KeepAlive,
    codec: IHeartbeatCodec,
    *,
    bears: float = BEARS,
    clock: IReactorTime | None = None,
) -> IStreamClientEndpoint:
    """
    L{watchedClient} for endpoints.

    @param endpoint: where to connect to.
    @return: an endpoint whose C{connect} gives the application's protocol, as ever.
    """
    return _WatchedEndpoint(
        endpoint, partial(watchedClient, keepAlive=keepAlive, codec=codec, bears=bears, clock=clock)
    )
