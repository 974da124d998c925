"""
The server's end of a connection: a Protocol and a Factory to subclass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    KeepAliveTimeout,
    RemoteError,
    RemoteProtocolError,
    ServerStopping,
    TooManyClients,
)
from kaproto.interfaces import IBackend, IKeepAlivePolicy, IProgram, ISession, OpenRequest
from kaproto.keepalive.pacemaker import MAX_CLOSES_PER_TURN
from kaproto.limits import Limits
from kaproto.policies import Disable
from kaproto.program import ApplicationBackend
from kaproto.records.journal import Journal
from kaproto.rpc.connection import CALLS
from kaproto.rpc.dispatch import Calls
from kaproto.rpc.negotiation import Event, Phase, ServerNegotiation
from kaproto.rpc.protocol import KeepAliveFactory, KeepAliveProtocol
from kaproto.rpc.remote import RemoteProgram
from kaproto.security.admission import AccessControl, Authentication, PendingClients
from kaproto.security.handshake import ICertificateChecker
from kaproto.security.tls import CONFIRMATION, TLSTransport, examine
from kaproto.transport import identify, paceAccepts, tlsOf
from kaproto.wire.message import Message, MessageType, Status, packMessage, rpcError
from kaproto.wire.programs import (
    PROGRAM_VERSION,
    REMOTE_PROGRAM,
    CloseReason,
    ErrorCode,
    Procedure,
)
from kaproto.wire.xdr import Packer, Unpacker

__all__ = ["KeepAliveServerFactory", "KeepAliveServerProtocol"]

_EVENT_SERIAL: Final = 1
_FAREWELL_SECONDS: Final = 0.1


@implementer(IHandshakeListener, ICertificateChecker)
class KeepAliveServerProtocol(KeepAliveProtocol):
    """
    A connection from a client.

    @ivar peer: what is known of the client.
    @ivar negotiation: how far it has come.
    @ivar session: what the backend opened for it, once it is open.
    @ivar closeCallbackRegistered: whether it wants to be told why, when this end closes.
    @ivar authentication: its login, while it has that before it.
    @ivar draining: whether it is to be closed as soon as nothing is left to be done for it.
    """

    factory: KeepAliveServerFactory
    session: ISession | None = None
    closeCallbackRegistered = False
    authentication: Authentication | None = None
    _openAnswered = False
    draining = False
    _overLimit = False
    _afterReply: IDelayedCall | None = None
    _farewell: Exception
    _handshaking = False

    def connectionMade(self) -> None:
        """
        Give the client its time to authenticate and open.
        """
        factory = self.factory
        factory.connections.add(self)
        paceAccepts(self.transport, factory.clock)
        self.peer = identify(self.transport)
        factory.journal.connected(self.peer)
        portal = factory.accessControl.portal
        self.negotiation = ServerNegotiation(
            self.peer, factory.policy, authenticate=portal is not None
        )
        self._calls = Calls(self, factory)
        self._limitMessages()
        self._handshaking = handshaking = self.peer.transport == "tls"
        if portal is not None:
            self.authentication = Authentication(
                self, portal, lambda: factory.limits, factory.clock
            )
        if factory.makeRoom(self, unknown=handshaking or portal is not None):
            self._overLimit = True
        if handshaking:
            timeout = factory.limits.loginTimeout
            self.setDeadline(timeout, "it did not complete the TLS handshake")
            self.dataReceived = self._receivedUnchecked  # type: ignore[method-assign]
        else:
            self._accepted()

    def _receivedUnchecked(self, data: bytes) -> None:
        """
        Bytes arrived from a TLS client whose certificate has not been checked, because a protocol
        between TLS and this one does not report the end of the handshake.  It has ended, since
        these bytes are decrypted: check the certificate before looking at them.
        """
        self.handshakeCompleted()
        if self._reason is None:
            self.dataReceived(data)

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake has completed: check the certificate, and tell the client that it is
        accepted.
        """
        if self._reason is not None or not self._handshaking:
            return
        self._handshaking = False
        del self.dataReceived
        identity = examine(cast(TLSTransport, tlsOf(self.transport)))
        self.peer.tlsDN = identity.dn
        self.peer.tlsFingerprint = identity.fingerprint
        problem = self.factory.accessControl.checkCertificate(identity)
        if problem is not None:
            self.factory.journal.loginFailed(self.peer)
            self.disconnect(AuthenticationFailed(problem))
            return
        self.send(CONFIRMATION)
        self._accepted()

    def _accepted(self) -> None:
        """
        The transport is as it should be; what is left to be shown is shown in messages.
        """
        if self.authentication is not None:
            self.setDeadline(self.factory.limits.loginTimeout, "it did not log in")
        else:
            self.factory.pending.known(self)
            self._setOpenDeadline()
            if self.factory.startsOpen:
                self._openAtOnce()

    def _openAtOnce(self) -> None:
        refusal = self.negotiation.openAtOnce()
        if refusal is not None:
            self.factory.journal.refused(self.peer, self.factory.policy.name, refusal.message)
            self._farewell = refusal
            return
        self.clearDeadline()
        self._limitMessages()
        self.factory.pending.opened(self)
        self.factory.journal.opened(self.peer)

    def authenticated(self, user: str) -> None:
        """
        The client has logged in.
        """
        self.authentication = None
        self.peer.user = user
        self._advance(Event.AUTHENTICATED)
        self.factory.pending.known(self)
        self._setOpenDeadline()

    def authenticationFailed(self) -> None:
        """
        The client has failed to log in, and may have more tries.
        """
        self.factory.journal.loginFailed(self.peer)

    def endSoon(self, reason: Exception) -> None:
        """
        Close the connection when the call that is being answered has been.
        """
        if self._reason is None and self.negotiation.phase is not Phase.CLOSING:
            self._advance(Event.ENDING)
            self._farewell = reason

    def _setOpenDeadline(self) -> None:
        self.setDeadline(self.factory.limits.openTimeout, "it did not open the connection")

    def _advance(self, event: Event) -> None:
        self.negotiation.advance(event)
        self._limitMessages()

    def _limitMessages(self) -> None:
        self._reader.limit = self.negotiation.messageLimit(self.factory.limits)

    def sendEvent(
        self, program: int, procedure: int, payload: bytes, version: int = PROGRAM_VERSION
    ) -> None:
        """
        Send the client a message that answers no call.

        @param program: the number of the program.
        @param procedure: the number of the procedure.
        @param payload: what it carries, in XDR.
        @param version: the version of the program.
        """
        self.send(
            packMessage(
                Message(
                    program,
                    version,
                    procedure,
                    MessageType.MESSAGE,
                    _EVENT_SERIAL,
                    Status.OK,
                    payload,
                )
            )
        )

    def messageReceived(self, message: Message) -> None:
        """
        A call came, or something that is of no use and is passed over, as libvirtd does.
        """
        if message.type == MessageType.CALL_WITH_FDS:
            if Unpacker(message.payload).uint32():
                raise RemoteProtocolError("a call that comes with file descriptors")
            message = message._replace(type=MessageType.CALL, payload=message.payload[4:])
        elif message.type != MessageType.CALL:
            return
        if self.draining:
            if not self.congested:
                error = "internal error: the server is shutting down"
                self._calls.fail(message, rpcError(error, ErrorCode.INTERNAL_ERROR))
            return
        if self._overLimit:
            self._rejectExcess(message)
            return
        self._calls.received(message)
        if self._calls.full and not self.isPausedFor(CALLS):
            self.pauseReading(CALLS)
            self._limitUnread()

    def _rejectExcess(self, message: Message) -> None:
        limit = self.factory.limits.maxClients
        error = f"operation failed: the server has its {limit} clients (--max-clients); try later"
        self.endSoon(AuthenticationFailed(f"one more than {limit} clients (--max-clients)"))
        self._calls.fail(message, rpcError(error, ErrorCode.OPERATION_FAILED))

    def callAnswered(self) -> None:
        """
        A reply was written: see what it makes possible.
        """
        if self._reason is not None:
            return
        if self.session is not None and not self._openAnswered:
            self._openAnswered = True
            self.session.opened(self)
        if self.negotiation.phase is Phase.CLOSING:
            self.disconnect(self._farewell)
        elif self.draining and self._idle:
            self.disconnect(ServerStopping())
        elif not self._calls.full:
            self.resumeReading(CALLS)

    def relayedCallAnswered(self) -> None:
        """
        A reply is about to be relayed to a client that is L{draining}; see afterwards what that
        makes possible.
        """
        if self._afterReply is None:
            self._afterReply = self.factory.clock.callLater(0, self._replyRelayed)

    def _replyRelayed(self) -> None:
        self._afterReply = None
        self.callAnswered()

    def _limitUnread(self) -> None:
        # A client that has yet to open has less time for that, whatever it reads.
        if self.congested and self.isPausedFor(CALLS) and not self._hasYetToOpen:
            timeout = self.factory.limits.unreadTimeout
            self.setDeadline(timeout, "it did not read the replies to its calls")

    @property
    def _hasYetToOpen(self) -> bool:
        return self.negotiation.phase in (Phase.AUTHENTICATING, Phase.READY)

    def pauseProducing(self) -> None:
        """
        The client does not read as fast as it calls: let its calls wait.
        """
        super().pauseProducing()
        self._calls.hold()
        self._limitUnread()

    def resumeProducing(self) -> None:
        """
        The client has read what was written: answer more of its calls.
        """
        super().resumeProducing()
        if self.isPausedFor(CALLS) and not self._hasYetToOpen:
            self.clearDeadline()
        self._calls.proceed()
        self.callAnswered()

    def keepAliveRequested(self) -> None:
        """
        The client answers pings: ping it, if the policy says so.
        """
        keepAlive = self.factory.policy.keepAlive(self.peer)
        if keepAlive is not None and not self.keepAlive.enabled:
            self.startKeepAlive(keepAlive)

    def openRequested(self, payload: bytes) -> OpenRequest:
        """
        The client wants to open.

        @raise RemoteError: when the policy refuses it, or it asks at the wrong time.
        """
        try:
            request, admission = self.negotiation.open(payload)
        except RemoteError as error:
            if self.negotiation.phase is Phase.CLOSING:
                self.factory.journal.refused(self.peer, self.factory.policy.name, error.message)
                self._farewell = error
            raise
        self._limitMessages()
        if admission.warning is not None:
            self.factory.journal.warned(self.peer, admission.warning)
        self.clearDeadline()
        return request

    def opened(self, session: ISession) -> None:
        """
        The backend has opened; the client may have gone meanwhile.
        """
        if self._reason is not None:
            session.closed(self._reason)
            return
        self.session = session
        self._advance(Event.OPENED)
        self.factory.pending.opened(self)
        self.factory.journal.opened(self.peer)

    def openFailed(self) -> None:
        """
        The backend could not open, and the client may try again.
        """
        if self._reason is None:
            self._advance(Event.OPEN_FAILED)
            self._setOpenDeadline()

    def closeRequested(self) -> None:
        """
        The client wants to close.
        """
        self._advance(Event.ENDING)
        self._farewell = ConnectionClosed("the client closed the connection", CloseReason.CLIENT)

    def drain(self) -> None:
        """
        Tell the client that the server is going, finish the calls that were accepted, close.
        """
        if not self.draining and self._reason is None:
            self.draining = True
            self.sendCloseEvent(CloseReason.EOF)
            self.callAnswered()

    @property
    def _idle(self) -> bool:
        return self._calls.idle and (self.session is None or self.session.idle)

    def sendCloseEvent(self, reason: CloseReason) -> None:
        """
        Tell a client that wants to know why this end is about to close; C{virsh} prints it.
        """
        if self.closeCallbackRegistered:
            self.sendEvent(
                REMOTE_PROGRAM,
                Procedure.CONNECT_EVENT_CONNECTION_CLOSED,
                Packer().int32(reason).packed(),
            )

    def _peerDied(self, reason: KeepAliveTimeout) -> None:
        """
        Tell a client that is dead why, in case it is not quite, and do not wait for it.
        """
        if not self.closeCallbackRegistered or self.congested:
            super()._peerDied(reason)
            return
        self.sendCloseEvent(CloseReason.KEEPALIVE)
        self.disconnect(reason, _FAREWELL_SECONDS)

    def _end(self, reason: Exception) -> None:
        super()._end(reason)
        self._calls.hold()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The client is gone.
        """
        if self._afterReply is not None:
            self._afterReply.cancel()
            self._afterReply = None
        if self._handshaking:
            self._handshaking = False
            del self.dataReceived
        super().connectionLost(reason)
        self.factory.connectionGone(self)

    def closed(self, reason: Exception) -> None:
        """
        Count and log what was not in order, and let go of what was open.
        """
        self._calls.clear()
        if self.authentication is not None:
            self.authentication.abandon()
        self.factory.journal.ended(self.peer, reason)
        session, self.session = self.session, None
        if session is not None:
            session.closed(reason)


class KeepAliveServerFactory(KeepAliveFactory):
    """
    Serves the remote program, with negotiated keepalive, and programs of an application's own.

    @ivar policy: how far keepalive goes with each client.
    @ivar programs: what can be called, by number.
    @ivar connections: those that are there.
    @ivar journal: what has been seen.
    @ivar counters: the same in numbers.
    @ivar accessControl: who may connect.
    @ivar limits: how many, and for how long.
    @ivar pending: those that are not open yet.
    @ivar startsOpen: whether connections are open as soon as the policy admits them, without
        C{CONNECT_OPEN}, and without the remote program that has it.
    """

    protocol = KeepAliveServerProtocol

    def __init__(
        self,
        policy: IKeepAlivePolicy | None = None,
        backend: IBackend | None = None,
        programs: Iterable[IProgram] = (),
        clock: IReactorTime | None = None,
        accessControl: AccessControl | None = None,
        limits: Limits | None = None,
        *,
        startsOpen: bool = False,
    ) -> None:
        """
        @param policy: by default mode 0, L{Disable}.
        @param backend: what there is to open, by default an L{ApplicationBackend}.
        @param programs: the application's own.
        @param clock: see L{KeepAliveFactory}.
        @param accessControl: by default everybody whom the transport accepts may connect.
        @param limits: by default those of L{Limits}.
        @param startsOpen: serve only C{programs}, to connections that need not open.  Nobody is
            pinged then, since nobody can ask for it.
        @raise ValueError: when two programs have one number, or clients that need not open would
            have to log in.
        """
        super().__init__(clock, limits)
        self.policy = Disable() if policy is None else policy
        self.programs: dict[int, IProgram] = {}
        remote = () if startsOpen else (RemoteProgram(backend or ApplicationBackend()),)
        for program in (*remote, *programs):
            if program.number in self.programs:
                raise ValueError(f"two programs have the number {program.number:#x}")
            self.programs[program.number] = program
        self.connections: set[KeepAliveServerProtocol] = set()
        self.journal = Journal(self.seconds)
        self.counters = self.journal.counters
        self.accessControl = AccessControl() if accessControl is None else accessControl
        if startsOpen and self.accessControl.portal is not None:
            raise ValueError("startsOpen: clients cannot log in without the remote program")
        self.startsOpen = startsOpen
        self.pending: PendingClients[KeepAliveServerProtocol] = PendingClients()
        self._waitingEmpty: list[Deferred[None]] = []

    def drain(self) -> Deferred[None]:
        """
        Let every connection finish the calls that were accepted, and close.

        @return: fires when no connection is left.
        """
        empty: Deferred[None] = Deferred()
        self._waitingEmpty.append(empty)
        self._end(list(self.connections), KeepAliveServerProtocol.drain)
        self._checkEmpty()
        return empty

    def _end(
        self,
        connections: list[KeepAliveServerProtocol],
        how: Callable[[KeepAliveServerProtocol], None],
    ) -> None:
        """
        End connections, a few in each turn of the reactor, so that the others are served.
        """
        for connection in connections[-MAX_CLOSES_PER_TURN:]:
            how(connection)
        del connections[-MAX_CLOSES_PER_TURN:]
        if connections:
            self.clock.callLater(0, self._end, connections, how)

    def makeRoom(self, connection: KeepAliveServerProtocol, *, unknown: bool) -> bool:
        """
        A client has connected: if there are too many now, drop the one that is not known, or not
        open, for the longest time.

        @param unknown: whether it has a handshake or a login before it.
        @return: whether there is no such other, so that this one is to be turned away.
        """
        oldest = self.pending.came(connection, len(self.connections), self.limits, unknown=unknown)
        if oldest is not None and oldest is not connection:
            oldest.abort(TooManyClients("too many clients, and it was the one to wait longest"))
        return oldest is connection

    def connectionGone(self, connection: KeepAliveServerProtocol) -> None:
        """
        A connection is gone.
        """
        self.pending.gone(connection)
        self.connections.discard(connection)
        self._checkEmpty()

    def _checkEmpty(self) -> None:
        if not self.connections:
            waiting, self._waitingEmpty = self._waitingEmpty, []
            for each in waiting:
                each.callback(None)

    def abort(self) -> None:
        """
        Close every connection, whatever it has to finish.
        """
        reason = ServerStopping()
        self._end(list(self.connections), lambda connection: connection.abort(reason))
