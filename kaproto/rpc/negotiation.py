"""
The order in which a connection comes to be open, for both ends, without I/O.

The server's side is a table, L{TRANSITIONS}; the client's is a coroutine, L{negotiate}.
Authentication comes first, then the feature check by which a client says that it answers pings,
then C{CONNECT_OPEN}.  That the check comes before is what makes mandatory keepalive possible.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from kaproto.errors import LocalProtocolError, RemoteError
from kaproto.interfaces import Admission, IKeepAlivePolicy, OpenRequest, Refused
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.wire.message import MESSAGE_MAX, rpcError
from kaproto.wire.programs import (
    REMOTE_PROGRAM,
    ErrorCode,
    Feature,
    Procedure,
)
from kaproto.wire.xdr import Packer, Unpacker

__all__ = [
    "TRANSITIONS",
    "Event",
    "Phase",
    "ServerNegotiation",
    "negotiate",
]


class Phase(Enum):
    """
    How far a connection has come, as the server sees it.
    """

    AUTHENTICATING = "authenticating"
    READY = "ready"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"


class Event(Enum):
    """
    What takes a connection from one L{Phase} to another.
    """

    AUTHENTICATED = "authenticated"
    ADMITTED = "admitted"
    OPENED = "opened"
    OPEN_FAILED = "open failed"
    REFUSED = "refused"
    ENDING = "ending"


TRANSITIONS: Final[Mapping[Phase, Mapping[Event, Phase]]] = MappingProxyType(
    {
        Phase.AUTHENTICATING: {
            Event.AUTHENTICATED: Phase.READY,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.READY: {
            Event.ADMITTED: Phase.OPENING,
            Event.REFUSED: Phase.CLOSING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.OPENING: {
            Event.OPENED: Phase.OPEN,
            Event.OPEN_FAILED: Phase.READY,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.OPEN: {
            Event.ENDING: Phase.CLOSING,
        },
        Phase.CLOSING: {
            Event.ENDING: Phase.CLOSING,
        },
    }
)
"""
Every change of phase there is.  In C{CLOSING} nothing is answered any more.
"""

_AUTHENTICATION: Final = frozenset(
    {
        Procedure.AUTH_LIST,
        Procedure.AUTH_SASL_INIT,
        Procedure.AUTH_SASL_START,
        Procedure.AUTH_SASL_STEP,
        Procedure.AUTH_POLKIT,
    }
)

_BEFORE_OPEN: Final = _AUTHENTICATION | {
    Procedure.CONNECT_OPEN,
    Procedure.CONNECT_CLOSE,
    Procedure.CONNECT_SUPPORTS_FEATURE,
}


def _notOpen() -> RemoteError:
    return rpcError("internal error: hypervisor connection not open", ErrorCode.INTERNAL_ERROR)


class ServerNegotiation:
    """
    One connection's way to being open, as the server sees it.

    @ivar phase: how far it has come.
    @ivar peer: the other end.
    """

    __slots__ = ("_policy", "_refusal", "peer", "phase")

    def __init__(self, peer: Peer, policy: IKeepAlivePolicy, *, authenticate: bool) -> None:
        """
        @param authenticate: whether the peer has to authenticate.
        """
        self.peer = peer
        self.phase = Phase.AUTHENTICATING if authenticate else Phase.READY
        self._policy = policy
        self._refusal: RemoteError | None = None

    def advance(self, event: Event) -> None:
        """
        Go where L{TRANSITIONS} says.

        @raise LocalProtocolError: when the event has no place in this phase.
        """
        phase = TRANSITIONS[self.phase].get(event)
        if phase is None:
            raise LocalProtocolError(f"{event.value} while {self.phase.value}")
        self.phase = phase

    def messageLimit(self, limits: Limits) -> int:
        """
        @return: the size of the longest message accepted now, in bytes.
        """
        if self.phase is Phase.AUTHENTICATING:
            return limits.messageBeforeLogin
        if self.phase is Phase.OPEN:
            return MESSAGE_MAX
        return limits.messageBeforeOpen

    def check(self, program: int, procedure: int) -> None:
        """
        Find out whether a procedure may be called now.

        @raise RemoteError: the answer to give when it may not.
        """
        if self._refusal is not None and self.phase is not Phase.CLOSING:
            self.advance(Event.REFUSED)
            raise self._refusal
        remote = program == REMOTE_PROGRAM
        if self.phase is Phase.AUTHENTICATING and not (remote and procedure in _AUTHENTICATION):
            raise rpcError("authentication required")
        if self.phase is not Phase.OPEN and not (remote and procedure in _BEFORE_OPEN):
            raise _notOpen()

    def supportsFeature(self, feature: int) -> bool:
        """
        The peer asks for a feature.  Asking for keepalive is what puts it on record as a client
        that answers pings.

        @return: whether this end has it.
        @raise RemoteError: for the other features, which a connection has only when it is open.
        """
        if feature == Feature.PROGRAM_KEEPALIVE:
            self.peer.asked = True
            return self._policy.advertises(self.peer)
        if self.phase is not Phase.OPEN:
            raise _notOpen()
        return feature == Feature.REMOTE_CLOSE_CALLBACK

    def openAtOnce(self) -> RemoteError | None:
        """
        Open without being asked, for programs that know no C{CONNECT_OPEN}.

        @return: C{None}, or the policy's refusal, which answers the peer's first call.
        """
        answer = self._policy.admit(self.peer)
        if isinstance(answer, Refused):
            self._refusal = rpcError(answer.message, ErrorCode.OPERATION_FAILED)
        else:
            self.advance(Event.ADMITTED)
            self.advance(Event.OPENED)
        return self._refusal

    def open(self, payload: bytes) -> tuple[OpenRequest, Admission]:
        """
        The peer wants to open.

        @return: what it wants, and the policy's word.
        @raise RemoteError: the answer to give when it may not.  The phase tells whether it may
            try again.
        @raise kaproto.wire.xdr.XDRError: when the payload cannot be decoded.
        """
        unpacker = Unpacker(payload)
        request = OpenRequest(unpacker.optionalString(), unpacker.uint32())
        if self.phase is not Phase.READY:
            raise rpcError("internal error: connection already open", ErrorCode.INTERNAL_ERROR)
        if request.name is None:
            raise rpcError("internal error: connection not open", ErrorCode.INTERNAL_ERROR)
        self.peer.requested = request.name
        self.peer.readOnly = request.readOnly
        answer = self._policy.admit(self.peer)
        self.peer.rule = answer.rule
        if isinstance(answer, Refused):
            self.advance(Event.REFUSED)
            raise rpcError(answer.message, ErrorCode.OPERATION_FAILED)
        self.advance(Event.ADMITTED)
        return request, answer


async def negotiate(
    call: Callable[[int, bytes], Awaitable[bytes]],
    name: str | None,
    flags: int,
    authenticate: Callable[[list[int]], Awaitable[None]],
    *,
    ask: bool = True,
) -> bool:
    """
    Open a connection, as the client: authenticate, ask for keepalive, open.

    A server that does not know the first two, as old ones do not, is opened all the same.

    @param call: calls a procedure of the remote program.
    @param name: what to open, as L{OpenRequest} has it; C{None} to authenticate only.
    @param flags: as L{OpenRequest} has them.
    @param authenticate: authenticates by one of the L{AuthType<kaproto.wire.programs.AuthType>}s
        that it is given, if it has to.
    @param ask: whether to ask for keepalive.
    @return: whether the server was asked for keepalive and has it, and so may be pinged.
    @raise RemoteError: when the server refuses.
    """
    types: list[int] = []
    try:
        listed = Unpacker(await call(Procedure.AUTH_LIST, b""))
    except RemoteError as error:
        if not _isUnknownProcedure(error):
            raise
    else:
        types = listed.array(listed.int32, _AUTH_TYPES_MAX)
    await authenticate(types)
    supported = ask and await _supportsKeepAlive(call)
    if name is not None:
        await call(Procedure.CONNECT_OPEN, Packer().optionalString(name).uint32(flags).packed())
    return supported


async def _supportsKeepAlive(call: Callable[[int, bytes], Awaitable[bytes]]) -> bool:
    feature = Packer().int32(Feature.PROGRAM_KEEPALIVE).packed()
    try:
        return Unpacker(await call(Procedure.CONNECT_SUPPORTS_FEATURE, feature)).int32() != 0
    except RemoteError:
        return False


_AUTH_TYPES_MAX: Final = 20


def _isUnknownProcedure(error: RemoteError) -> bool:
    return error.code == ErrorCode.RPC and error.message.startswith("unknown procedure")
