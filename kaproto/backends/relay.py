"""
Relays messages between a client's connection and a connection to a server.  Messages that concern
only one of the two connections are handled here, all others are forwarded unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kaproto.backends.relayedstreams import RelayedStreams
from kaproto.backends.relayreader import RelayReader
from kaproto.client.connection import ClientConnection
from kaproto.errors import PeerFlooded, RemoteError, RemoteProtocolError
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.wire.filter import Header, MessageFilter
from kaproto.wire.message import Message, MessageType, Status, packError, rpcError
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    LXC_PROGRAM,
    REMOTE_PROGRAM,
    ErrorCode,
    Feature,
    Procedure,
)
from kaproto.wire.xdr import Unpacker, XDRError

__all__ = [
    "DESCRIPTORS_MAX",
    "WHOLE_MAX",
    "Relay",
]

DESCRIPTORS_MAX: Final = 32
"""
The most file descriptors in a message (C{VIR_NET_MESSAGE_NUM_FDS_MAX}).
"""

WHOLE_MAX: Final = 65536
"""
Messages up to this size are relayed in one piece, so that a ping can be sent before a message that
arrives slowly.  Longer messages are relayed in the pieces in which they arrive.
"""

# Looking up a member of an enum is slow, and each relayed message would do it.
_CALL: Final = int(MessageType.CALL)
_REPLY: Final = int(MessageType.REPLY)
_STREAM: Final = int(MessageType.STREAM)
_CALL_WITH_FDS: Final = int(MessageType.CALL_WITH_FDS)
_REPLY_WITH_FDS: Final = int(MessageType.REPLY_WITH_FDS)
_REPLIES: Final = (_REPLY, _REPLY_WITH_FDS)
_CONTINUE: Final = int(Status.CONTINUE)
_ERROR: Final = int(Status.ERROR)

_LXC_OPEN_NAMESPACE: Final = 1


class Relay:
    """
    Relays between a client and a server whose connections are both open.

    @ivar closing: whether the client has called C{CONNECT_CLOSE}.
    """

    __slots__ = (
        "_calls",
        "_client",
        "_outstanding",
        "_server",
        "_streams",
        "_toClient",
        "_toServer",
        "_upstream",
        "closing",
    )

    def __init__(self, client: ServerConnection, upstream: ClientConnection) -> None:
        """
        @param client: the connection from the client.
        @param upstream: the connection to the server.
        """
        self.closing = False
        self._client = client
        self._server = client.server
        self._upstream = upstream
        self._calls = 0
        self._outstanding: dict[int, Header] = {}
        self._streams = RelayedStreams(client.server)
        self._toServer = MessageFilter(
            self._interceptsCall, self._callIntercepted, upstream.outgoing.forward, WHOLE_MAX
        )
        self._toClient = MessageFilter(
            self._interceptsReply, self._replyIntercepted, client.outgoing.forward, WHOLE_MAX
        )

    def start(self, reader: RelayReader | None = None) -> None:
        """
        Start relaying, first the bytes that have been received already.

        @param reader: reads both connections; by default the reactor does.
        """
        for near, incoming, outgoing, far in (
            (self._upstream, self._toClient, self._toServer, self._client),
            (self._client, self._toServer, self._toClient, self._upstream),
        ):
            near.startRelay(incoming, outgoing, far)
            if reader is not None:
                reader.read(near, incoming)

    def end(self) -> None:
        """
        The client is gone: stop relaying.
        """
        # The filters refer to this object.  Break the cycle, so that the connections are freed
        # without the garbage collector.
        del self._toServer, self._toClient

    @property
    def idle(self) -> bool:
        """
        Whether every call has been answered to the last byte, and no stream is open.
        """
        return not (self._calls or self._streams.areOpen or self._toClient.midMessage)

    @property
    def underWay(self) -> int:
        """
        How many calls and streams the server has not finished.
        """
        return self._calls + self._streams.known

    @property
    def callsUnderWay(self) -> int:
        """
        How many calls are unanswered, up to C{limits.relayedCalls}.
        """
        return len(self._outstanding)

    def failOutstanding(self, error: RemoteError) -> None:
        """
        Answer the outstanding calls with an error, since the server will not answer them.
        """
        payload = packError(error)
        outstanding, self._outstanding = self._outstanding, {}
        for header in outstanding.values():
            self._client.send(Message._make((*header[1:], b"")).reply(payload, Status.ERROR))

    def _interceptsCall(self, header: Header) -> bool:
        """
        @return: whether to intercept a message from the client instead of forwarding it.
        """
        _length, program, _version, procedure, kind, serial, _status = header
        trace = self._client.incoming.trace
        if trace is not None:
            trace("in", header)
        if program == KEEPALIVE_PROGRAM:
            return True
        if kind == _CALL:
            if procedure in _PROCEDURES and (program, procedure) in _HANDLERS:
                return True
            self._callRelayed(serial, header)
        elif kind == _STREAM:
            self._streams.used(serial)
        return kind == _CALL_WITH_FDS

    def _callRelayed(self, serial: int, header: Header) -> None:
        self._calls += 1
        if len(self._outstanding) < self._server.limits.relayedCalls:
            self._outstanding[serial] = header

    def _callIntercepted(self, message: Message, raw: bytes) -> None:
        if message.program == KEEPALIVE_PROGRAM:
            self._client.received(message)
            return
        limit = self._server.limits.waitingAnswers
        if self._toClient.waiting >= limit:
            raise PeerFlooded(
                f"more than {limit} calls that the gateway answers itself, during "
                "one message from libvirtd"
            )
        if message.type == MessageType.CALL_WITH_FDS and self._dropDescriptors(
            message, self._toServer
        ):
            self._refuseDescriptors(message, raw)
            return
        handler = _HANDLERS.get((message.program, message.procedure), Relay._relayCall)
        handler(self, message, raw)

    def _dropDescriptors(self, message: Message, way: MessageFilter) -> int:
        """
        Drop the bytes after a message with file descriptors, one for each descriptor.  The
        descriptors themselves were closed on arrival.

        @return: the number of descriptors.
        """
        count = Unpacker(message.payload).uint32()
        if count > DESCRIPTORS_MAX:
            raise RemoteProtocolError(
                f"a message with {count} file descriptors, where {DESCRIPTORS_MAX} are allowed"
            )
        way.discard(count)
        return count

    def _relayCall(self, message: Message, raw: bytes) -> None:
        self._callRelayed(message.serial, (len(raw), *message[:6]))
        self._upstream.outgoing.forward(raw)

    def _answerHere(self, message: Message, raw: bytes) -> None:
        self._client.messageReceived(message)

    def _answerFeature(self, message: Message, raw: bytes) -> None:
        """
        Answer whether keepalive is supported; relay questions about other features.
        """
        withFds = message.type == MessageType.CALL_WITH_FDS
        try:
            feature = Unpacker(message.payload[4:] if withFds else message.payload).int32()
        except XDRError:
            feature = None
        if feature == Feature.PROGRAM_KEEPALIVE:
            self._client.messageReceived(message)
        else:
            self._relayCall(message, raw)

    def _refuseIdentity(self, message: Message, raw: bytes) -> None:
        self._refuse(
            message,
            rpcError(
                "operation forbidden: this gateway lets no client set an identity, because "
                "libvirtd would not verify it",
                ErrorCode.OPERATION_DENIED,
            ),
        )

    def _refuse(self, call: Message, error: RemoteError) -> None:
        self._client.send(call.reply(packError(error), Status.ERROR))
        self._client.backpressure.answeredElsewhere()

    def _refuseDescriptors(self, message: Message, raw: bytes) -> None:
        self._refuse(
            message,
            rpcError(
                "Operation not supported: file descriptors cannot be passed through a gateway",
                ErrorCode.OPERATION_UNSUPPORTED,
            ),
        )

    def _registerCloseCallback(self, message: Message, raw: bytes) -> None:
        registers = message.procedure == Procedure.CONNECT_REGISTER_CLOSE_CALLBACK
        self._client.events.closeCallbackRegistered = registers
        self._relayCall(message, raw)

    def _relayClose(self, message: Message, raw: bytes) -> None:
        self.closing = True
        self._relayCall(message, raw)

    def _interceptsReply(self, header: Header) -> bool:
        """
        @return: whether to intercept a message from the server instead of forwarding it.
        """
        _length, program, _version, _procedure, kind, serial, status = header
        if program == KEEPALIVE_PROGRAM:
            return True
        trace = self._client.outgoing.trace
        if trace is not None:
            trace("out", header)
        if kind == _STREAM:
            if status == _CONTINUE:
                self._streams.used(serial)
            else:
                self._streams.ended(serial, failed=status == _ERROR)
        elif kind in _REPLIES:
            if self._calls:
                self._calls -= 1
            self._outstanding.pop(serial, None)
        return kind == _REPLY_WITH_FDS

    def _replyIntercepted(self, message: Message, raw: bytes) -> None:
        if message.program == KEEPALIVE_PROGRAM:
            self._upstream.received(message)
        elif self._dropDescriptors(message, self._toClient):
            self._refuseDescriptors(message, raw)
        else:
            self._toClient.inject(raw)


_Handler = Callable[[Relay, Message, bytes], None]

_HANDLERS: Final[dict[tuple[int, int], _Handler]] = {
    (REMOTE_PROGRAM, Procedure.AUTH_LIST): Relay._answerHere,
    (REMOTE_PROGRAM, Procedure.AUTH_SASL_INIT): Relay._answerHere,
    (REMOTE_PROGRAM, Procedure.AUTH_SASL_START): Relay._answerHere,
    (REMOTE_PROGRAM, Procedure.AUTH_SASL_STEP): Relay._answerHere,
    (REMOTE_PROGRAM, Procedure.AUTH_POLKIT): Relay._answerHere,
    (REMOTE_PROGRAM, Procedure.CONNECT_CLOSE): Relay._relayClose,
    (REMOTE_PROGRAM, Procedure.CONNECT_SUPPORTS_FEATURE): Relay._answerFeature,
    (REMOTE_PROGRAM, Procedure.CONNECT_SET_IDENTITY): Relay._refuseIdentity,
    (REMOTE_PROGRAM, Procedure.CONNECT_REGISTER_CLOSE_CALLBACK): Relay._registerCloseCallback,
    (REMOTE_PROGRAM, Procedure.CONNECT_UNREGISTER_CLOSE_CALLBACK): Relay._registerCloseCallback,
    # These two return file descriptors.  (Procedures that take descriptors can be called without.)
    (REMOTE_PROGRAM, Procedure.DOMAIN_OPEN_GRAPHICS_FD): Relay._refuseDescriptors,
    (LXC_PROGRAM, _LXC_OPEN_NAMESPACE): Relay._refuseDescriptors,
}
"""
The handlers of intercepted calls.
"""

_PROCEDURES: Final = frozenset(procedure for _program, procedure in _HANDLERS)
"""
The procedures' numbers in L{_HANDLERS}: looking up a number is faster than making a pair.
"""
