"""
The client's end of a connection: a Protocol and a Factory to subclass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

from OpenSSL.SSL import Error as SSLError
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    KaprotoError,
    KeepAliveUnsupported,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
)
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import CLIENT_LIMITS, Limits
from kaproto.logbounds import BOUNDS
from kaproto.rpc.negotiation import negotiate
from kaproto.rpc.protocol import KeepAliveFactory, KeepAliveProtocol
from kaproto.rpc.replies import Replies
from kaproto.security.clientauth import Authentication
from kaproto.security.saslclient import Login
from kaproto.security.tls import CONFIRMATION, explainTLS
from kaproto.transport import identify
from kaproto.wire.message import Message, MessageType
from kaproto.wire.programs import (
    PROGRAM_VERSION,
    REMOTE_PROGRAM,
    CloseReason,
    Feature,
    Procedure,
)
from kaproto.wire.xdr import Packer, Unpacker, XDRError

__all__ = ["KeepAliveClientFactory", "KeepAliveClientProtocol"]

_WHY: Final = {
    CloseReason.ERROR: "an error",
    CloseReason.EOF: "end of file",
    CloseReason.KEEPALIVE: "a keepalive timeout",
    CloseReason.CLIENT: "the client's own request",
}

_UNSUPPORTED: Final = "the server did not say that it supports keepalive, so it may not be pinged"


@implementer(IHandshakeListener)
class KeepAliveClientProtocol(KeepAliveProtocol):
    """
    A connection to a server.

    @ivar keepAliveSupported: whether the server answered 1 to the feature check, so that it may
        be pinged.
    """

    factory: KeepAliveClientFactory
    keepAliveSupported = False

    _log: ClassVar[Logger] = Logger(observer=BOUNDS)
    _open = False
    _ready = False
    _handshakeDone = False
    _goodbye: ConnectionClosed | None = None
    _serverSays: ConnectionClosed | None = None

    def connectionMade(self) -> None:
        """
        Authenticate, ask for keepalive and open.
        """
        self._replies = Replies()
        self._listeners: dict[int, Callable[[int, bytes], None]] = {}
        self._waitingOpen: list[Deferred[KeepAliveClientProtocol]] = []
        self._waitingPong: list[Deferred[float]] = []
        factory = self.factory
        self.setDeadline(factory.limits.openTimeout, "the server did not let this client open")
        if ISSLTransport.providedBy(self.transport):
            self.dataReceived = self._confirmationReceived  # type: ignore[method-assign]
        else:
            self._begin()

    def _begin(self) -> None:
        Deferred.fromCoroutine(self._negotiate()).addErrback(self._openFailed)

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake is done; whether the server accepts this client, it has yet to say.
        """
        self._handshakeDone = True

    def _confirmationReceived(self, data: bytes) -> None:
        """
        The first that a server says over TLS is that it accepts the client.
        """
        del self.dataReceived
        self._handshakeDone = False
        if not data.startswith(CONFIRMATION):
            self.abort(
                RemoteProtocolError(
                    f"{data[:1]!r} over TLS where libvirt's servers first send {CONFIRMATION!r}"
                )
            )
            return
        self._begin()
        if len(data) > len(CONFIRMATION):
            self.dataReceived(data[len(CONFIRMATION) :])

    async def _authenticate(self, types: list[int]) -> None:
        secure = identify(self.transport).secure
        await self.factory.authentication.run(self._callRemote, types, secure=secure)

    async def _negotiate(self) -> None:
        factory = self.factory
        if not factory.startsOpen:
            await self._openRemote()
        self.clearDeadline()
        self._open = True
        if self.keepAliveSupported:
            self.startKeepAlive(factory.keepAlive)
        if factory.onOpen is not None:
            later = factory.onOpen(self)
            if later is not None:
                await later
        if self.isAlive():
            self._ready = True
            waiting, self._waitingOpen = self._waitingOpen, []
            for each in waiting:
                each.callback(self)

    async def _openRemote(self) -> None:
        factory = self.factory
        try:
            self.keepAliveSupported = await negotiate(
                self._callRemote,
                factory.name,
                factory.flags,
                self._authenticate,
                ask=factory.asksForKeepAlive,
            )
            if factory.registersCloseCallback:
                await self._askForFarewell()
        except XDRError as error:
            raise RemoteProtocolError(
                f"the server's answer during open cannot be decoded: {error}"
            ) from error

    async def _askForFarewell(self) -> None:
        try:
            feature = Packer().int32(Feature.REMOTE_CLOSE_CALLBACK).packed()
            answer = await self._callRemote(Procedure.CONNECT_SUPPORTS_FEATURE, feature)
            if Unpacker(answer).int32():
                await self._callRemote(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK, b"")
        except RemoteError:
            pass

    def _openFailed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, Exception):
            failure.raiseException()
        if self._reason is None and not self._waitingOpen:
            self._log.warn(
                "{name} could not be opened: {error}", name=self.factory.name, error=error
            )
        self.disconnect(error)

    def _callRemote(self, procedure: int, payload: bytes) -> Deferred[bytes]:
        return self._call(REMOTE_PROGRAM, procedure, payload, PROGRAM_VERSION)

    def _call(self, program: int, procedure: int, payload: bytes, version: int) -> Deferred[bytes]:
        if self._reason is not None:
            return fail(self._reason)
        try:
            packed, result = self._replies.expect(program, procedure, payload, version)
        except LocalProtocolError as error:
            return fail(error)
        self.send(packed)
        return result

    def call(
        self, program: int, procedure: int, payload: bytes = b"", version: int = PROGRAM_VERSION
    ) -> Deferred[bytes]:
        """
        Call a procedure of the server's.

        @param program: the number of the program, such as
            L{kaproto.wire.programs.REMOTE_PROGRAM}.
        @param procedure: the number of the procedure.
        @param payload: the arguments in XDR, see L{kaproto.wire.xdr.Packer}.
        @param version: the version of the program.
        @return: fires with the results in XDR; fails with L{RemoteError} when the server answers
            with an error, with L{LocalProtocolError} before the connection is open or when the
            payload is too large, and with the reason when the connection closes first.
        """
        if not self._open and self._reason is None:
            if self._goodbye is not None:
                return fail(self._goodbye)
            return fail(
                LocalProtocolError("the connection is not open yet: await whenOpen() first")
            )
        return self._call(program, procedure, payload, version)

    async def _hostname(self) -> str:
        payload = await self.call(REMOTE_PROGRAM, Procedure.CONNECT_GET_HOSTNAME)
        try:
            return Unpacker(payload).string()
        except XDRError as error:
            reason = RemoteProtocolError(f"a host name that cannot be decoded: {error}")
            self.abort(reason)
            raise reason from error

    def hostname(self) -> Deferred[str]:
        """
        @return: fires with the name of the server's host, fails as L{call} does.
        """
        return Deferred.fromCoroutine(self._hostname())

    def setKeepAlive(self, interval: float, count: int) -> None:
        """
        Ping the server from now on, in place of any earlier interval and count
        (C{virConnectSetKeepAlive}).  When it is dead, the connection closes with
        L{kaproto.errors.KeepAliveTimeout}.

        @param interval: seconds of silence before a ping; 0 stops keepalive.
        @param count: pings sent in a row without hearing anything; 0 stops keepalive.
        @raise TypeError: when one is not a number, or count not a whole one.
        @raise ValueError: when one is negative or not finite.
        @raise KeepAliveUnsupported: when the server answered 0, or an error, to the feature
            check, or has not been asked yet.
        @raise ConnectionClosed: when the connection has been closed; other reasons are raised
            as they are.
        """
        keepAlive = KeepAlive(interval, count)
        if self._reason is not None:
            raise self._reason
        if not self.keepAliveSupported:
            raise KeepAliveUnsupported(_UNSUPPORTED)
        self.startKeepAlive(keepAlive)

    def ping(self) -> Deferred[float]:
        """
        Ping the server once, now, whether it is watched or not.

        @return: fires with the seconds that its answer took.  It does not fire while the server
            does not answer, so add a timeout.  Fails with L{KeepAliveUnsupported} as
            L{setKeepAlive} raises it, and with the reason when the connection closes first.
        """
        if self._reason is not None:
            return fail(self._reason)
        if not self.keepAliveSupported:
            return fail(KeepAliveUnsupported(_UNSUPPORTED))
        answer: Deferred[float] = Deferred()
        self._waitingPong.append(answer)
        self._heartbeat.ask(self._pingAnswered)
        return answer

    def _pingAnswered(self, latency: float) -> None:
        # One pong answers all earlier pings.
        pings, self._waitingPong = self._waitingPong, []
        for each in pings:
            each.callback(latency)

    def isAlive(self) -> bool:
        """
        @return: whether the connection is open and, as far as is known, works
            (C{virConnectIsAlive}).
        """
        return self._open and self._reason is None

    def listen(self, program: int, listener: Callable[[int, bytes], None]) -> None:
        """
        Have the server's messages that answer no call, such as events, brought to a function.
        Those of programs that nobody listens to are passed over.

        @param program: the number of the program; a second listener replaces the first.
        @param listener: is called with the number of the procedure and the payload in XDR.
        """
        self._listeners[program] = listener

    def whenOpen(self) -> Deferred[KeepAliveClientProtocol]:
        """
        @return: fires with this connection once it is open and the factory's C{onOpen} has
            ended; fails when that does not come about.  Pass it to
            L{twisted.application.internet.ClientService} as C{prepareConnection}, so that a
            server that refuses counts as a failed attempt.
        """
        if self._ready and self.isAlive():
            return succeed(self)
        if self._reason is not None:
            return fail(self._reason)
        waiting: Deferred[KeepAliveClientProtocol] = Deferred()
        self._waitingOpen.append(waiting)
        return waiting

    def close(self) -> Deferred[Exception]:
        """
        Say goodbye and close; a server that does not answer that is not waited for any longer
        than C{limits.closeTimeout}.

        @return: fires as L{whenClosed<kaproto.ending.ClosingProtocol.whenClosed>} does.
        """
        if self._reason is None and self._goodbye is None:
            reason = ConnectionClosed("this client closed the connection", CloseReason.CLIENT)
            self._goodbye = reason
            if self._open:
                self._open = False
                self._callRemote(Procedure.CONNECT_CLOSE, b"").addTimeout(
                    self.factory.limits.closeTimeout, self.factory.clock
                ).addBoth(lambda _: self.disconnect(reason))
            else:
                self.disconnect(reason)
        return self.whenClosed()

    def messageReceived(self, message: Message) -> None:
        """
        A reply or an event came.

        @raise RemoteProtocolError: for what no server may send.
        """
        if message.type == MessageType.REPLY:
            self._replies.received(message)
        elif message.type == MessageType.MESSAGE:
            self._eventReceived(message)
        else:
            raise RemoteProtocolError(
                f"a message of type {message.type} for procedure {message.procedure} of program "
                f"{message.program:#x}, which a client has no use for"
            )

    def _eventReceived(self, message: Message) -> None:
        if (
            message.program == REMOTE_PROGRAM
            and message.procedure == Procedure.CONNECT_EVENT_CONNECTION_CLOSED
        ):
            reason = Unpacker(message.payload).int32()
            why = (
                _WHY.get(CloseReason(reason)) if reason in list(CloseReason) else f"reason {reason}"
            )
            self._serverSays = ConnectionClosed(
                f"the server closed the connection because of {why}", reason
            )
        listener = self._listeners.get(message.program)
        if listener is not None:
            listener(message.procedure, message.payload)

    def closed(self, reason: Exception) -> None:
        """
        Tell everybody who waits for something.
        """
        if self._serverSays is not None and isinstance(reason, ConnectionClosed | ConnectionLost):
            reason = self._reason = self._serverSays
        elif self._handshakeDone and isinstance(reason, ConnectionClosed | ConnectionLost):
            reason = self._reason = AuthenticationFailed(
                "the server closed the connection instead of accepting this client: it wants "
                "another certificate, or one at all (pkipath= in a URI says where it is)"
            )
        elif isinstance(reason, SSLError) and not isinstance(reason, KaprotoError):
            reason = self._reason = RemoteProtocolError(f"TLS failed: {explainTLS(reason)}")
        self._replies.fail(reason)
        opening, self._waitingOpen = self._waitingOpen, []
        for opened in opening:
            opened.errback(reason)
        pings, self._waitingPong = self._waitingPong, []
        for each in pings:
            each.errback(reason)


class KeepAliveClientFactory(KeepAliveFactory):
    """
    Builds connections that open one name.

    @ivar name: what to open, such as C{"qemu:///system"}; C{""} for the server's default; C{None}
        to log in without opening anything.
    @ivar flags: 1 for a read-only connection.
    @ivar keepAlive: what L{KeepAliveClientProtocol.setKeepAlive} is called with after each open
        if the server supports it; by default zeros, so that nothing is pinged.
    @ivar authentication: how to authenticate: with the login, or with none.
    @ivar onOpen: is called with each connection once it is open; the connection counts as open
        when what it returns has fired.
    @ivar asksForKeepAlive: whether to ask the server for keepalive, by which a client says that
        it answers pings.  A server that was not asked does not ping, and may refuse to open.
    @ivar registersCloseCallback: whether to ask the server to say why, when it closes.
    @ivar startsOpen: whether the connection is open at once, without C{CONNECT_OPEN}: for servers
        made with C{KeepAliveServerFactory(startsOpen=True)}.
    @ivar limits: for how long the server is waited for.
    """

    protocol = KeepAliveClientProtocol
    asksForKeepAlive = True
    registersCloseCallback = True
    startsOpen = False

    def __init__(
        self,
        name: str | None = "",
        flags: int = 0,
        keepAlive: KeepAlive | None = None,
        onOpen: Callable[[KeepAliveClientProtocol], Awaitable[object] | None] | None = None,
        clock: IReactorTime | None = None,
        login: Login | None = None,
        limits: Limits = CLIENT_LIMITS,
    ) -> None:
        super().__init__(clock, limits)
        self.authentication = Authentication(login)
        self.name = name
        self.flags = flags
        self.keepAlive = KeepAlive(0, 0) if keepAlive is None else keepAlive
        self.onOpen = onOpen
