"""
The client's end of a connection: negotiation, calls and their replies, events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure

from kaproto.client.endings import announced, explained
from kaproto.client.negotiation import negotiate, registerCloseCallback
from kaproto.client.shared import SharedByClient
from kaproto.errors import (
    ConnectionClosed,
    KeepAliveUnsupported,
    LocalProtocolError,
    RemoteProtocolError,
)
from kaproto.keepalive.liveness import KeepAlive
from kaproto.rpc.connection import Connection
from kaproto.rpc.incoming import Gate
from kaproto.rpc.replies import Replies
from kaproto.rpc.shared import Hooks
from kaproto.security.hashing import offReactor
from kaproto.security.tls import CONFIRMATION
from kaproto.transport import StreamTransport, identify
from kaproto.waiting import Waiting
from kaproto.wire.message import Message, MessageType
from kaproto.wire.programs import (
    PROGRAM_VERSION,
    REMOTE_PROGRAM,
    CloseReason,
    Procedure,
)
from kaproto.wire.xdr import XDRError

__all__ = ["ClientConnection"]

_UNSUPPORTED: Final = "the server did not say that it supports keepalive, so it may not be pinged"


class ClientConnection(Connection):
    """
    A connection to a server.

    @ivar keepAliveSupported: whether the server answered 1 to the feature check, so that it may
        be pinged.
    """

    __slots__ = (
        "_announced",
        "_client",
        "_goodbye",
        "_handshakeDone",
        "_listeners",
        "_open",
        "_opening",
        "_pings",
        "_ready",
        "_replies",
        "keepAliveSupported",
    )

    def __init__(self, transport: StreamTransport, hooks: Hooks, shared: SharedByClient) -> None:
        super().__init__(transport, hooks, shared)
        self.keepAliveSupported = False
        self._client = shared
        self._replies = Replies()
        self._listeners: dict[int, Callable[[int, bytes], None]] = {}
        self._opening: Waiting[None] = Waiting()
        self._pings: Waiting[float] = Waiting()
        self._goodbye: ConnectionClosed | None = None
        self._announced: ConnectionClosed | None = None
        self._open = self._ready = self._handshakeDone = False

    def start(self) -> None:
        """
        Authenticate, ask for keepalive and open.
        """
        self.closing.setDeadline(
            self._client.limits.openTimeout, "the server did not let this client open"
        )
        if ISSLTransport.providedBy(self.transport):
            self.incoming.bypass = Gate(self._confirmationReceived)
        else:
            self._begin()

    def _begin(self) -> None:
        Deferred.fromCoroutine(self._negotiate()).addErrback(self._openFailed)

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake is done.  The server has not confirmed yet that it accepts this client.
        """
        self._handshakeDone = True

    def _confirmationReceived(self, data: bytes) -> None:
        """
        Check the first byte that a server sends over TLS: it confirms that it accepts the client.
        """
        self.incoming.bypass = None
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
            self.incoming.feed(data[len(CONFIRMATION) :])

    async def _authenticate(self, types: list[int]) -> None:
        secure = identify(self.transport).secure
        await self._client.authentication.run(
            self._callRemote, types, secure=secure, compute=offReactor
        )

    async def _negotiate(self) -> None:
        client = self._client
        if not client.startsOpen:
            await self._openRemote()
        self.closing.clearDeadline()
        self._open = True
        if self.keepAliveSupported:
            self.startKeepAlive(client.keepAlive)
        self.watchByKernel(client.keepAlive)
        self.opened()
        if client.onOpen is not None and self.isAlive():
            later = client.onOpen(self.hooks)
            if later is not None:
                await later
        if self.isAlive():
            self._ready = True
            self._opening.fire(None)

    async def _openRemote(self) -> None:
        client = self._client
        try:
            self.keepAliveSupported = await negotiate(
                self._callRemote,
                client.name,
                client.flags,
                self._authenticate,
                ask=client.asksForKeepAlive,
            )
            if client.registersCloseCallback:
                await registerCloseCallback(self._callRemote)
        except XDRError as error:
            raise RemoteProtocolError(
                f"the server's answer during open cannot be decoded: {error}"
            ) from error

    def _openFailed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, Exception):
            failure.raiseException()
        if self.closing.reason is None and not self._opening:
            self._log.warn(
                "{name} could not be opened: {error}", name=self._client.name, error=error
            )
        self.disconnect(error)

    def _callRemote(self, procedure: int, payload: bytes) -> Deferred[bytes]:
        return self._call(REMOTE_PROGRAM, procedure, payload, PROGRAM_VERSION)

    def _call(self, program: int, procedure: int, payload: bytes, version: int) -> Deferred[bytes]:
        if self.closing.reason is not None:
            return fail(self.closing.reason)
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
        Call a procedure.  Before the connection is open this fails.
        """
        if not self._open and self.closing.reason is None:
            if self._goodbye is not None:
                return fail(self._goodbye)
            return fail(
                LocalProtocolError("the connection is not open yet: await whenOpen() first")
            )
        return self._call(program, procedure, payload, version)

    def setKeepAlive(self, interval: float, count: int) -> None:
        """
        Start pinging the server, or change interval and count.
        """
        keepAlive = KeepAlive(interval, count)
        keepAlive.checkForNetwork()
        if self.closing.reason is not None:
            raise self.closing.reason
        if not self.keepAliveSupported:
            raise KeepAliveUnsupported(_UNSUPPORTED)
        self.startKeepAlive(keepAlive)

    def ping(self) -> Deferred[float]:
        """
        Ping the server once, now.

        @return: fires with the round-trip time in seconds.
        """
        if self.closing.reason is not None:
            return fail(self.closing.reason)
        if not self.keepAliveSupported:
            return fail(KeepAliveUnsupported(_UNSUPPORTED))
        answer = self._pings.wait()
        # One pong answers all earlier pings.
        self.heartbeat.ask(self._pings.fire)
        return answer

    def isAlive(self) -> bool:
        """
        @return: whether the connection is open.
        """
        return self._open and self.closing.reason is None

    def listen(self, program: int, listener: Callable[[int, bytes], None]) -> None:
        """
        Call a function with each event of a program; this replaces any earlier function.
        """
        self._listeners[program] = listener

    def whenOpen(self) -> Deferred[None]:
        """
        @return: fires once the connection is open and ready; fails when it ends before that.
        """
        if self._ready and self.isAlive():
            return succeed(None)
        if self.closing.reason is not None:
            return fail(self.closing.reason)
        return self._opening.wait()

    def close(self) -> Deferred[Exception]:
        """
        Send C{CONNECT_CLOSE} if the connection is open, and close.
        """
        if self.closing.reason is None and self._goodbye is None:
            reason = ConnectionClosed("this client closed the connection", CloseReason.CLIENT)
            self._goodbye = reason
            if self._open:
                self._open = False
                self._callRemote(Procedure.CONNECT_CLOSE, b"").addTimeout(
                    self._client.limits.closeTimeout, self._client.clock
                ).addBoth(lambda _: self.disconnect(reason))
            else:
                self.disconnect(reason)
        return self.closing.whenClosed()

    def messageReceived(self, message: Message) -> None:
        """
        Handle a reply or an event.

        @raise RemoteProtocolError: for a message that no server may send.
        """
        if message.type == MessageType.REPLY:
            self._replies.received(message)
        elif message.type == MessageType.MESSAGE:
            self._eventReceived(message)
        else:
            raise RemoteProtocolError(
                f"a message of type {message.type} for procedure {message.procedure} of program "
                f"{message.program:#x}, which a server may not send"
            )

    def _eventReceived(self, message: Message) -> None:
        if (
            message.program == REMOTE_PROGRAM
            and message.procedure == Procedure.CONNECT_EVENT_CONNECTION_CLOSED
        ):
            self._announced = announced(message.payload)
        listener = self._listeners.get(message.program)
        if listener is not None:
            listener(message.procedure, message.payload)

    def explained(self, reason: Exception) -> Exception:
        """
        @return: the reason that the server gave, or an explanation of the transport's reason.
        """
        return explained(reason, self._announced, handshakeDone=self._handshakeDone)

    def ended(self, reason: Exception) -> None:
        """
        Fail every pending Deferred.
        """
        self._replies.fail(reason)
        self._opening.fail(reason)
        self._pings.fail(reason)
