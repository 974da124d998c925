"""
The remote program: the procedures that bring a connection to be open, and behind them those of
the backend.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar, Protocol

from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.program import Program, procedure
from kaproto.rpc.negotiation import ServerNegotiation
from kaproto.security.admission import REFUSED, Authentication
from kaproto.wire.message import rpcError
from kaproto.wire.programs import REMOTE_PROGRAM, AuthType, ErrorCode, Feature, Procedure
from kaproto.wire.xdr import Packer, Unpacker

__all__ = ["RemoteConnection", "RemoteProgram"]


class RemoteConnection(Protocol):
    """
    What L{RemoteProgram} needs of a connection.

    @ivar peer: the client.
    @ivar negotiation: how far it has come.
    @ivar session: what is open.
    @ivar closeCallbackRegistered: whether the client wants to be told why, when the server closes.
    @ivar authentication: its login, while it has that before it.
    """

    peer: Peer
    negotiation: ServerNegotiation
    session: ISession | None
    closeCallbackRegistered: bool
    authentication: Authentication | None

    def keepAliveRequested(self) -> None:
        """
        The client asked for keepalive and was answered 1.
        """

    def openRequested(self, payload: bytes) -> OpenRequest:
        """
        The client wants to open.

        @return: what it wants to open.
        @raise kaproto.errors.RemoteError: when it may not.
        """

    def opened(self, session: ISession) -> None:
        """
        The backend has opened.
        """

    def openFailed(self) -> None:
        """
        The backend could not open.
        """

    def closeRequested(self) -> None:
        """
        The client wants to close.
        """


class RemoteProgram(Program):
    """
    libvirt's remote program (C{REMOTE_PROGRAM}), with a backend for what comes after open.
    """

    number: ClassVar[int] = REMOTE_PROGRAM

    def __init__(self, backend: IBackend) -> None:
        """
        @param backend: what there is to open.
        """
        self._backend = backend

    def knows(self, procedure: int) -> bool:
        """
        See L{kaproto.interfaces.IProgram.knows}.
        """
        return super().knows(procedure) or self._backend.knows(procedure)

    def callReceived(
        self, connection: RemoteConnection, procedure: int, payload: bytes
    ) -> bytes | Awaitable[bytes]:
        """
        See L{kaproto.interfaces.IProgram.callReceived}.
        """
        if super().knows(procedure):
            return super().callReceived(connection, procedure, payload)
        assert connection.session is not None, "the negotiation lets nobody call before open"
        return connection.session.callReceived(procedure, payload)

    @procedure(Procedure.AUTH_LIST)
    def authList(self, connection: RemoteConnection, payload: bytes) -> bytes:
        """
        Say how to authenticate.
        """
        kind = AuthType.NONE if connection.authentication is None else AuthType.SASL
        return Packer().uint32(1).int32(kind).packed()

    @procedure(Procedure.AUTH_SASL_INIT)
    def authSASLInit(self, connection: RemoteConnection, payload: bytes) -> Awaitable[bytes]:
        """
        Say which SASL mechanisms there are.
        """
        return self._authentication(connection).init(payload)

    @procedure(Procedure.AUTH_SASL_START)
    def authSASLStart(self, connection: RemoteConnection, payload: bytes) -> Awaitable[bytes]:
        """
        Begin a login.
        """
        return self._authentication(connection).start(payload)

    @procedure(Procedure.AUTH_SASL_STEP)
    def authSASLStep(self, connection: RemoteConnection, payload: bytes) -> Awaitable[bytes]:
        """
        Go on with a login.
        """
        return self._authentication(connection).step(payload)

    @procedure(Procedure.AUTH_POLKIT)
    def authPolkit(self, connection: RemoteConnection, payload: bytes) -> bytes:
        """
        Refuse a way to authenticate that is not offered.
        """
        raise rpcError(REFUSED, ErrorCode.AUTH_FAILED)

    def _authentication(self, connection: RemoteConnection) -> Authentication:
        if connection.authentication is None:
            raise rpcError(REFUSED, ErrorCode.AUTH_FAILED)
        return connection.authentication

    @procedure(Procedure.CONNECT_SUPPORTS_FEATURE)
    def supportsFeature(self, connection: RemoteConnection, payload: bytes) -> bytes:
        """
        Say whether a feature is there; asking for keepalive is what allows pinging.
        """
        feature = Unpacker(payload).int32()
        supported = (
            connection.negotiation.supportsFeature(feature) or feature in self._backend.features
        )
        if supported and feature == Feature.PROGRAM_KEEPALIVE:
            connection.keepAliveRequested()
        return Packer().int32(supported).packed()

    @procedure(Procedure.CONNECT_OPEN)
    def open(self, connection: RemoteConnection, payload: bytes) -> bytes | Awaitable[bytes]:
        """
        Open what the client names, if the policy admits it.
        """
        request = connection.openRequested(payload)
        try:
            session = self._backend.open(connection.peer, request)
        except BaseException:
            connection.openFailed()
            raise
        if ISession.providedBy(session):
            connection.opened(session)
            return b""
        return self._openLater(connection, session)

    async def _openLater(self, connection: RemoteConnection, session: Awaitable[ISession]) -> bytes:
        try:
            connection.opened(await session)
        except BaseException:
            connection.openFailed()
            raise
        return b""

    @procedure(Procedure.CONNECT_CLOSE)
    def close(self, connection: RemoteConnection, payload: bytes) -> bytes:
        """
        The client says goodbye; it is answered before the connection is closed.
        """
        connection.closeRequested()
        return b""

    @procedure(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK)
    def registerCloseCallback(self, connection: RemoteConnection, payload: bytes) -> bytes:
        """
        The client wants to be told why, when the server closes the connection.
        """
        connection.closeCallbackRegistered = True
        return b""

    @procedure(Procedure.CONNECT_UNREGISTER_CLOSE_CALLBACK)
    def unregisterCloseCallback(self, connection: RemoteConnection, payload: bytes) -> bytes:
        """
        The client does not want to be told any more.
        """
        connection.closeCallbackRegistered = False
        return b""
