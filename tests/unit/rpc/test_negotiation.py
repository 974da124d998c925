"""
Tests for L{kaproto.rpc.negotiation}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import (
    ConnectionClosed,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
)
from kaproto.interfaces import ADMITTED, Admission, OpenRequest, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import Mandatory, Optional, Policy, refusalFor
from kaproto.rpc.negotiation import (
    TRANSITIONS,
    Event,
    Phase,
    ServerNegotiation,
)
from kaproto.rpc.policycheck import PolicyCheck
from kaproto.wire.message import MESSAGE_MAX, rpcError
from kaproto.wire.programs import KEEPALIVE_PROGRAM, QEMU_PROGRAM, REMOTE_PROGRAM
from kaproto.wire.xdr import Packer, XDRError
from tests.strategies import UINT32, texts

AUTHENTICATION = {66, 67, 68, 69, 70}
BEFORE_OPEN = AUTHENTICATION | {1, 2, 60}

TO_OPENING = [Event.LOGIN_NEEDED, Event.AUTHENTICATED, Event.ADMITTED]
TO_OPEN = [*TO_OPENING, Event.OPENED, Event.ANSWERED]

REACHED_BY: Mapping[Phase, list[Event]] = {
    Phase.CONNECTED: [],
    Phase.AUTHENTICATING: [Event.LOGIN_NEEDED],
    Phase.READY: [Event.LOGIN_NEEDED, Event.AUTHENTICATED],
    Phase.REJECTING: [Event.TURNED_AWAY],
    Phase.OPENING: TO_OPENING,
    Phase.OPENED: [*TO_OPENING, Event.OPENED],
    Phase.OPEN: TO_OPEN,
    Phase.DRAINING: [*TO_OPEN, Event.STOPPING],
    Phase.STOPPING: [Event.ACCEPTED, Event.STOPPING],
    Phase.CLOSING: [Event.ENDING],
}
"""
The events that lead to each phase.
"""


def negotiationIn(phase: Phase, policy: Policy | None = None) -> ServerNegotiation:
    """
    Create a negotiation in a phase.
    """
    negotiation = ServerNegotiation(Peer(), PolicyCheck(policy or Policy()))
    for event in REACHED_BY[phase]:
        negotiation.advance(event)
    assert negotiation.phase is phase
    return negotiation


def openPayload(name: str | None = "test:///default", flags: int = 0) -> bytes:
    """
    Pack the arguments of C{CONNECT_OPEN}.
    """
    return Packer().optionalString(name).uint32(flags).packed()


class TransitionsTests(SynchronousTestCase):
    """
    Tests for the transition table.
    """

    def test_everyPhase(self) -> None:
        """
        Every phase has a row, and can be reached.
        """
        self.assertEqual(set(TRANSITIONS), set(Phase))
        reached = {Phase.CONNECTED}
        for _ in Phase:
            reached |= {
                TRANSITIONS[phase][event] for phase in reached for event in TRANSITIONS[phase]
            }
        self.assertEqual(reached, set(Phase))

    def test_everyEvent(self) -> None:
        """
        Every event is valid in some phase.
        """
        self.assertEqual({event for row in TRANSITIONS.values() for event in row}, set(Event))

    def test_endingIsAlwaysPossible(self) -> None:
        """
        A connection can end in any phase.
        """
        for phase in Phase:
            self.assertIs(TRANSITIONS[phase][Event.ENDING], Phase.CLOSING)

    def test_closingIsForEver(self) -> None:
        """
        No event leaves the closing phase.
        """
        self.assertEqual(set(TRANSITIONS[Phase.CLOSING].values()), {Phase.CLOSING})

    def test_openOnlyThroughAdmission(self) -> None:
        """
        A connection opens only after admission, and an authenticating client must log in first.
        """
        ways = [
            (phase, event)
            for phase, row in TRANSITIONS.items()
            for event, result in row.items()
            if result in (Phase.OPENING, Phase.OPENED, Phase.OPEN)
        ]
        self.assertEqual(
            ways,
            [
                (Phase.READY, Event.ADMITTED),
                (Phase.OPENING, Event.OPENED),
                (Phase.OPENED, Event.ANSWERED),
            ],
        )
        self.assertEqual(
            TRANSITIONS[Phase.AUTHENTICATING],
            {
                Event.AUTHENTICATED: Phase.READY,
                Event.STOPPING: Phase.STOPPING,
                Event.ENDING: Phase.CLOSING,
            },
        )

    def test_anotherTry(self) -> None:
        """
        A client whose open failed may try again; a client that was refused may not.
        """
        self.assertIs(TRANSITIONS[Phase.OPENING][Event.OPEN_FAILED], Phase.READY)
        self.assertIs(TRANSITIONS[Phase.READY][Event.REFUSED], Phase.CLOSING)

    def test_impossible(self) -> None:
        """
        An event that is impossible in a phase raises an error that names both.
        """
        negotiation = ServerNegotiation(Peer(), PolicyCheck(Policy()))
        error = self.assertRaises(LocalProtocolError, negotiation.advance, Event.ANSWERED)
        self.assertEqual(str(error), "answered while connected")
        self.assertIs(negotiation.phase, Phase.CONNECTED)

    @given(st.lists(st.sampled_from(Event), max_size=20))
    def test_anyEvents(self, events: list[Event]) -> None:
        """
        An event that is invalid in a phase raises an error that names both, and changes nothing.
        Valid events follow the table.
        """
        negotiation = ServerNegotiation(Peer(), PolicyCheck(Policy()))
        phase = Phase.CONNECTED
        for event in events:
            if event in TRANSITIONS[phase]:
                negotiation.advance(event)
                phase = TRANSITIONS[phase][event]
            else:
                error = self.assertRaises(LocalProtocolError, negotiation.advance, event)
                self.assertEqual(str(error), f"{event.value} while {phase.value}")
            self.assertIs(negotiation.phase, phase)

    def test_messageLimit(self) -> None:
        """
        Only an open client may send messages of the protocol's full length.  While it is being
        opened, the earlier limit applies.
        """
        limits = Limits(messageBeforeLogin=100, messageBeforeOpen=200)
        expected = {
            Phase.CONNECTED: 100,
            Phase.AUTHENTICATING: 100,
            Phase.OPEN: MESSAGE_MAX,
            Phase.DRAINING: MESSAGE_MAX,
        }
        negotiation = ServerNegotiation(Peer(), PolicyCheck(Policy()))
        for phase in Phase:
            negotiation.phase = phase
            self.assertEqual(negotiation.messageLimit(limits), expected.get(phase, 200), phase)


class CheckTests(SynchronousTestCase):
    """
    Tests for the procedures that may be called in each phase.
    """

    def allowed(self, phase: Phase, program: int = REMOTE_PROGRAM) -> tuple[set[int], set[str]]:
        """
        Check all procedures of a program.

        @return: the allowed ones, and the errors for the others.
        """
        negotiation = negotiationIn(phase)
        allowed = set()
        errors = set()
        for procedure in range(-1, 450):
            try:
                negotiation.check(program, procedure)
            except RemoteError as error:
                errors.add(str(error))
            else:
                allowed.add(procedure)
        self.assertIs(negotiation.phase, phase)
        return allowed, errors

    def test_beforeAuthentication(self) -> None:
        """
        Before authentication only the authentication procedures are allowed.
        """
        refused = {"authentication required (code 39, domain 7, level 2)"}
        self.assertEqual(self.allowed(Phase.AUTHENTICATING), (AUTHENTICATION, refused))
        self.assertEqual(self.allowed(Phase.AUTHENTICATING, QEMU_PROGRAM), (set(), refused))

    def test_beforeOpen(self) -> None:
        """
        Before the connection is open, only authentication, the feature check, open and close are
        allowed, and no other program.
        """
        refused = {"internal error: hypervisor connection not open (code 1, domain 7, level 2)"}
        for phase in set(Phase) - {Phase.AUTHENTICATING, Phase.OPEN, Phase.DRAINING}:
            self.assertEqual(self.allowed(phase), (BEFORE_OPEN, refused))
            self.assertEqual(self.allowed(phase, QEMU_PROGRAM), (set(), refused))

    def test_open(self) -> None:
        """
        On an open connection everything is allowed, even while the server drains.
        """
        for phase in (Phase.OPEN, Phase.DRAINING):
            for program in (REMOTE_PROGRAM, QEMU_PROGRAM, KEEPALIVE_PROGRAM, 0x20304050):
                self.assertEqual(self.allowed(phase, program), (set(range(-1, 450)), set()))


class AcceptedTests(SynchronousTestCase):
    """
    Tests for a transport that has been accepted.
    """

    def accept(self, *, login: bool = False, full: bool = False) -> ServerNegotiation:
        """
        Accept a peer on a server for one client.
        """
        negotiation = ServerNegotiation(Peer(), PolicyCheck(Policy()))
        negotiation.full = full
        negotiation.accepted(Limits(maxClients=1), login=login)
        return negotiation

    def test_phases(self) -> None:
        """
        An accepted peer has to log in, or may open.
        """
        self.assertIs(self.accept(login=True).phase, Phase.AUTHENTICATING)
        self.assertIs(self.accept().phase, Phase.READY)

    def test_full(self) -> None:
        """
        On a full server the first call, whichever it is, is answered with an error, and the
        connection closes.
        """
        for login in (False, True):
            negotiation = self.accept(login=login, full=True)
            self.assertIs(negotiation.phase, Phase.REJECTING)
            error = self.assertRaises(RemoteError, negotiation.receive)
            self.assertEqual(error.code, 9)
            self.assertIn(
                "the server has reached its limit of 1 clients (--max-clients)", error.message
            )
            self.assertIs(negotiation.phase, Phase.CLOSING)
            self.assertIn("the limit of 1 clients is reached", str(negotiation.farewell))

    def test_roomAgain(self) -> None:
        """
        If the limit has been removed since, the client is accepted.
        """
        negotiation = ServerNegotiation(Peer(), PolicyCheck(Policy()))
        negotiation.full = True
        negotiation.accepted(Limits(), login=False)
        self.assertIs(negotiation.phase, Phase.READY)

    def test_receive(self) -> None:
        """
        A message before acceptance is a protocol error.  Calls to a stopping server are answered
        with an error.
        """
        for phase in Phase:
            negotiation = negotiationIn(phase)
            if phase is Phase.CONNECTED:
                error = self.assertRaises(RemoteProtocolError, negotiation.receive)
                self.assertIn("before its certificate was accepted", str(error))
            elif phase in (Phase.DRAINING, Phase.STOPPING):
                refusal = self.assertRaises(RemoteError, negotiation.receive)
                self.assertIn("the server is shutting down", refusal.message)
                self.assertTrue(negotiation.isStopping)
            else:
                negotiation.receive()
                self.assertFalse(negotiation.isStopping)
            self.assertIs(negotiation.phase, phase)

    def test_end(self) -> None:
        """
        The first reason to close is kept.
        """
        negotiation = negotiationIn(Phase.OPEN)
        first, second = ConnectionClosed("first"), ConnectionClosed("second")
        negotiation.end(first)
        negotiation.end(second)
        self.assertIs(negotiation.farewell, first)
        self.assertIs(negotiation.phase, Phase.CLOSING)


class DeadlineTests(SynchronousTestCase):
    """
    Tests for the deadline of each phase.
    """

    def test_phases(self) -> None:
        """
        A phase in which the peer has to act has a deadline; the others have none.
        """
        limits = Limits(handshakeTimeout=2, loginTimeout=3, openTimeout=7)
        expected = {
            Phase.CONNECTED: (2, "it did not complete the TLS handshake", 2, "handshake-timeout"),
            Phase.AUTHENTICATING: (3, "it did not log in", 3, "auth-timeout"),
            Phase.READY: (7, "it did not open the connection", 7, "open-timeout"),
            Phase.REJECTING: (7, "it did not open the connection", 7, "open-timeout"),
        }
        for phase in Phase:
            self.assertEqual(negotiationIn(phase).deadline(limits), expected.get(phase))

    def test_sum(self) -> None:
        """
        Repeated tries to open share one timeout.
        """
        limits = Limits(openTimeout=7)
        negotiation = negotiationIn(Phase.READY)
        for left in (5.5, 0.0):
            negotiation.open(openPayload(), left)
            self.assertIsNone(negotiation.deadline(limits))
            negotiation.advance(Event.OPEN_FAILED)
            expected = (left, "it did not open the connection", 7, "open-timeout")
            self.assertEqual(negotiation.deadline(limits), expected)


class Reluctant(Policy):
    """
    A policy that does not advertise keepalive.
    """

    def advertises(self, peer: Peer) -> bool:
        """
        Decline keepalive.
        """
        return False


class Broken(Policy):
    """
    A policy in which one method returns or raises what the test gives.
    """

    name = "broken"

    def __init__(self, question: str, answer: object) -> None:
        super().__init__()
        object.__setattr__(self, "answer", answer)
        object.__setattr__(self, question, self.respond)

    def respond(self, peer: Peer) -> Any:
        """
        Return or raise the given answer.
        """
        answer: object = getattr(self, "answer")  # noqa: B009
        if isinstance(answer, Exception):
            raise answer
        return answer


class SupportsFeatureTests(SynchronousTestCase):
    """
    Tests for the feature check.
    """

    def test_keepAlive(self) -> None:
        """
        A client that asks for keepalive, in any phase, is recorded as having asked if the answer is
        1.
        """
        for phase in Phase:
            for policy, answer in ((Policy(), True), (Reluctant(), False)):
                negotiation = negotiationIn(phase, policy)
                self.assertFalse(negotiation.peer.asked)
                self.assertIs(negotiation.supportsFeature(10), answer)
                self.assertIs(negotiation.peer.asked, answer)
                self.assertIs(negotiation.phase, phase)
                self.assertEqual(negotiation.terms, KeepAlive() if answer else None)

    def test_policySeesThatThePeerAsked(self) -> None:
        """
        When the policy is asked whether it advertises keepalive, C{peer.asked} is already set.
        """
        seen: list[bool] = []

        class Curious(Policy):
            def advertises(self, peer: Peer) -> bool:
                seen.append(peer.asked)
                return True

        negotiationIn(Phase.READY, Curious()).supportsFeature(10)
        self.assertEqual(seen, [True])

    def test_failingPolicy(self) -> None:
        """
        If a policy raises or returns nonsense, the answer is 0 and the peer has not asked.  The
        callback gets the policy's name, the method, the peer and the error.
        """
        told: list[tuple[str, str, Peer, Exception]] = []
        error = ZeroDivisionError("a bug")
        for question in ("advertises", "keepAlive"):
            for answer in (error, 1, "yes", 5.0, (5, 5)):
                peer = Peer()
                negotiation = ServerNegotiation(
                    peer, PolicyCheck(Broken(question, answer), lambda *each: told.append(each))
                )
                self.assertIs(negotiation.supportsFeature(10), False)
                self.assertFalse(peer.asked)
                self.assertIsNone(negotiation.terms)
                policy, method, about, why = told.pop()
                self.assertEqual((policy, method, about), ("broken", question, peer))
                expected = "a bug" if answer is error else f"{question}() returned {answer!r}"
                self.assertEqual(str(why), expected)
        self.assertEqual(told, [])

    def test_failsTheSecondTime(self) -> None:
        """
        Of several feature checks the latest answer counts.
        """
        policy = Broken("advertises", True)
        negotiation = negotiationIn(Phase.READY, policy)
        self.assertTrue(negotiation.supportsFeature(10))
        object.__setattr__(policy, "answer", None)
        self.assertFalse(negotiation.supportsFeature(10))
        self.assertFalse(negotiation.peer.asked)

    def test_otherFeatures(self) -> None:
        """
        On an open connection the close callback is supported too.  Asking for other features does
        not count as asking for keepalive.
        """
        negotiation = negotiationIn(Phase.OPEN)
        supported = [each for each in range(-1, 20) if negotiation.supportsFeature(each)]
        self.assertEqual(supported, [10, 15])
        negotiation = negotiationIn(Phase.OPEN)
        for feature in (8, 14, 15):
            negotiation.supportsFeature(feature)
        self.assertFalse(negotiation.peer.asked)

    def test_otherFeaturesBeforeOpen(self) -> None:
        """
        Before the connection is open only keepalive can be asked for.
        """
        for phase in set(Phase) - {Phase.OPEN, Phase.DRAINING}:
            for feature in (8, 14, 15):
                error = self.assertRaises(
                    RemoteError, negotiationIn(phase).supportsFeature, feature
                )
                self.assertEqual((error.code, error.domain), (1, 7))
                self.assertIn("hypervisor connection not open", error.message)


class OpenTests(SynchronousTestCase):
    """
    Tests for C{CONNECT_OPEN} on the server.
    """

    def assertFails(
        self, negotiation: ServerNegotiation, payload: bytes, code: int, message: str
    ) -> None:
        """
        Check that opening raises this error.
        """
        error = self.assertRaises(RemoteError, negotiation.open, payload)
        self.assertEqual((error.code, error.domain, error.level), (code, 7, 2))
        self.assertEqual(error.message, message)

    @given(texts(), UINT32)
    def test_admitted(self, name: str, flags: int) -> None:
        """
        An admitted peer may open any name, with any flags.
        """
        negotiation = negotiationIn(Phase.READY)
        answer = negotiation.open(openPayload(name, flags))
        self.assertEqual(answer, (OpenRequest(name, flags), ADMITTED))
        self.assertIs(negotiation.phase, Phase.OPENING)
        self.assertEqual(negotiation.peer.requested, name)
        self.assertEqual(negotiation.peer.readOnly, bool(flags & 1))

    def test_readOnly(self) -> None:
        """
        A listener or a policy can make a connection read-only: bit 0 of the flags is set, and the
        others are kept.
        """

        class Reading(Policy):
            def admit(self, peer: Peer) -> Admission | Refused:
                return Admission(readOnly=True)

        for policy, forced in ((Reading(), False), (Policy(), True)):
            negotiation = negotiationIn(Phase.READY, policy)
            negotiation.peer.readOnly = forced
            request, _admission = negotiation.open(openPayload("", 4))
            self.assertEqual(request, OpenRequest("", 5))
            self.assertTrue(negotiation.peer.readOnly)

    def test_remark(self) -> None:
        """
        In mode 1 a peer that has not asked for keepalive is admitted with a warning.
        """
        negotiation = negotiationIn(Phase.READY, Optional())
        _request, admission = negotiation.open(openPayload())
        self.assertIn("mode 2 would refuse", str(admission.warning))

    def test_refused(self) -> None:
        """
        In mode 2 a peer that has not asked for keepalive is refused for good, with libvirt's code
        for a failed operation and a message that says what to do.
        """
        negotiation = negotiationIn(Phase.READY, Mandatory())
        self.assertFails(negotiation, openPayload(), 9, refusalFor(negotiation.peer))
        self.assertIs(negotiation.phase, Phase.CLOSING)

    def test_askedInTime(self) -> None:
        """
        In mode 2 a peer must ask before it opens; asking after the refusal is too late.
        """
        negotiation = negotiationIn(Phase.READY, Mandatory())
        negotiation.supportsFeature(10)
        negotiation.open(openPayload())
        self.assertIs(negotiation.phase, Phase.OPENING)
        late = negotiationIn(Phase.READY, Mandatory())
        self.assertRaises(RemoteError, late.open, openPayload())
        late.supportsFeature(10)
        self.assertRaises(RemoteError, late.open, openPayload())
        self.assertIs(late.phase, Phase.CLOSING)

    def test_ownRefusal(self) -> None:
        """
        The peer gets the policy's own message.
        """

        class Closed(Policy):
            def admit(self, peer: Peer) -> Refused:
                return Refused("come back tomorrow")

        self.assertFails(
            negotiationIn(Phase.READY, Closed()), openPayload(), 9, "come back tomorrow"
        )

    def test_failingPolicy(self) -> None:
        """
        If the policy fails, the peer is refused.
        """
        told: list[object] = []
        for answer in (ZeroDivisionError("a bug"), None, True, "yes"):
            negotiation = ServerNegotiation(
                Peer(), PolicyCheck(Broken("admit", answer), lambda *each: told.append(each))
            )
            negotiation.advance(Event.ACCEPTED)
            error = self.assertRaises(RemoteError, negotiation.open, openPayload())
            self.assertEqual(error.code, 9)
            self.assertIn("its keepalive policy failed", error.message)
            self.assertIs(negotiation.phase, Phase.CLOSING)
            self.assertEqual(len(told), 1)
            told.clear()

    def test_secondOpen(self) -> None:
        """
        A second open, even while the first is pending, is answered with libvirtd's error and
        changes nothing.
        """
        for phase in (Phase.OPENING, Phase.OPEN, Phase.CLOSING):
            negotiation = negotiationIn(phase)
            self.assertFails(
                negotiation, openPayload(), 1, "internal error: connection already open"
            )
            self.assertIs(negotiation.phase, phase)

    def test_anotherTry(self) -> None:
        """
        After a failed open the peer may open another name, and the policy is asked again.
        """
        negotiation = negotiationIn(Phase.READY)
        negotiation.open(openPayload("foo:///"))
        negotiation.advance(Event.OPEN_FAILED)
        request, _admission = negotiation.open(openPayload("test:///default"))
        self.assertEqual(request.name, "test:///default")

    def test_withoutAName(self) -> None:
        """
        An open without a name is answered with libvirtd's error before the policy is asked, and may
        be retried.  An empty name is valid.
        """
        negotiation = negotiationIn(Phase.READY, Mandatory())
        self.assertFails(negotiation, openPayload(None), 1, "internal error: connection not open")
        self.assertIs(negotiation.phase, Phase.READY)
        request, _admission = negotiationIn(Phase.READY).open(openPayload(""))
        self.assertEqual(request.name, "")

    def test_garbage(self) -> None:
        """
        Arguments that cannot be decoded change nothing.
        """
        negotiation = negotiationIn(Phase.READY)
        for payload in (b"", b"\0\0\0\1", openPayload()[:-1], openPayload()[:-4]):
            self.assertRaises(XDRError, negotiation.open, payload)
        self.assertIs(negotiation.phase, Phase.READY)


class RPCErrorTests(SynchronousTestCase):
    """
    Tests for L{rpcError}.
    """

    def test_rpcError(self) -> None:
        """
        An error has the RPC domain, and by default the RPC code.
        """
        self.assertEqual(rpcError("no").args, (39, 7, "no", 2))
        self.assertEqual(rpcError("no", 9).args, (9, 7, "no", 2))
