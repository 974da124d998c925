"""
How a client comes to be open, as the server sees it, without I/O.

Everything that decides what a client may do next stands in this file: a table, L{TRANSITIONS}, and
the questions to the policy.  The client authenticates first, then asks for keepalive, by which it
says that it answers pings, then sends C{CONNECT_OPEN}.  Because it asks before it opens, keepalive
can be mandatory.  The client's own side is L{kaproto.client.negotiation}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType, NoneType
from typing import Final

from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
)
from kaproto.interfaces import Admission, IKeepAlivePolicy, OpenRequest, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.peer import Peer
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
    "PolicyFailed",
    "ServerNegotiation",
]


class Phase(Enum):
    """
    How far a connection has come, as the server sees it.

    @cvar CONNECTED: the peer has not been accepted by its certificate; no message is looked at.
    @cvar AUTHENTICATING: it has to log in.
    @cvar READY: it may open.
    @cvar REJECTING: its calls are answered with an error.  When the server is full, the connection
        is closed after the first.
    @cvar OPENING: the policy has admitted it, and the backend opens.
    @cvar OPENED: the backend has opened, and the client has not been told.
    @cvar OPEN: it may call everything.
    @cvar DRAINING: the server stops.  Calls that were accepted before are finished.
    @cvar STOPPING: the same for a client that is not open.  What is under way is answered.
    @cvar CLOSING: the connection closes when the call that is being answered has been.
    """

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
    What takes a connection from one L{Phase} to another.
    """

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
Every change of phase there is.
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


def _notOpen() -> RemoteError:
    return rpcError("internal error: hypervisor connection not open", ErrorCode.INTERNAL_ERROR)


PolicyFailed = Callable[[str, str, Peer, Exception], None]
"""
A function that is told of a policy's failure: the policy's name, the name of its method, the peer,
and the error.
"""


class _PolicyFailed(Exception):
    """
    The policy raised an error or returned nonsense.
    """


class ServerNegotiation:
    """
    One connection's way to being open, as the server sees it.

    @ivar phase: how far it has come.
    @ivar peer: the other end.
    @ivar terms: the interval and count at which the policy wants the peer pinged, once it has
        asked for keepalive; C{None} not to ping it.
    @ivar full: whether the server had no room for it when it connected.
    @ivar farewell: why the connection closes, once it is L{Phase.CLOSING}.
    """

    __slots__ = (
        "_openTimeLeft",
        "_policy",
        "_policyFailed",
        "_rejection",
        "farewell",
        "full",
        "peer",
        "phase",
        "terms",
    )

    def __init__(
        self,
        peer: Peer,
        policy: IKeepAlivePolicy,
        policyFailed: PolicyFailed = lambda _policy, _question, _peer, _error: None,
    ) -> None:
        """
        @param policyFailed: called when the policy raises an error, and with a L{TypeError} when
            it returns nonsense.
        """
        self.peer = peer
        self.terms: KeepAlive | None = None
        self._policyFailed = policyFailed
        self.phase = Phase.CONNECTED
        self.full = False
        self.farewell: Exception = ConnectionClosed("the client closed the connection")
        self._policy = policy
        self._rejection: RemoteError | None = None
        self._openTimeLeft: float | None = None

    def advance(self, event: Event) -> None:
        """
        Go where L{TRANSITIONS} says.

        @raise LocalProtocolError: when the event has no place in this phase.
        """
        phase = TRANSITIONS[self.phase].get(event)
        if phase is None:
            raise LocalProtocolError(f"{event.value} while {self.phase.value}")
        self.phase = phase

    @property
    def isOpen(self) -> bool:
        """
        Whether everything may be called.
        """
        return self.phase in _IS_OPEN

    @property
    def isStopping(self) -> bool:
        """
        Whether the connection closes when nothing is under way any more.
        """
        return self.phase in _IS_STOPPING

    def accepted(self, limits: Limits, *, login: bool) -> None:
        """
        The transport is accepted: by the certificate, or because it needs none.

        @param login: whether the peer has to log in.
        """
        full = limits.maxClients if self.full else 0
        if full:
            self.reject(
                rpcError(
                    f"operation failed: the server has its {full} clients (--max-clients); try "
                    "later",
                    ErrorCode.OPERATION_FAILED,
                ),
                AuthenticationFailed(f"one more than {full} clients (--max-clients)"),
            )
        else:
            self.advance(Event.LOGIN_NEEDED if login else Event.ACCEPTED)

    def reject(self, error: RemoteError, farewell: Exception) -> None:
        """
        Answer the peer's calls with an error.

        @param farewell: why the connection closes.
        """
        self.advance(Event.TURNED_AWAY)
        self._rejection, self.farewell = error, farewell

    def end(self, farewell: Exception) -> None:
        """
        Close the connection when the call that is being answered has been.

        @param farewell: why, unless there is a reason already.
        """
        if self.phase is not Phase.CLOSING:
            self.farewell = farewell
        self.advance(Event.ENDING)

    def messageLimit(self, limits: Limits) -> int:
        """
        @return: the size of the longest message accepted now, in bytes.
        """
        if self.isOpen:
            return MESSAGE_MAX
        if self.phase in (Phase.CONNECTED, Phase.AUTHENTICATING):
            return limits.messageBeforeLogin
        return limits.messageBeforeOpen

    def deadline(self, limits: Limits) -> tuple[float, str, float, str] | None:
        """
        @return: the seconds that the peer has for its next step, what it will not have done by
            then, the seconds it had at first, and kaserver's setting for them; C{None} when there
            is no such step.
        """
        match self.phase:
            case Phase.CONNECTED:
                timeout, setting = limits.handshakeTimeout, "handshake-timeout"
                expected = "it did not complete the TLS handshake"
            case Phase.AUTHENTICATING:
                timeout, setting = limits.loginTimeout, "auth-timeout"
                expected = "it did not log in"
            case Phase.READY | Phase.REJECTING:
                # It is the sum of all tries: while the backend opens it does not run, and when
                # that fails it goes on where it was.
                left = self._openTimeLeft
                timeout, expected = limits.openTimeout, "it did not open the connection"
                return timeout if left is None else left, expected, timeout, "open-timeout"
            case _:
                return None
        return timeout, expected, timeout, setting

    def receive(self) -> None:
        """
        A call came: find out whether any may come now.

        @raise RemoteError: the answer to give when none may.
        @raise RemoteProtocolError: when the peer has not been accepted.
        """
        if self.phase is Phase.CONNECTED:
            raise RemoteProtocolError("a message before its certificate was accepted")
        if self.phase is Phase.REJECTING and self._rejection is not None:
            if self.full:
                self.advance(Event.REFUSED)
            # Others may have written their next call already.  C{virt-admin} tells no refusal when
            # it finds the connection closed as it writes: the signal for that ends it.
            raise self._rejection
        if self.isStopping:
            raise rpcError("internal error: the server is shutting down", ErrorCode.INTERNAL_ERROR)

    def check(self, program: int, procedure: int) -> None:
        """
        A call is about to start: find out whether this one may.

        @raise RemoteError: the answer to give when it may not.
        """
        remote = program == REMOTE_PROGRAM
        if self.phase is Phase.AUTHENTICATING and not (remote and procedure in _AUTHENTICATION):
            raise rpcError("authentication required")
        if not self.isOpen and not (remote and procedure in _BEFORE_OPEN):
            raise _notOpen()

    def supportsFeature(self, feature: int) -> bool:
        """
        The peer asks for a feature.  Asking for keepalive, and being answered 1, is what puts it
        on record as a client that answers pings.  When the policy fails, it has not asked.

        @return: whether this end has it.
        @raise RemoteError: for the other features, which a connection has only when it is open.
        """
        if feature == Feature.PROGRAM_KEEPALIVE:
            self.terms = None
            self.peer.asked = True
            try:
                self.peer.asked = self._ask("advertises", bool) is True
                if self.peer.asked:
                    terms = self._ask("keepAlive", KeepAlive, NoneType)
                    self.terms = terms if isinstance(terms, KeepAlive) else None
            except _PolicyFailed:
                self.peer.asked = False
            return self.peer.asked
        if not self.isOpen:
            raise _notOpen()
        return feature == Feature.REMOTE_CLOSE_CALLBACK

    def keepAlive(self) -> KeepAlive | None:
        """
        @return: the policy's interval and count for the peer, whether it has asked for keepalive
            or not; C{None} when there are none, or the policy fails.
        """
        try:
            terms = self._ask("keepAlive", KeepAlive, NoneType)
        except _PolicyFailed:
            return None
        return terms if isinstance(terms, KeepAlive) else None

    def _admit(self) -> Admission | Refused:
        try:
            answer = self._ask("admit", Admission, Refused)
        except _PolicyFailed:
            return Refused(
                "operation failed: the server could not decide whether this client may open, "
                "because its keepalive policy failed; the server's log has the reason"
            )
        assert isinstance(answer, Admission | Refused)
        return answer

    def _ask(self, question: str, *kinds: type) -> object:
        """
        @param question: the name of a method of the policy's.
        @param kinds: the types that it may return.
        @raise _PolicyFailed: when it does not.
        """
        try:
            answer: object = getattr(self._policy, question)(self.peer)
        except Exception as error:
            problem = error
        else:
            if isinstance(answer, kinds):
                return answer
            problem = TypeError(f"{question}() returned {answer!r}")
        self._policyFailed(self.policyName, question, self.peer, problem)
        raise _PolicyFailed from problem

    @property
    def policyName(self) -> str:
        """
        What log lines call the policy.
        """
        return str(getattr(self._policy, "name", "")) or type(self._policy).__qualname__

    def openAtOnce(self) -> Admission | RemoteError:
        """
        Open without being asked, for programs that know no C{CONNECT_OPEN}.

        @return: the policy's admission, or its refusal, which answers the peer's calls until it
            leaves or its time is over.
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
        The peer wants to open.

        @param timeLeft: the seconds it has left to do so, if that is bounded.
        @return: what it wants, and the policy's word.
        @raise RemoteError: the answer to give when it may not.  In L{Phase.CLOSING} the policy
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
            self.farewell = rpcError(answer.message, ErrorCode.OPERATION_FAILED)
            raise self.farewell
        self._openTimeLeft = timeLeft
        if self.peer.readOnly or answer.readOnly:
            request = request.forReading()
        self.peer.readOnly = request.readOnly
        self.advance(Event.ADMITTED)
        return request, answer
