"""
The negotiation with a client, on the server's side, without I/O.

This file makes all decisions about the client's next step: by a table, L{TRANSITIONS}, and by the
policy.  The client authenticates first.  Then it asks for keepalive, and so promises to answer
pings.  Then it sends C{CONNECT_OPEN}.  Because it asks before it opens, keepalive can be mandatory.
The client's side is L{kaproto.client.negotiation}.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType, NoneType
from typing import Final, cast

from kaproto.errors import (
    ConnectionClosed,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
    TooManyClients,
)
from kaproto.interfaces import Admission, OpenRequest, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.rpc.policycheck import PolicyCheck, PolicyFailed
from kaproto.wire.message import MESSAGE_MAX, rpcError
from kaproto.wire.programs import (
    REMOTE_PROGRAM,
    ErrorCode,
    Feature,
    Procedure,
)
from kaproto.wire.xdr import Unpacker

__all__ = [
    "TRANSITIONS",
    "Event",
    "Phase",
    "ServerNegotiation",
]


class Phase(Enum):
    """
    A connection's phase, as the server sees it.

    @cvar CONNECTED: the client's certificate has not been checked.  No message is processed.
    @cvar AUTHENTICATING: the client has to log in.
    @cvar READY: the client may open.
    @cvar REJECTING: the client's calls are answered with an error.  When the server is full, the
        connection is closed after the first.
    @cvar OPENING: the policy has admitted the client, and the backend is opening.
    @cvar OPENED: the backend has opened, and the reply has not been sent to the client.
    @cvar OPEN: the client may call every procedure.
    @cvar DRAINING: the server is stopping, and finishes the calls that it accepted before.
    @cvar STOPPING: the server is stopping, and the client is not open.
    @cvar CLOSING: the connection closes after the reply to the current call.
    """

    # The default hash is computed from the name, in Python, at each look-up.
    __hash__ = object.__hash__

    CONNECTED = "connected"
    AUTHENTICATING = "authenticating"
    READY = "ready"
    REJECTING = "rejecting"
    OPENING = "opening"
    OPENED = "opened"
    OPEN = "open"
    DRAINING = "draining"
    STOPPING = "stopping"
    CLOSING = "closing"


class Event(Enum):
    """
    The events that change a connection's L{Phase}.
    """

    __hash__ = object.__hash__

    ACCEPTED = "accepted"
    LOGIN_NEEDED = "login needed"
    AUTHENTICATED = "authenticated"
    TURNED_AWAY = "turned away"
    ADMITTED = "admitted"
    REFUSED = "refused"
    OPENED = "opened"
    OPEN_FAILED = "open failed"
    ANSWERED = "answered"
    STOPPING = "stopping"
    ENDING = "ending"


TRANSITIONS: Final[Mapping[Phase, Mapping[Event, Phase]]] = MappingProxyType(
    {
        Phase.CONNECTED: {
            Event.ACCEPTED: Phase.READY,
            Event.LOGIN_NEEDED: Phase.AUTHENTICATING,
            Event.TURNED_AWAY: Phase.REJECTING,
            Event.STOPPING: Phase.STOPPING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.AUTHENTICATING: {
            Event.AUTHENTICATED: Phase.READY,
            Event.STOPPING: Phase.STOPPING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.READY: {
            Event.ADMITTED: Phase.OPENING,
            Event.REFUSED: Phase.CLOSING,
            Event.TURNED_AWAY: Phase.REJECTING,
            Event.STOPPING: Phase.STOPPING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.REJECTING: {
            Event.REFUSED: Phase.CLOSING,
            Event.STOPPING: Phase.STOPPING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.OPENING: {
            Event.OPENED: Phase.OPENED,
            Event.OPEN_FAILED: Phase.READY,
            Event.STOPPING: Phase.STOPPING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.OPENED: {
            Event.ANSWERED: Phase.OPEN,
            Event.STOPPING: Phase.STOPPING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.OPEN: {
            Event.STOPPING: Phase.DRAINING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.DRAINING: {
            Event.STOPPING: Phase.DRAINING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.STOPPING: {
            Event.AUTHENTICATED: Phase.STOPPING,
            Event.OPENED: Phase.STOPPING,
            Event.OPEN_FAILED: Phase.STOPPING,
            Event.STOPPING: Phase.STOPPING,
            Event.ENDING: Phase.CLOSING,
        },
        Phase.CLOSING: {
            Event.AUTHENTICATED: Phase.CLOSING,
            Event.OPENED: Phase.CLOSING,
            Event.OPEN_FAILED: Phase.CLOSING,
            Event.STOPPING: Phase.CLOSING,
            Event.ENDING: Phase.CLOSING,
        },
    }
)
"""
Every change of phase.
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

_IS_OPEN: Final = frozenset({Phase.OPEN, Phase.DRAINING})
_IS_STOPPING: Final = frozenset({Phase.DRAINING, Phase.STOPPING})
_IS_STRANGE: Final = frozenset({Phase.CONNECTED, Phase.AUTHENTICATING})
_TAKES_CALLS: Final = frozenset(Phase) - _IS_STOPPING - {Phase.CONNECTED, Phase.REJECTING}

_TO_OPEN: Final = ("openTimeout", "open-timeout", "it did not open the connection")
_DEADLINES: Final[Mapping[Phase, tuple[str, str, str]]] = {
    Phase.CONNECTED: (
        "handshakeTimeout",
        "handshake-timeout",
        "it did not complete the TLS handshake",
    ),
    Phase.AUTHENTICATING: ("loginTimeout", "auth-timeout", "it did not log in"),
    Phase.READY: _TO_OPEN,
    Phase.REJECTING: _TO_OPEN,
}
"""
For each phase with a deadline: the limit, kaserver's setting for it, and the step that the peer
missed, for the error.
"""


def _notOpen() -> RemoteError:
    return rpcError("internal error: hypervisor connection not open", ErrorCode.INTERNAL_ERROR)


class ServerNegotiation:
    """
    The negotiation with one client, as the server sees it.

    @ivar phase: the connection's phase.
    @ivar peer: the client.
    @ivar policy: decides whether the peer may open, and how it is pinged.
    @ivar terms: the policy's interval and count for a peer that has asked for keepalive; C{None}
        not to ping it.
    @ivar full: whether the server was full when the peer connected.
    """

    __slots__ = (
        "_farewell",
        "_openTimeLeft",
        "_rejection",
        "full",
        "peer",
        "phase",
        "policy",
        "terms",
    )

    def __init__(self, peer: Peer, policy: PolicyCheck) -> None:
        self.peer = peer
        self.terms: KeepAlive | None = None
        self.phase = Phase.CONNECTED
        self.full = False
        self._farewell: Exception | None = None
        self.policy = policy
        self._rejection: RemoteError | None = None
        self._openTimeLeft: float | None = None

    def advance(self, event: Event) -> None:
        """
        Change the phase as L{TRANSITIONS} says.

        @raise LocalProtocolError: when the event is impossible in this phase.
        """
        phase = TRANSITIONS[self.phase].get(event)
        if phase is None:
            raise LocalProtocolError(f"{event.value} while {self.phase.value}")
        self.phase = phase

    @property
    def farewell(self) -> Exception:
        """
        Why the connection closes, in L{Phase.CLOSING}.
        """
        return self._farewell or ConnectionClosed("the client closed the connection")

    @property
    def isOpen(self) -> bool:
        """
        Whether the peer may call every procedure.
        """
        return self.phase in _IS_OPEN

    @property
    def isStopping(self) -> bool:
        """
        Whether the connection closes as soon as no call is under way.
        """
        return self.phase in _IS_STOPPING

    def accepted(self, limits: Limits, *, login: bool) -> None:
        """
        The peer's certificate is accepted, or it needs none.

        @param login: whether the peer has to log in.
        """
        full = limits.maxClients if self.full else 0
        if full:
            self.reject(
                rpcError(
                    f"operation failed: the server has reached its limit of {full} clients "
                    "(--max-clients); try again later",
                    ErrorCode.OPERATION_FAILED,
                ),
                TooManyClients(f"the limit of {full} clients is reached (--max-clients)"),
            )
        else:
            self.advance(Event.LOGIN_NEEDED if login else Event.ACCEPTED)

    def reject(self, error: RemoteError, farewell: Exception) -> None:
        """
        Answer the peer's calls with an error.

        @param farewell: why the connection closes.
        """
        self.advance(Event.TURNED_AWAY)
        self._rejection, self._farewell = error, farewell

    def end(self, farewell: Exception) -> None:
        """
        Close the connection after the reply to the current call.

        @param farewell: the reason; ignored if there is one already.
        """
        if self.phase is not Phase.CLOSING:
            self._farewell = farewell
        self.advance(Event.ENDING)

    def messageLimit(self, limits: Limits) -> int:
        """
        @return: the size of the longest message accepted now, in bytes.
        """
        if self.phase in _IS_OPEN:
            return MESSAGE_MAX
        if self.phase in _IS_STRANGE:
            return limits.messageBeforeLogin
        return limits.messageBeforeOpen

    def deadline(self, limits: Limits) -> tuple[float, str, float, str] | None:
        """
        @return: the seconds left for the peer's next step; the step that it failed to take, for the
            error; the seconds allowed in all; kaserver's setting for them.  C{None} in phases
            without a deadline.
        """
        terms = _DEADLINES.get(self.phase)
        if terms is None:
            return None
        limit, setting, expected = terms
        timeout: float = getattr(limits, limit)
        # All attempts to open share this time.  It stops while the backend opens, and continues if
        # that fails.
        left = self._openTimeLeft
        return timeout if left is None else left, expected, timeout, setting

    def receive(self) -> None:
        """
        A call arrived: check whether any call is acceptable now.

        @raise RemoteError: the error to answer if none is.
        @raise RemoteProtocolError: when the peer has not been accepted.
        """
        if self.phase in _TAKES_CALLS:
            return
        if self.phase is Phase.CONNECTED:
            raise RemoteProtocolError("a message before its certificate was accepted")
        if self.phase is Phase.REJECTING and self._rejection is not None:
            if self.full:
                self.advance(Event.REFUSED)
            # Otherwise stay connected: a client may be writing its next call.  If the connection
            # were closed by then, SIGPIPE would kill C{virt-admin} before it prints the error.
            raise self._rejection
        if self.isStopping:
            raise rpcError("internal error: the server is shutting down", ErrorCode.INTERNAL_ERROR)

    def check(self, program: int, procedure: int) -> None:
        """
        A call is about to start: check whether this procedure may be called now.

        @raise RemoteError: the error to answer if it may not.
        """
        remote = program == REMOTE_PROGRAM
        if self.phase is Phase.AUTHENTICATING and not (remote and procedure in _AUTHENTICATION):
            raise rpcError("authentication required")
        if self.phase not in _IS_OPEN and not (remote and procedure in _BEFORE_OPEN):
            raise _notOpen()

    def supportsFeature(self, feature: int) -> bool:
        """
        The peer asks for a feature.  A peer that asks for keepalive and gets the answer 1 is
        recorded as answering pings.  If the policy fails, the answer is 0.

        @return: whether this end has the feature.
        @raise RemoteError: for other features before the connection is open.
        """
        if feature == Feature.PROGRAM_KEEPALIVE:
            self.terms = None
            self.peer.asked = True
            try:
                self.peer.asked = self.policy.ask("advertises", self.peer, bool) is True
                if self.peer.asked:
                    terms = self.policy.ask("keepAlive", self.peer, KeepAlive, NoneType)
                    self.terms = terms if isinstance(terms, KeepAlive) else None
            except PolicyFailed:
                self.peer.asked = False
            return self.peer.asked
        if not self.isOpen:
            raise _notOpen()
        return feature == Feature.REMOTE_CLOSE_CALLBACK

    def keepAlive(self) -> KeepAlive | None:
        """
        @return: the policy's interval and count for the peer, even if it has not asked for
            keepalive; C{None} if the policy gives none or fails.
        """
        try:
            terms = self.policy.ask("keepAlive", self.peer, KeepAlive, NoneType)
        except PolicyFailed:
            return None
        return terms if isinstance(terms, KeepAlive) else None

    def _admit(self) -> Admission | Refused:
        try:
            answer = self.policy.ask("admit", self.peer, Admission, Refused)
            return cast("Admission | Refused", answer)
        except PolicyFailed:
            return Refused(
                "operation failed: the server could not decide whether this client may open, "
                "because its keepalive policy failed; the server's log has the reason"
            )

    def openAtOnce(self) -> Admission | RemoteError:
        """
        Open without a call, for programs that have no C{CONNECT_OPEN}.

        @return: the policy's admission; or its refusal, which answers the peer's calls until it
            leaves or misses its deadline.
        """
        answer = self._admit()
        if isinstance(answer, Refused):
            refusal = rpcError(answer.message, ErrorCode.OPERATION_FAILED)
            self.reject(refusal, refusal)
            return refusal
        for event in (Event.ADMITTED, Event.OPENED, Event.ANSWERED):
            self.advance(event)
        return answer

    def open(self, payload: bytes, timeLeft: float | None = None) -> tuple[OpenRequest, Admission]:
        """
        The peer has called C{CONNECT_OPEN}.

        @param timeLeft: the seconds left of its deadline, if there is one.
        @return: its request, and the policy's admission.
        @raise RemoteError: the error to answer if it may not open.  In L{Phase.CLOSING} the policy
            has refused it; otherwise it may try again.
        @raise kaproto.wire.xdr.XDRError: when the payload cannot be decoded.
        """
        unpacker = Unpacker(payload)
        request = OpenRequest(unpacker.optionalString(), unpacker.uint32())
        if self.phase is not Phase.READY:
            raise rpcError("internal error: connection already open", ErrorCode.INTERNAL_ERROR)
        if request.name is None:
            raise rpcError("internal error: connection not open", ErrorCode.INTERNAL_ERROR)
        self.peer.requested = request.name
        answer = self._admit()
        self.peer.rule = answer.rule
        if isinstance(answer, Refused):
            self.advance(Event.REFUSED)
            self._farewell = refusal = rpcError(answer.message, ErrorCode.OPERATION_FAILED)
            raise refusal
        self._openTimeLeft = timeLeft
        if self.peer.readOnly or answer.readOnly:
            request = request.forReading()
        self.peer.readOnly = request.readOnly
        self.advance(Event.ADMITTED)
        return request, answer
