"""
The two ends of a watched connection, and the factories that build them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.protocols.policies import WrappingFactory

from kaproto.errors import ConnectionClosed
from kaproto.interfaces import IKeepAlivePolicy, Refused
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies.modes import refusalFor
from kaproto.watch.interfaces import Control, IControlMessages, Kind
from kaproto.watch.protocol import WatchedProtocol
from kaproto.watch.wires import Wire

__all__ = ["BEARS", "WAIT", "ClientFactory", "ClientProtocol", "ServerFactory", "ServerProtocol"]

if TYPE_CHECKING:
    _WrappingFactory = WrappingFactory[Any]
else:
    # It is generic only since Twisted 26.4.
    _WrappingFactory = WrappingFactory

WAIT: Final = 10.0
"""
Seconds that a client has to ask for keepalive, if the policy refuses clients that do not.
"""

BEARS: Final = 0.1
"""
The default for the shortest interval, in seconds, at which either side agrees to be pinged.
"""

_CLOSE_TIMEOUT: Final = 5.0
_REFUSAL: Final = "this server requires keepalive, which the client did not ask for"


class ServerProtocol(WatchedProtocol):
    """
    The server's end, which applies the policy.
    """

    factory: ServerFactory
    _decided = False
    _heardAsking = False

    def _started(self) -> None:
        factory = self.factory
        if not factory.messages.ask(0):
            # Every peer of this protocol answers pings.
            self._asked(0)
        elif isinstance(factory.policy.admit(self._peer), Refused):
            reason = f"it did not ask for keepalive within {factory.wait:g} s"
            self._timer = factory.clock.callLater(factory.wait, self._decide, b"", reason)
        else:
            self._connectApplication()

    def _negotiated(self, control: Control) -> None:
        if control.kind is Kind.ASK and not self._heardAsking:
            self._heardAsking = True
            self._asked(control.interval)

    def _asked(self, bears: float) -> None:
        factory, peer = self.factory, self._peer
        if factory.policy.advertises(peer) is not True:
            self._inject(factory.messages.decline())
            return
        peer.asked = self._answersPings = True
        if not self._decided:
            self._decide()
        if self._reason is not None:
            return
        if factory.messages.ask(0):
            self._inject(factory.messages.answer(factory.bears))
        keepAlive = factory.policy.keepAlive(peer)
        if keepAlive is not None:
            self._watch(keepAlive, bears)
        if self.wrappedProtocol is None:
            self._connectApplication()

    def _admit(self, data: bytes) -> None:
        if not self._decided:
            self._decide(data)
        if self._reason is None and self.wrappedProtocol is None:
            self._connectApplication()

    def _decide(self, first: bytes = b"", why: str | None = None) -> None:
        """
        Admit the client or refuse it.

        @param first: the first bytes from its application, if any.
        @param why: the reason to log, by default the policy's.
        """
        self._decided = True
        self._stopTimer()
        admission = self.factory.policy.admit(self._peer)
        if isinstance(admission, Refused):
            message = admission.message
            # The modes' refusals advise libvirt's clients, so they are replaced here.
            self._refuse(_REFUSAL if message == refusalFor(self._peer) else message, first, why)
        elif admission.warning is not None:
            self._log.info("{peer}: {text}", peer=self._peer, text=admission.warning)

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
        self.transport.write(self._refusal(message, first))
        self.transport.loseConnection()
        self._timer = factory.clock.callLater(_CLOSE_TIMEOUT, self.transport.abortConnection)

    def _refusal(self, message: str, first: bytes) -> bytes:
        return self.factory.messages.refusal(message, first)


class ClientProtocol(WatchedProtocol):
    """
    The client's end, which asks the server for keepalive.
    """

    factory: ClientFactory
    _heardAnswer = False

    def _started(self) -> None:
        factory = self.factory
        ask = factory.messages.ask(factory.bears)
        if ask:
            self.transport.write(ask)
        else:
            self._answersPings = True
            self._watch(factory.keepAlive, 0)
        self._connectApplication()

    def _negotiated(self, control: Control) -> None:
        if control.kind in (Kind.ANSWER, Kind.DECLINE) and not self._heardAnswer:
            self._heardAnswer = True
            self._answered(control)

    def _answered(self, control: Control) -> None:
        if control.kind is Kind.ANSWER:
            self._answersPings = True
            self._watch(self.factory.keepAlive, control.interval)
        else:
            self._log.info("{peer} does not support keepalive, and is not pinged", peer=self._peer)


class _WatchingFactory(_WrappingFactory):
    """
    Builds one end of each connection.

    @ivar messages: the control messages.
    @ivar newWire: makes the L{Wire} of a connection.
    @ivar bears: the shortest interval at which this side agrees to be pinged, in seconds.
    @ivar clock: schedules timeouts.
    @ivar limits: how many pings a peer may send.
    """

    noisy = False
    limits = Limits()

    def __init__(
        self,
        wrappedFactory: IProtocolFactory,
        messages: IControlMessages,
        newWire: Callable[[], Wire],
        bears: float,
        clock: IReactorTime | None,
    ) -> None:
        super().__init__(wrappedFactory)  # type: ignore[no-untyped-call]
        if clock is None:
            from twisted.internet import reactor

            clock = IReactorTime(reactor)
        self.messages = messages
        self.newWire = newWire
        self.bears = bears
        self.clock = monotonicClock(clock)

    def buildProtocol(self, addr: IAddress | None) -> WatchedProtocol:
        """
        @return: a wrapper, which builds the application's protocol when the negotiation allows it.
        """
        built: WatchedProtocol = self.protocol(self, None)
        return built


class ServerFactory(_WatchingFactory):
    """
    Builds the server's end of each connection.

    @ivar policy: decides about keepalive for each client.
    @ivar wait: seconds that a client has to ask, if the policy refuses clients that do not.
    """

    protocol: type[ServerProtocol] = ServerProtocol

    def __init__(
        self,
        wrappedFactory: IProtocolFactory,
        messages: IControlMessages,
        newWire: Callable[[], Wire],
        *,
        policy: IKeepAlivePolicy,
        wait: float,
        bears: float,
        clock: IReactorTime | None,
    ) -> None:
        super().__init__(wrappedFactory, messages, newWire, bears, clock)
        self.policy = policy
        self.wait = wait


class ClientFactory(_WatchingFactory):
    """
    Builds the client's end of each connection.

    @ivar keepAlive: interval and count for a server that answers pings.
    """

    protocol: type[ClientProtocol] = ClientProtocol

    def __init__(
        self,
        wrappedFactory: IProtocolFactory,
        messages: IControlMessages,
        newWire: Callable[[], Wire],
        *,
        keepAlive: KeepAlive,
        bears: float,
        clock: IReactorTime | None,
    ) -> None:
        super().__init__(wrappedFactory, messages, newWire, bears, clock)
        self.keepAlive = keepAlive
