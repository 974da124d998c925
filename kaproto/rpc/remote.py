"""
libvirt's remote program: answers authentication, the feature check, open and close, and passes all
other procedures to the backend.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar, Final

from kaproto.interfaces import IBackend, ISession
from kaproto.program import Program, procedure
from kaproto.rpc.negotiation import Phase
from kaproto.rpc.protocol import KeepAliveProtocol, connectionOf
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.security.serverauth import REFUSED, Authentication
from kaproto.wire.message import rpcError
from kaproto.wire.programs import REMOTE_PROGRAM, AuthType, ErrorCode, Feature, Procedure
from kaproto.wire.xdr import Packer, Unpacker

__all__ = ["RemoteProgram"]

_NO_LOGIN: Final = Packer().uint32(1).int32(AuthType.NONE).packed()
_SASL: Final = Packer().uint32(1).int32(AuthType.SASL).packed()
_NO: Final = Packer().int32(False).packed()
_YES: Final = Packer().int32(True).packed()


class RemoteProgram(Program):
    """
    libvirt's remote program (C{REMOTE_PROGRAM}) in front of a backend.
    """

    number: ClassVar[int] = REMOTE_PROGRAM

    def __init__(self, backend: IBackend) -> None:
        """
        @param backend: opens the names that clients ask for, and answers their calls.
        """
        self._backend = backend

    def knows(self, procedure: int) -> bool:
        """
        @return: whether this program or its backend has the procedure.
        """
        return procedure in self._procedures or self._backend.knows(procedure)

    def callReceived(
        self, connection: KeepAliveProtocol, procedure: int, payload: bytes
    ) -> bytes | Awaitable[bytes]:
        """
        Answer a call here, or pass it to the session.
        """
        served = connectionOf(connection, ServerConnection)
        if procedure in self._procedures:
            return super().callReceived(served, procedure, payload)
        assert served.session is not None, "the negotiation allows no other call before open"
        return served.session.callReceived(procedure, payload)

    @procedure(Procedure.AUTH_LIST)
    def authList(self, connection: ServerConnection, payload: bytes) -> bytes:
        """
        List the authentication types: SASL while the client has to log in, otherwise none.
        """
        login = connection.negotiation.phase is Phase.AUTHENTICATING
        return _SASL if login else _NO_LOGIN

    @procedure(Procedure.AUTH_SASL_INIT)
    def authSASLInit(self, connection: ServerConnection, payload: bytes) -> Awaitable[bytes]:
        """
        List the SASL mechanisms.
        """
        return self._authentication(connection).init(payload)

    @procedure(Procedure.AUTH_SASL_START)
    def authSASLStart(self, connection: ServerConnection, payload: bytes) -> Awaitable[bytes]:
        """
        Start a SASL exchange.
        """
        return self._authentication(connection).start(payload)

    @procedure(Procedure.AUTH_SASL_STEP)
    def authSASLStep(self, connection: ServerConnection, payload: bytes) -> Awaitable[bytes]:
        """
        Continue a SASL exchange.
        """
        return self._authentication(connection).step(payload)

    @procedure(Procedure.AUTH_POLKIT)
    def authPolkit(self, connection: ServerConnection, payload: bytes) -> bytes:
        """
        Refuse polkit, which the server never offers.
        """
        raise rpcError(REFUSED, ErrorCode.AUTH_FAILED)

    def _authentication(self, connection: ServerConnection) -> Authentication:
        login = connection.authentication
        if login is None or connection.negotiation.phase is not Phase.AUTHENTICATING:
            raise rpcError(REFUSED, ErrorCode.AUTH_FAILED)
        return login

    @procedure(Procedure.CONNECT_SUPPORTS_FEATURE)
    def supportsFeature(self, connection: ServerConnection, payload: bytes) -> bytes:
        """
        Say whether a feature is supported.  A client that asks for keepalive may be pinged.
        """
        feature = Unpacker(payload).int32()
        supported = connection.negotiation.supportsFeature(feature)
        if feature != Feature.PROGRAM_KEEPALIVE:
            supported = supported or feature in self._backend.features
        elif supported:
            connection.keepAliveRequested()
        return _YES if supported else _NO

    @procedure(Procedure.CONNECT_OPEN)
    def open(self, connection: ServerConnection, payload: bytes) -> bytes | Awaitable[bytes]:
        """
        Open the name that the client asks for, if the policy admits the client.
        """
        request = connection.openRequested(payload)
        try:
            session = self._backend.open(connection.peer, request)
        except BaseException:
            connection.openFailed()
            raise
        if ISession.providedBy(session):
            connection.sessionOpened(session)
            return b""
        return self._openLater(connection, session)

    async def _openLater(self, connection: ServerConnection, session: Awaitable[ISession]) -> bytes:
        try:
            connection.sessionOpened(await session)
        except BaseException:
            connection.openFailed()
            raise
        return b""

    @procedure(Procedure.CONNECT_CLOSE)
    def close(self, connection: ServerConnection, payload: bytes) -> bytes:
        """
        Close the connection after replying.
        """
        connection.closeRequested()
        return b""

    @procedure(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK)
    def registerCloseCallback(self, connection: ServerConnection, payload: bytes) -> bytes:
        """
        Tell the client the reason when the server closes the connection.
        """
        connection.events.closeCallbackRegistered = True
        return b""

    @procedure(Procedure.CONNECT_UNREGISTER_CLOSE_CALLBACK)
    def unregisterCloseCallback(self, connection: ServerConnection, payload: bytes) -> bytes:
        """
        Stop telling the client the reason.
        """
        connection.events.closeCallbackRegistered = False
        return b""
