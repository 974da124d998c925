"""
Two connections made into one: what comes from the client goes to the server and the other way
round, but for what belongs to one hop only.
"""

from __future__ import annotations

from typing import Final

from kaproto.client.connection import ClientConnection
from kaproto.errors import PeerFlooded, RemoteError, RemoteProtocolError
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.wire.filter import Header, MessageFilter
from kaproto.wire.message import Message, MessageType, Status, packError, rpcError
from kaproto.wire.programs import (
    KEEPALIVE_PROGRAM,
    LXC_PROGRAM,
    QEMU_PROGRAM,
    REMOTE_PROGRAM,
    ErrorCode,
    Feature,
    Procedure,
)
from kaproto.wire.xdr import Unpacker

__all__ = ["ANSWERS_WAITING_MAX", "OUTSTANDING_MAX", "STREAMS_MAX", "Relay"]

ANSWERS_WAITING_MAX: Final = 256
"""
How many of the gateway's own answers may wait for the end of a message from the server.
"""

OUTSTANDING_MAX: Final = 256
"""
How many calls under way are kept in mind, for them to be answered if the server dies.
"""

STREAMS_MAX: Final = 256
"""
How many streams under way are kept in mind, for them to end before kaserver does.
"""

_OWN: Final = frozenset(
    {
        (REMOTE_PROGRAM, procedure)
        for procedure in (
            Procedure.AUTH_LIST,
            Procedure.AUTH_SASL_INIT,
            Procedure.AUTH_SASL_START,
            Procedure.AUTH_SASL_STEP,
            Procedure.AUTH_POLKIT,
        )
    }
)

_PASSES_FDS: Final = frozenset(
    {
        (REMOTE_PROGRAM, Procedure.DOMAIN_OPEN_GRAPHICS),
        (REMOTE_PROGRAM, Procedure.DOMAIN_CREATE_XML_WITH_FILES),
        (REMOTE_PROGRAM, Procedure.DOMAIN_CREATE_WITH_FILES),
        (REMOTE_PROGRAM, Procedure.DOMAIN_OPEN_GRAPHICS_FD),
        (REMOTE_PROGRAM, Procedure.DOMAIN_FD_ASSOCIATE),
        (QEMU_PROGRAM, 7),
        (LXC_PROGRAM, 1),
    }
)
"""
Procedures that hand over file descriptors, as only a UNIX socket without anybody between can.
"""

_SET_IDENTITY: Final = (REMOTE_PROGRAM, Procedure.CONNECT_SET_IDENTITY)
_FEATURE: Final = (REMOTE_PROGRAM, Procedure.CONNECT_SUPPORTS_FEATURE)
_CLOSE: Final = (REMOTE_PROGRAM, Procedure.CONNECT_CLOSE)
_REGISTER: Final = (REMOTE_PROGRAM, Procedure.CONNECT_REGISTER_CLOSE_CALLBACK)
_UNREGISTER: Final = (REMOTE_PROGRAM, Procedure.CONNECT_UNREGISTER_CLOSE_CALLBACK)

_KEPT: Final = _OWN | _PASSES_FDS | {_SET_IDENTITY, _FEATURE, _REGISTER, _UNREGISTER}
_PROGRAMS: Final = frozenset(program for program, _ in _KEPT)
_SPECIAL: Final = frozenset(int(procedure) for _, procedure in _KEPT | {_CLOSE})

# An enum's members are looked up at every use, which every relayed message would pay for.
_CALL: Final = int(MessageType.CALL)
_REPLY: Final = int(MessageType.REPLY)
_STREAM: Final = int(MessageType.STREAM)
_CALL_WITH_FDS: Final = int(MessageType.CALL_WITH_FDS)
_REPLY_WITH_FDS: Final = int(MessageType.REPLY_WITH_FDS)


class Relay:
    """
    Relays between a client's connection and one to a server, both of them open.

    @ivar closing: whether the client has called to close.
    """

    __slots__ = (
        "_client",
        "_outstanding",
        "_streams",
        "_toClient",
        "_toServer",
        "_upstream",
        "closing",
    )

    def __init__(self, client: ServerConnection, upstream: ClientConnection) -> None:
        """
        @param client: the connection from a client.
        @param upstream: the connection to the server.
        """
        self.closing = False
        self._client = client
        self._upstream = upstream
        self._outstanding: dict[int, Header] = {}
        self._streams: set[int] = set()
        self._toServer = MessageFilter(
            self._keepFromClient, self._takeFromClient, upstream.transport.write
        )
        self._toClient = MessageFilter(
            self._keepFromServer, self._takeFromServer, client.transport.write
        )

    def start(self) -> None:
        """
        Relay from now on, beginning with what has come already.
        """
        self._upstream.startRelay(self._toClient, self._toServer, self._client)
        self._client.startRelay(self._toServer, self._toClient, self._upstream)

    def end(self) -> None:
        """
        The client has gone: nothing is relayed any more.
        """
        # The sieves hold this object's methods. Without this cycle it takes no garbage collector
        # to free the connections.
        del self._toServer, self._toClient

    @property
    def idle(self) -> bool:
        """
        Whether no call is unanswered, as far as is known, and no stream under way.
        """
        return not self._outstanding and not self._streams

    def failOutstanding(self, error: RemoteError) -> None:
        """
        Answer the calls that the server will not answer any more.
        """
        payload = packError(error)
        outstanding, self._outstanding = self._outstanding, {}
        for header in outstanding.values():
            self._client.send(Message._make((*header[1:], b"")).reply(payload, Status.ERROR))

    def _keepFromClient(self, header: Header) -> bool:
        program = header[1]
        if program == KEEPALIVE_PROGRAM:
            return True
        kind = header[4]
        if kind == _CALL:
            procedure = header[3]
            if procedure in _SPECIAL and program in _PROGRAMS:
                which = (program, procedure)
                if which in _KEPT:
                    return True
                if which == _CLOSE:
                    self.closing = True
            self._note(header)
        elif kind == _STREAM:
            self._noteStream(header[5], going=header[6] != Status.ERROR)
        return kind == _CALL_WITH_FDS

    def _note(self, header: Header) -> None:
        if len(self._outstanding) < OUTSTANDING_MAX:
            self._outstanding[header[5]] = header

    def _noteStream(self, serial: int, *, going: bool) -> None:
        if going:
            if len(self._streams) < STREAMS_MAX:
                self._streams.add(serial)
        elif serial in self._streams:
            self._streams.remove(serial)
            self._client.relayedCallAnswered()

    def _takeFromClient(self, message: Message, raw: bytes) -> None:
        client = self._client
        which = (message.program, message.procedure)
        if message.program == KEEPALIVE_PROGRAM:
            client.keepAliveReceived(message)
            return
        if self._toClient.waiting >= ANSWERS_WAITING_MAX:
            raise PeerFlooded(
                f"more than {ANSWERS_WAITING_MAX} calls that the gateway answers itself, during "
                "one message from libvirtd"
            )
        if message.type == MessageType.CALL_WITH_FDS and Unpacker(message.payload).uint32():
            raise RemoteProtocolError("a call that comes with file descriptors")
        if which in _OWN or (which == _FEATURE and self._isOwnFeature(message)):
            client.messageReceived(message)
        elif which == _SET_IDENTITY:
            self._refuse(
                message,
                rpcError(
                    "operation forbidden: this gateway lets nobody set an identity, which libvirtd "
                    "would not verify",
                    ErrorCode.OPERATION_DENIED,
                ),
            )
        elif which in _PASSES_FDS:
            self._refuse(
                message,
                rpcError(
                    "Operation not supported: file descriptors cannot be passed through a gateway",
                    ErrorCode.OPERATION_UNSUPPORTED,
                ),
            )
        else:
            if which in (_REGISTER, _UNREGISTER):
                client.closeCallbackRegistered = which == _REGISTER
            self._note((len(raw), *message[:6]))
            self._upstream.transport.write(raw)

    def _isOwnFeature(self, message: Message) -> bool:
        withFds = message.type == MessageType.CALL_WITH_FDS
        arguments = message.payload[4:] if withFds else message.payload
        return Unpacker(arguments + bytes(4)).int32() in (
            Feature.PROGRAM_KEEPALIVE,
            Feature.FD_PASSING,
        )

    def _refuse(self, message: Message, error: RemoteError) -> None:
        client = self._client
        client.send(message.reply(packError(error), Status.ERROR))
        client.answerInjected()

    def _keepFromServer(self, header: Header) -> bool:
        if header[1] == KEEPALIVE_PROGRAM:
            return True
        kind = header[4]
        if kind == _REPLY:
            self._outstanding.pop(header[5], None)
            self._client.relayedCallAnswered()
        elif kind == _STREAM:
            self._noteStream(header[5], going=header[6] == Status.CONTINUE)
        elif kind == _REPLY_WITH_FDS:
            raise RemoteProtocolError("a reply that comes with file descriptors")
        return False

    def _takeFromServer(self, message: Message, raw: bytes) -> None:
        self._upstream.keepAliveReceived(message)
