"""
The server's end of a connection, from accepting a client to its last byte.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IDelayedCall

from kaproto.errors import (
    ConnectionClosed,
    Disconnected,
    KeepAliveTimeout,
    RemoteError,
    RemoteProtocolError,
    ServerStopping,
    TooManyClients,
)
from kaproto.interfaces import (
    IRelaySession,
    ISession,
    OpenRequest,
)
from kaproto.rpc.backpressure import Backpressure
from kaproto.rpc.connection import Connection
from kaproto.rpc.dispatch import Calls
from kaproto.rpc.entrance import Entrance
from kaproto.rpc.events import Events
from kaproto.rpc.negotiation import Event, Phase, ServerNegotiation
from kaproto.rpc.phaselimits import PhaseLimits
from kaproto.rpc.shared import Hooks, SharedByServer
from kaproto.security.admission import AccessControl
from kaproto.security.serverauth import Authentication
from kaproto.transport import StreamTransport, identify, paceAccepts
from kaproto.wire.message import Message, MessageType, rpcError
from kaproto.wire.programs import CloseReason, ErrorCode
from kaproto.wire.xdr import Unpacker

__all__ = ["ServerConnection"]

_FAREWELL_SECONDS: Final = 0.1

# A member of an enumeration takes longer to look up than a global name.
_CALL: Final = MessageType.CALL
_REPLY_MATTERS: Final = frozenset({Phase.OPENED, Phase.CLOSING, Phase.DRAINING, Phase.STOPPING})


class ServerConnection(Connection):
    """
    A connection from a client.

    @ivar peer: the client's identity and state.
    @ivar negotiation: the client's phase, and the rules for its next step.
    @ivar server: the factory.
    @ivar session: the backend's session, once the connection is open.
    @ivar limits: the limits of its phase.
    @ivar events: sends the client messages other than replies.
    @ivar accessControl: who may connect to this listener.
    @ivar listener: the administrator's name for the listener.
    """

    __slots__ = (
        "_backpressure",
        "_calls",
        "_drainCheck",
        "_entrance",
        "accessControl",
        "events",
        "limits",
        "listener",
        "negotiation",
        "peer",
        "server",
        "session",
    )

    def __init__(
        self,
        transport: StreamTransport,
        hooks: Hooks,
        shared: SharedByServer,
        accessControl: AccessControl | None = None,
        listener: str = "",
    ) -> None:
        """
        @param accessControl: by default the factory's.
        """
        super().__init__(transport, hooks, shared)
        self.server = shared
        self.accessControl = accessControl or shared.accessControl
        self.listener = listener
        self.peer = identify(transport)
        self.peer.readOnly = self.accessControl.readOnly
        self.negotiation = ServerNegotiation(self.peer, shared.policyCheck)
        self.session: ISession | None = None
        self._entrance: Entrance | None = None
        self.events = Events(self.outgoing)
        self._calls = Calls(self, shared)
        self.limits = PhaseLimits(self.negotiation, self.incoming.reader, self.closing, shared)
        self._backpressure: Backpressure | None = None
        self._drainCheck: IDelayedCall | None = None

    def start(self) -> None:
        """
        Register the client, and wait for its TLS handshake, its login or its first call.
        """
        server = self.server
        paceAccepts(self.transport, server.clock)
        server.journal.connected(self.peer)
        self._entrance = entrance = Entrance(self)
        displaced = server.clients.connected(
            self, self.hooks, server.limits, anonymous=entrance.isAnonymous
        )
        self.negotiation.full = not server.clients.hasPlace(self)
        if displaced is not None:
            displaced.abort(
                TooManyClients("too many clients: the oldest unopened connection was closed")
            )
        entrance.begin()

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake has completed.
        """
        if self._entrance is not None:
            self._entrance.handshakeCompleted()

    @property
    def backpressure(self) -> Backpressure:
        """
        Holds back the client's calls.
        """
        if self._backpressure is None:
            self._backpressure = Backpressure(
                self._calls, self.reading, self.outgoing, self.limits, self.peer
            )
        return self._backpressure

    @property
    def authentication(self) -> Authentication | None:
        """
        The client's login, while it has to log in.
        """
        return None if self._entrance is None else self._entrance.authentication

    def letIn(self) -> None:
        """
        The client is accepted, and has logged in if it has to.
        """
        self._entrance = None
        self.server.clients.known(self)
        if self.server.startsOpen and self.negotiation.phase is Phase.READY:
            self._openAtOnce()

    def _openAtOnce(self) -> None:
        answer = self.negotiation.openAtOnce()
        if isinstance(answer, RemoteError):
            self._refused(answer)
            return
        self.limits.entered()
        if answer.warning is not None:
            self.server.journal.warned(self.peer, answer.warning)
        self._enteredOpen()
        self.opened()

    def hasAsked(self) -> bool:
        """
        @return: whether the client has asked for keepalive and the answer was 1.
        """
        return self.peer.asked

    def messageReceived(self, message: Message) -> None:
        """
        A call arrived.  Messages of other types are ignored, as libvirtd does.
        """
        if message.type != _CALL:
            if message.type != MessageType.CALL_WITH_FDS:
                return
            if Unpacker(message.payload).uint32():
                raise RemoteProtocolError("a call with file descriptors")
            message = message._replace(type=_CALL, payload=message.payload[4:])
        try:
            self.negotiation.receive()
        except RemoteError as error:
            # Do not answer a client that does not read.
            if not self.outgoing.congested:
                self._calls.fail(message, error)
            return
        if self._calls.received(message):
            self.backpressure.pause()

    def callAnswered(self) -> None:
        """
        A reply was written: finish opening, close, or read more calls.
        """
        if self.closing.reason is not None:
            return
        if self.negotiation.phase in _REPLY_MATTERS and self._wasLastReply():
            return
        if self.reading.pauses:
            self.backpressure.resume()

    def _wasLastReply(self) -> bool:
        """
        @return: whether the connection closes after the reply that was written.
        """
        negotiation = self.negotiation
        if negotiation.phase is Phase.OPENED:
            self.limits.advance(Event.ANSWERED)
            assert self.session is not None, "the backend has opened"
            self.session.opened(self.hooks)
            self.opened()
        if negotiation.phase is Phase.CLOSING:
            self.disconnect(negotiation.farewell)
            return True
        if not negotiation.isStopping:
            return False
        if self._isIdle:
            self.disconnect(ServerStopping())
            return True
        if self._source is not None:
            self._source.incoming.relayed = self.relayedCallAnswered
        return False

    def relayedCallAnswered(self) -> None:
        """
        A reply may have been relayed.  If the server is stopping, check afterwards whether it was
        the last.
        """
        if self.negotiation.phase is Phase.DRAINING and self._drainCheck is None:
            self._drainCheck = self.server.clock.callLater(0, self._replyRelayed)

    def _replyRelayed(self) -> None:
        self._drainCheck = None
        self.callAnswered()

    def congestionBegan(self) -> None:
        """
        The client is behind with reading replies.
        """
        self.backpressure.congestionBegan()

    def congestionEnded(self) -> None:
        """
        The client has caught up with reading.
        """
        self.backpressure.congestionEnded()
        self.callAnswered()

    def keepAliveRequested(self) -> None:
        """
        The client has asked for keepalive: ping it, if the policy says so.
        """
        keepAlive = self.negotiation.terms
        if keepAlive is not None and not self.heartbeat.liveness.interval:
            self.startKeepAlive(keepAlive)
        self.server.clients.changed(self)

    def openRequested(self, payload: bytes) -> OpenRequest:
        """
        The client has called C{CONNECT_OPEN}.

        @raise RemoteError: when the policy refuses the client, or this is the wrong time to open.
        """
        try:
            request, admission = self.negotiation.open(payload, self.closing.timeLeft)
        except RemoteError as error:
            if self.negotiation.phase is Phase.CLOSING:
                self._refused(error)
            raise
        self.limits.entered()
        if admission.warning is not None:
            self.server.journal.warned(self.peer, admission.warning)
        return request

    def _refused(self, error: RemoteError) -> None:
        self.server.journal.refused(self.peer, self.negotiation.policy.name, error.message)

    def sessionOpened(self, session: ISession) -> None:
        """
        The backend has opened.  The client may have gone meanwhile.
        """
        if self.closing.reason is not None:
            session.closed(self.closing.reason)
            return
        self.session = session
        # The limits remain those of opening until the reply has been sent.
        self.negotiation.advance(Event.OPENED)
        self._enteredOpen()

    def _enteredOpen(self) -> None:
        server = self.server
        server.clients.opened(self)
        server.journal.opened(self.peer, self.negotiation.policy.name)
        self.watchByKernel(self.negotiation.terms or self.negotiation.keepAlive())

    def openFailed(self) -> None:
        """
        The backend could not open.  The client may try again.
        """
        if self.closing.reason is None:
            self.limits.advance(Event.OPEN_FAILED)

    def closeRequested(self) -> None:
        """
        The client has called C{CONNECT_CLOSE}.
        """
        self.negotiation.end(
            ConnectionClosed("the client closed the connection", CloseReason.CLIENT)
        )

    def expel(self, reason: Disconnected | ServerStopping) -> None:
        """
        Disconnect the client although it may be in a call: answer its calls with the reason, and
        close.
        """
        if self.closing.reason is not None:
            return
        error = rpcError(f"operation failed: {reason}", ErrorCode.OPERATION_FAILED)
        if IRelaySession.providedBy(self.session):
            self.session.failCalls(error)
        self._calls.failAll(error)
        if not self.negotiation.isStopping:
            self.events.closing(CloseReason.EOF)
        self.disconnect(reason)

    def drain(self) -> None:
        """
        The server stops: tell the client, finish the calls that were accepted, close.
        """
        if self.closing.reason is None and not self.negotiation.isStopping:
            self.negotiation.advance(Event.STOPPING)
            self.events.closing(CloseReason.EOF)
            self.callAnswered()

    @property
    def callsUnderWay(self) -> int:
        """
        The number of the client's unanswered calls, as far as they are tracked.
        """
        relayed = 0
        if IRelaySession.providedBy(self.session):
            relayed = self.session.callsUnderWay
        return self._calls.underWay + relayed

    @property
    def _isIdle(self) -> bool:
        return self._calls.idle and (self.session is None or self.session.idle)

    def peerDied(self, reason: KeepAliveTimeout) -> None:
        """
        The client is dead.  Tell it the reason in case it can still read, but do not wait for it.
        """
        if not self.events.closeCallbackRegistered or self.outgoing.congested:
            self.abort(reason)
            return
        self.events.closing(CloseReason.KEEPALIVE)
        self.closing.leave(reason, _FAREWELL_SECONDS)

    def explained(self, reason: Exception) -> Exception:
        """
        @return: why the client was rejected, if it left after a rejection; else the given reason.
        """
        if self.negotiation.phase is Phase.REJECTING and isinstance(reason, ConnectionClosed):
            return self.negotiation.farewell
        return reason

    def stopped(self) -> None:
        """
        The connection begins to close: start no more calls.
        """
        self._calls.hold()

    def ended(self, reason: Exception) -> None:
        """
        The connection has ended: release everything, and record the end.
        """
        if self._drainCheck is not None:
            self._drainCheck.cancel()
            self._drainCheck = None
        self._calls.clear()
        entrance, self._entrance = self._entrance, None
        if entrance is not None:
            entrance.abandon()
        self.server.journal.ended(self.peer, reason)
        session, self.session = self.session, None
        try:
            if session is not None:
                session.closed(reason)
        finally:
            self.server.clients.gone(self)
