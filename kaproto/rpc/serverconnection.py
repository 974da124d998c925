"""
The server's end of a connection, from accepting a client to its last byte.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    Disconnected,
    KeepAliveTimeout,
    RemoteError,
    RemoteProtocolError,
    ServerStopping,
    TooManyClients,
)
from kaproto.interfaces import (
    Admission,
    IKeepAlivePolicy,
    IProgram,
    IRelaySession,
    ISession,
    OpenRequest,
)
from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer
from kaproto.records.journal import Journal
from kaproto.rpc.clients import Clients
from kaproto.rpc.connection import Connection
from kaproto.rpc.dispatch import Calls
from kaproto.rpc.incoming import Gate
from kaproto.rpc.negotiation import Event, Phase, ServerNegotiation
from kaproto.rpc.reading import Pause
from kaproto.rpc.shared import Hooks, SharedByConnections
from kaproto.security.admission import AccessControl
from kaproto.security.loginqueue import ILoginQueue
from kaproto.security.proxy import terminatedTLSOf
from kaproto.security.serverauth import Authentication
from kaproto.security.tls import CONFIRMATION, TLSIdentity, TLSTransport, examine
from kaproto.transport import StreamTransport, identify, paceAccepts, tlsOf
from kaproto.wire.message import Message, MessageType, Status, packMessage, rpcError
from kaproto.wire.programs import PROGRAM_VERSION, REMOTE_PROGRAM, CloseReason, ErrorCode, Procedure
from kaproto.wire.xdr import Packer, Unpacker

__all__ = ["ServerConnection", "SharedByServer"]

_log = Logger(observer=BOUNDS)
_EVENT_SERIAL: Final = 1
_FAREWELL_SECONDS: Final = 0.1

_ENDS_DEADLINE: Final = frozenset({Phase.OPENING, Phase.OPEN})
_REPLY_MATTERS: Final = frozenset({Phase.OPENED, Phase.CLOSING, Phase.DRAINING, Phase.STOPPING})


def _logPolicyFailure(policy: str, question: str, peer: Peer, error: Exception) -> None:
    _log.failure(
        "policy {policy} failed in {question}() for {peer}, which counts as a client that did not "
        "ask for keepalive: {error}",
        Failure(error),
        policy=policy,
        question=question,
        peer=peer,
        error=error,
    )


class SharedByServer(SharedByConnections, Protocol):
    """
    What a L{ServerConnection} needs of its factory.

    @ivar policy: decides whether a client may open, and how it is pinged.
    @ivar programs: the programs that can be called, by number.
    @ivar accessControl: who may connect.
    @ivar clients: the connected clients.
    @ivar loginQueue: decides when a client's password may be checked.
    @ivar journal: counts and logs events.
    @ivar startsOpen: whether connections are open without C{CONNECT_OPEN}.
    """

    policy: IKeepAlivePolicy
    programs: dict[int, IProgram]
    accessControl: AccessControl
    clients: Clients[ServerConnection, Any]
    loginQueue: ILoginQueue
    journal: Journal
    startsOpen: bool


class ServerConnection(Connection):
    """
    A connection from a client.

    @ivar peer: what is known of the client.
    @ivar negotiation: the client's phase, and what it may do next.
    @ivar server: the factory.
    @ivar session: the backend's session, once the connection is open.
    @ivar authentication: the login, while the client has to log in.
    @ivar closeCallbackRegistered: whether the client wants to be told the reason when this end
        closes.
    @ivar accessControl: who may connect to this listener.
    @ivar listener: the administrator's name for the listener.
    """

    __slots__ = (
        "_calls",
        "_drainCheck",
        "accessControl",
        "authentication",
        "closeCallbackRegistered",
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
        self.negotiation = ServerNegotiation(self.peer, shared.policy, _logPolicyFailure)
        self.session: ISession | None = None
        self.authentication: Authentication | None = None
        self.closeCallbackRegistered = False
        self._calls = Calls(self, shared)
        self._drainCheck: IDelayedCall | None = None

    def start(self) -> None:
        """
        Register the client, and wait for its TLS handshake, its login or its first call.
        """
        server = self.server
        paceAccepts(self.transport, server.clock)
        server.journal.connected(self.peer)
        portal = self.accessControl.portal
        if portal is not None:
            self.authentication = Authentication(
                self, portal, lambda: server.limits, server.clock, server.loginQueue
            )
        handshaking = self.peer.transport == "tls"
        terminated = terminatedTLSOf(self.transport)
        if terminated is not None:
            self.peer.transport = "tls"
        displaced = server.clients.connected(
            self, self.hooks, server.limits, anonymous=handshaking or portal is not None
        )
        self.negotiation.full = not server.clients.hasPlace(self)
        if displaced is not None:
            displaced.abort(
                TooManyClients("too many clients: the oldest unopened connection was closed")
            )
        if not handshaking and terminated is None:
            self._accepted()
            return
        self.incoming.bypass = Gate(self._receivedUnchecked)
        self._entered()
        if terminated is not None:
            identity, self.peer.commonName = terminated
            self._identified(identity)

    def _receivedUnchecked(self, data: bytes) -> None:
        """
        Bytes arrived from a TLS client whose certificate has not been checked, because a protocol
        between TLS and this one does not report the end of the handshake.  Since these bytes are
        decrypted, the handshake has ended: check the certificate before looking at them.
        """
        self.handshakeCompleted()
        self.incoming.feed(data)

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake has completed: check the certificate, and tell the client that it is
        accepted.
        """
        if self.closing.reason is not None or self.negotiation.phase is not Phase.CONNECTED:
            return
        self._identified(examine(cast(TLSTransport, tlsOf(self.transport))))

    def _identified(self, identity: TLSIdentity) -> None:
        """
        The TLS handshake has completed, here or at a load balancer.
        """
        self.peer.tlsDN = identity.dn
        self.peer.tlsFingerprint = identity.fingerprint
        problem = self.accessControl.checkCertificate(identity)
        if problem is not None:
            self.server.journal.loginFailed(self.peer)
            self.disconnect(AuthenticationFailed(problem))
            return
        self.send(CONFIRMATION)
        self._accepted()

    def _accepted(self) -> None:
        """
        The client is accepted by its transport: look at messages from now on.
        """
        self.incoming.bypass = None
        negotiation = self.negotiation
        negotiation.accepted(self.server.limits, login=self.authentication is not None)
        self._entered()
        if negotiation.phase is not Phase.AUTHENTICATING:
            self.server.clients.known(self)
        if self.server.startsOpen and negotiation.phase is Phase.READY:
            self._openAtOnce()

    def _openAtOnce(self) -> None:
        answer = self.negotiation.openAtOnce()
        if isinstance(answer, RemoteError):
            self._refused(answer)
            return
        self._entered()
        self._admitted(answer)
        self._enteredOpen()
        self.opened()

    def _advance(self, event: Event) -> None:
        self.negotiation.advance(event)
        self._entered()

    def _entered(self) -> None:
        """
        Set the message limit and the deadline of the connection's phase.
        """
        negotiation, limits = self.negotiation, self.server.limits
        self.incoming.reader.limit = negotiation.messageLimit(limits)
        deadline = negotiation.deadline(limits)
        if deadline is not None:
            self.closing.setDeadline(*deadline)
        elif negotiation.phase in _ENDS_DEADLINE:
            self.closing.clearDeadline()

    def authenticated(self, user: str) -> None:
        """
        The client has logged in.
        """
        self.authentication = None
        self.peer.user = user
        self.server.clients.known(self)
        self._advance(Event.AUTHENTICATED)

    def hasAsked(self) -> bool:
        """
        @return: whether the client has asked for keepalive and the answer was 1.
        """
        return self.peer.asked

    def authenticationFailed(self) -> None:
        """
        The client has failed to log in.  It may have more tries.
        """
        self.server.journal.loginFailed(self.peer)

    def holdDeadline(self) -> float:
        """
        The client waits for its turn to log in: stop its deadline until then.

        @return: the seconds left.
        """
        left = self.closing.timeLeft
        if self.negotiation.phase is Phase.AUTHENTICATING:
            self.closing.clearDeadline()
        return left

    def resumeDeadline(self, left: float) -> None:
        """
        The client's turn to log in has come: start its deadline again.

        @param left: the seconds left.
        """
        deadline = self.negotiation.deadline(self.server.limits)
        if self.negotiation.phase is Phase.AUTHENTICATING and self.closing.reason is None:
            assert deadline is not None, "logging in has a deadline"
            self.closing.setDeadline(left, *deadline[1:])

    def endSoon(self, reason: Exception) -> None:
        """
        Close the connection after the reply to the current call.
        """
        if self.closing.reason is None:
            self.negotiation.end(reason)

    def messageReceived(self, message: Message) -> None:
        """
        A call arrived.  Messages of other types are ignored, as libvirtd does.
        """
        if message.type == MessageType.CALL_WITH_FDS:
            if Unpacker(message.payload).uint32():
                raise RemoteProtocolError("a call that comes with file descriptors")
            message = message._replace(type=MessageType.CALL, payload=message.payload[4:])
        elif message.type != MessageType.CALL:
            return
        try:
            self.negotiation.receive()
        except RemoteError as error:
            # A client that does not read gets no more answers to read.
            if not self.outgoing.congested:
                self._calls.fail(message, error)
            return
        self._calls.received(message)
        if self._calls.full and not self.reading.pauses & Pause.CALLS:
            self.pauseReading(Pause.CALLS)
            self._limitUnread()

    def callAnswered(self) -> None:
        """
        A reply was written: finish opening, close, or read more calls.
        """
        if self.closing.reason is not None:
            return
        if self.negotiation.phase in _REPLY_MATTERS and self._wasLastReply():
            return
        if self.reading.pauses and not self._calls.full:
            self.reading.resume(Pause.CALLS)

    def _wasLastReply(self) -> bool:
        """
        @return: whether the connection closes after the reply that was written.
        """
        negotiation = self.negotiation
        if negotiation.phase is Phase.OPENED:
            self._advance(Event.ANSWERED)
            assert self.session is not None, "the backend has opened"
            self.session.opened(self.hooks)
            self.opened()
        if negotiation.phase is Phase.CLOSING:
            self.disconnect(negotiation.farewell)
        elif negotiation.isStopping and self._isIdle:
            self.disconnect(ServerStopping())
        else:
            if negotiation.isStopping and self._source is not None:
                self._source.incoming.relayed = self.relayedCallAnswered
            return False
        return True

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

    def answerInjected(self) -> None:
        """
        A relay has answered a call itself.  If the client is behind with reading, stop reading
        its calls.
        """
        if self.outgoing.congested and not self.reading.pauses & Pause.CALLS:
            self.pauseReading(Pause.CALLS)
            self._limitUnread()

    def _limitUnread(self) -> None:
        # A client that is not open yet has a shorter deadline already.
        if self.outgoing.congested and self.reading.pauses & Pause.CALLS and not self._hasDeadline:
            self.closing.setDeadline(
                self.server.limits.unreadTimeout, "it did not read the replies to its calls"
            )

    @property
    def _hasDeadline(self) -> bool:
        return self.negotiation.deadline(self.server.limits) is not None

    def congestionBegan(self) -> None:
        """
        The client is behind with reading replies: let its calls wait.
        """
        self._calls.hold()
        self._limitUnread()

    def congestionEnded(self) -> None:
        """
        The client has caught up with reading: answer more of its calls.
        """
        if self.reading.pauses & Pause.CALLS and not self._hasDeadline:
            self.closing.clearDeadline()
        self._calls.proceed()
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
        self._entered()
        self._admitted(admission)
        return request

    def _refused(self, error: RemoteError) -> None:
        self.server.journal.refused(self.peer, self.negotiation.policyName, error.message)

    def _admitted(self, admission: Admission) -> None:
        if admission.warning is not None:
            self.server.journal.warned(self.peer, admission.warning)

    def sessionOpened(self, session: ISession) -> None:
        """
        The backend has opened.  The client may have gone meanwhile.
        """
        if self.closing.reason is not None:
            session.closed(self.closing.reason)
            return
        self.session = session
        self._advance(Event.OPENED)
        self._enteredOpen()

    def _enteredOpen(self) -> None:
        server = self.server
        server.clients.opened(self)
        server.journal.opened(self.peer, self.negotiation.policyName)
        self.watchByKernel(self.negotiation.keepAlive())

    def openFailed(self) -> None:
        """
        The backend could not open.  The client may try again.
        """
        if self.closing.reason is None:
            self._advance(Event.OPEN_FAILED)

    def closeRequested(self) -> None:
        """
        The client has called C{CONNECT_CLOSE}.
        """
        self.negotiation.end(
            ConnectionClosed("the client closed the connection", CloseReason.CLIENT)
        )

    def expel(self, reason: Disconnected) -> None:
        """
        Disconnect the client because an administrator says so: answer its calls with the reason,
        and close.
        """
        if self.closing.reason is not None:
            return
        error = rpcError(f"operation failed: {reason}", ErrorCode.OPERATION_FAILED)
        if IRelaySession.providedBy(self.session):
            self.session.failCalls(error)
        self._calls.failAll(error)
        self.sendCloseEvent(CloseReason.EOF)
        self.disconnect(reason)

    def drain(self) -> None:
        """
        The server stops: tell the client, finish the calls that were accepted, close.
        """
        if self.closing.reason is None and not self.negotiation.isStopping:
            self.negotiation.advance(Event.STOPPING)
            self.sendCloseEvent(CloseReason.EOF)
            self.callAnswered()

    @property
    def callsUnderWay(self) -> int:
        """
        How many of the client's calls are unanswered, as far as is known.
        """
        relayed = 0
        if IRelaySession.providedBy(self.session):
            relayed = self.session.callsUnderWay
        return self._calls.underWay + relayed

    @property
    def _isIdle(self) -> bool:
        return self._calls.idle and (self.session is None or self.session.idle)

    def sendEvent(
        self, program: int, procedure: int, payload: bytes, version: int = PROGRAM_VERSION
    ) -> None:
        """
        Send the client a message that answers no call.
        """
        message = Message(
            program,
            version,
            procedure,
            MessageType.MESSAGE,
            _EVENT_SERIAL,
            Status.OK,
            payload,
        )
        self.send(packMessage(message))

    def sendCloseEvent(self, reason: CloseReason) -> None:
        """
        Tell a client that registered a close callback why this end closes.  C{virsh} prints it.
        """
        if self.closeCallbackRegistered:
            self.sendEvent(
                REMOTE_PROGRAM,
                Procedure.CONNECT_EVENT_CONNECTION_CLOSED,
                Packer().int32(reason).packed(),
            )

    def peerDied(self, reason: KeepAliveTimeout) -> None:
        """
        The client is dead.  Tell it the reason in case it can still read, but do not wait for it.
        """
        if not self.closeCallbackRegistered or self.outgoing.congested:
            self.abort(reason)
            return
        self.sendCloseEvent(CloseReason.KEEPALIVE)
        self.closing.leave(reason, _FAREWELL_SECONDS)

    def explained(self, reason: Exception) -> Exception:
        """
        @return: why the client was rejected, if it left after that.
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
        authentication, self.authentication = self.authentication, None
        if authentication is not None:
            authentication.abandon()
        self.server.journal.ended(self.peer, reason)
        session, self.session = self.session, None
        try:
            if session is not None:
                session.closed(reason)
        finally:
            self.server.clients.gone(self)
