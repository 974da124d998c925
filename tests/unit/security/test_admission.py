"""
Tests for L{kaproto.security.admission}.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient
from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface

from kaproto.errors import AuthenticationFailed, RemoteError
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.security.admission import (
    _TURNED_AWAY,
    AccessControl,
    Authentication,
    PendingClients,
    mechanismsFor,
)
from kaproto.security.loginqueue import LoginQueue
from kaproto.security.saslserver import Plain, makePortal
from kaproto.security.scram import IScramCredentials, ScramSHA256
from kaproto.security.tls import TLSIdentity
from kaproto.wire.sasl import (
    SASLResult,
    packStart,
    packStep,
    unpackMechanisms,
    unpackResult,
)
from kaproto.wire.xdr import XDRError


class MechanismsTests(SynchronousTestCase):
    """
    Tests for L{mechanismsFor}.
    """

    def names(self, *interfaces: type[Interface], secure: bool = True) -> list[str]:
        """
        The mechanisms that there are with a checker for these credentials.
        """
        checker: Any = mock.Mock(credentialInterfaces=interfaces)
        return list(mechanismsFor(makePortal([checker]), secure=secure))

    def test_passwords(self) -> None:
        """
        A checker that has the passwords is good for both mechanisms.
        """
        portal = makePortal([InMemoryUsernamePasswordDatabaseDontUse()])
        self.assertEqual(
            list(mechanismsFor(portal, secure=True).items()),
            [("SCRAM-SHA-256", ScramSHA256), ("PLAIN", Plain)],
        )

    def test_others(self) -> None:
        """
        Others are good for what they can check.
        """
        self.assertEqual(self.names(IUsernamePassword), ["PLAIN"])
        self.assertEqual(self.names(IScramCredentials), ["SCRAM-SHA-256"])
        self.assertEqual(list(mechanismsFor(makePortal([AllowAnonymousAccess()]), secure=True)), [])

    def test_insecure(self) -> None:
        """
        Where somebody can listen, passwords are not taken as they are.
        """
        self.assertEqual(
            self.names(IUsernamePassword, IScramCredentials, secure=False), ["SCRAM-SHA-256"]
        )

    def test_withoutScramp(self) -> None:
        """
        Without scramp there is PLAIN.
        """
        with mock.patch.dict(sys.modules, {"kaproto.security.scram": None}):
            self.assertEqual(self.names(IUsernamePassword, IScramCredentials), ["PLAIN"])


class AdmittanceTests(SynchronousTestCase):
    """
    Tests for L{AccessControl}.
    """

    def test_anybody(self) -> None:
        """
        Without patterns, everybody is let in who has no problem.
        """
        self.assertIsNone(AccessControl().checkCertificate(TLSIdentity("CN=alice", "00", None)))
        self.assertIsNone(AccessControl().checkCertificate(TLSIdentity(None, None, None)))

    def test_problem(self) -> None:
        """
        A problem is one whatever the name.
        """
        for patterns in (None, ["*"]):
            judge = AccessControl(tlsAllowedDNs=patterns).checkCertificate
            self.assertEqual(judge(TLSIdentity("CN=alice", "00", "it is old")), "it is old")

    def test_patterns(self) -> None:
        """
        With patterns, one has to fit.
        """
        judge = AccessControl(tlsAllowedDNs=["CN=bob", "*,CN=al*"]).checkCertificate
        for dn in ("CN=bob", "C=GB,CN=alice"):
            self.assertIsNone(judge(TLSIdentity(dn, "00", None)))
        for dn in ("CN=alice", "CN=bobby"):
            self.assertIn(f"{dn!r}, is not allowed", str(judge(TLSIdentity(dn, "00", None))))
        self.assertIn("no certificate", str(judge(TLSIdentity(None, None, None))))

    def test_noPatterns(self) -> None:
        """
        With an empty list of patterns nobody is let in.
        """
        judge = AccessControl(tlsAllowedDNs=[]).checkCertificate
        self.assertIsNotNone(judge(TLSIdentity("CN=alice", "00", None)))


class FakeCandidate:
    """
    A connection that remembers what happens to it.
    """

    def __init__(self) -> None:
        self.peer = Peer(transport="tls")
        self.user: str | None = None
        self.failures = 0
        self.reason: Exception | None = None
        self.deadline: float | None = 60.0

    def authenticated(self, user: str) -> None:
        """
        Remember.
        """
        self.user = user

    def authenticationFailed(self) -> None:
        """
        Count.
        """
        self.failures += 1

    def holdDeadline(self) -> float:
        """
        Stop the clock.
        """
        assert self.deadline is not None
        left, self.deadline = self.deadline, None
        return left

    def resumeDeadline(self, left: float) -> None:
        """
        Let it run again.
        """
        assert self.deadline is None
        self.deadline = left

    def endSoon(self, reason: Exception) -> None:
        """
        Remember.
        """
        self.reason = reason


class AuthenticationTests(SynchronousTestCase):
    """
    Tests for L{Authentication}.
    """

    def setUp(self) -> None:
        """
        Have a client that is to log in as Alice, and may fail twice.
        """
        self.clock = Clock()
        self.candidate = FakeCandidate()
        self.checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")
        portal = makePortal([self.checker])
        limits = Limits(loginTries=2, loginGuesses=4, failureDelay=1.5)
        self.queue = LoginQueue(self.clock, lambda: limits)

        def come() -> Authentication:
            return Authentication(self.candidate, portal, lambda: limits, self.clock, self.queue)

        self.come = come
        self.authentication = come()

    def init(self) -> Deferred[bytes]:
        """
        Ask for the mechanisms.
        """
        return Deferred.fromCoroutine(self.authentication.init(b""))

    def start(self, mechanism: str, data: bytes | None) -> Deferred[bytes]:
        """
        Begin.
        """
        return Deferred.fromCoroutine(self.authentication.start(packStart(mechanism, data)))

    def step(self, data: bytes | None) -> Deferred[bytes]:
        """
        Go on.
        """
        return Deferred.fromCoroutine(self.authentication.step(packStep(data)))

    def assertRefusedLater(self, result: Deferred[bytes], after: float = 1.5) -> None:
        """
        Check that a call fails after a time, in libvirtd's words.
        """
        self.clock.advance(after - 0.01)
        self.assertNoResult(result)
        self.clock.advance(0.01)
        error = self.failureResultOf(result, RemoteError).value
        assert isinstance(error, RemoteError)
        self.assertEqual(
            (error.code, error.domain, error.message),
            (45, 7, "authentication failed: authentication failed"),
        )

    def slowChecker(self) -> Deferred[bytes]:
        """
        Make the checker take its time.

        @return: what it answers.
        """
        answer: Deferred[bytes] = Deferred()
        self.patch(self.checker, "requestAvatarId", lambda _credentials: answer)
        return answer

    def test_mechanisms(self) -> None:
        """
        The client is told what there is.
        """
        payload = self.successResultOf(self.init())
        self.assertEqual(unpackMechanisms(payload), ["SCRAM-SHA-256", "PLAIN"])

    def test_letIn(self) -> None:
        """
        The right password is answered at once.
        """
        self.init()
        payload = self.successResultOf(self.start("PLAIN", b"\0alice\0sesame"))
        self.assertEqual(unpackResult(payload), SASLResult(complete=True, data=None))
        self.assertEqual(self.candidate.user, "alice")
        self.assertEqual(self.candidate.failures, 0)

    def test_letInLater(self) -> None:
        """
        So is every step before.
        """
        self.init()
        payload = self.successResultOf(self.start("PLAIN", None))
        self.assertEqual(unpackResult(payload), SASLResult(complete=False, data=b""))
        self.successResultOf(self.step(b"\0alice\0sesame"))
        self.assertEqual(self.candidate.user, "alice")

    def test_refused(self) -> None:
        """
        A wrong one is answered after a time, and logged.
        """
        self.init()
        with capturedLogs() as events:
            result = self.start("PLAIN", b"\0alice\0hushhush")
        self.assertRefusedLater(result)
        self.assertEqual(self.candidate.failures, 1)
        self.assertIsNone(self.candidate.reason)
        (event,) = events
        self.assertEqual((event["user"], event["mechanism"]), ("alice", "PLAIN"))
        self.assertNotIn("hush", repr(event["error"]))

    def test_refusedAfterTheSameTime(self) -> None:
        """
        How long it took to find out does not show.
        """
        answer = self.slowChecker()
        self.init()
        result = self.start("PLAIN", b"\0alice\0wrong")
        self.clock.advance(1)
        answer.errback(ZeroDivisionError())
        self.assertRefusedLater(result, 0.5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_refusedAfterALongTime(self) -> None:
        """
        What takes longer than that is answered when it is known.
        """
        answer = self.slowChecker()
        self.init()
        result = self.start("PLAIN", b"\0alice\0wrong")
        self.clock.advance(10)
        answer.errback(ZeroDivisionError())
        self.clock.advance(0)
        self.failureResultOf(result, RemoteError)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_tries(self) -> None:
        """
        Who has failed as often as it may is to go after the answer.
        """
        for reason in (None, AuthenticationFailed):
            self.init()
            self.assertRefusedLater(self.start("PLAIN", b"\0alice\0wrong"))
            self.assertEqual(type(self.candidate.reason), reason or type(None))
        self.assertEqual(str(self.candidate.reason), "failed to log in 2 times")

    def test_noMoreTries(self) -> None:
        """
        Who does not wait for the answers does not get more tries.
        """
        results = []
        for _ in range(5):
            results += [self.init(), self.start("PLAIN", b"\0alice\0wrong")]
        results += [self.init(), self.start("PLAIN", b"\0alice\0sesame")]
        self.clock.advance(1.5)
        for result in results[4:]:
            self.failureResultOf(result, RemoteError)
        self.assertIsNone(self.candidate.user)
        for result in results[:4]:
            result.addErrback(lambda failure: failure.trap(RemoteError) and None)

    def test_undecodable(self) -> None:
        """
        What cannot be decoded is for the caller to answer, and is no try.
        """
        for call in (self.authentication.start, self.authentication.step):
            self.failureResultOf(Deferred.fromCoroutine(call(b"\0")), XDRError)
        self.assertEqual(self.candidate.failures, 0)

    def test_gone(self) -> None:
        """
        When the client is gone, what was going on for it ends without a word.
        """
        self.slowChecker()
        self.init()
        result = self.start("PLAIN", b"\0alice\0sesame")
        with capturedLogs() as events:
            self.authentication.abandon()
            result.cancel()
        self.failureResultOf(result)
        self.assertEqual(events, [])
        self.assertEqual(self.candidate.failures, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def guess(self, user: str = "alice") -> None:
        """
        Have others at the same network fail four times, without waiting for the answer.
        """
        for _ in range(4):
            other = self.come()
            Deferred.fromCoroutine(other.init(b""))
            Deferred.fromCoroutine(
                other.start(packStart("PLAIN", f"\0{user}\0hushhush".encode()))
            ).addErrback(lambda failure: failure.trap(RemoteError) and None)

    def test_turn(self) -> None:
        """
        After many failures at the network a login waits for its turn.  Meanwhile the client's
        deadline does not run.
        """
        for mechanism in ("PLAIN", "SCRAM-SHA-256"):
            self.setUp()
            client = ScramClient(["SCRAM-SHA-256"], "alice", "sesame")
            first = client.get_client_first().encode()
            self.guess("bob")
            self.init()
            result = self.start(mechanism, b"\0alice\0sesame" if mechanism == "PLAIN" else first)
            self.assertNoResult(result)
            self.assertIsNone(self.candidate.deadline)
            self.clock.advance(1.5)
            answer = unpackResult(self.successResultOf(result))
            self.assertEqual(self.candidate.deadline, 60)
            if mechanism == "SCRAM-SHA-256":
                assert answer.data is not None
                client.set_server_first(answer.data.decode())
                self.successResultOf(self.step(client.get_client_final().encode()))
            self.assertEqual(self.candidate.user, "alice")

    def test_known(self) -> None:
        """
        A user who has logged in from there before does not wait.
        """
        self.init()
        self.successResultOf(self.start("PLAIN", b"\0alice\0sesame"))
        self.guess("bob")
        self.authentication = self.come()
        self.init()
        self.successResultOf(self.start("PLAIN", b"\0alice\0sesame"))

    def test_turnAndFailure(self) -> None:
        """
        A failure is answered as long after its turn as it would be otherwise after it was sent.
        """
        self.guess("bob")
        self.init()
        result = self.start("PLAIN", b"\0alice\0hushhush")
        self.clock.advance(1.5)
        self.assertRefusedLater(result)

    def test_goneWhileWaiting(self) -> None:
        """
        Who leaves while it waits leaves nothing behind.
        """
        self.guess("bob")
        self.init()
        result = self.start("PLAIN", b"\0alice\0sesame")
        self.authentication.abandon()
        result.cancel()
        self.failureResultOf(result)
        self.assertEqual(self.candidate.deadline, 60)
        self.clock.advance(1.5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.candidate.user)

    def test_impatientWhileWaiting(self) -> None:
        """
        Who sends something else while it waits loses its turn, and one try.
        """
        self.guess("bob")
        self.init()
        result = self.start("PLAIN", b"\0alice\0sesame")
        again = self.init()
        self.assertEqual(self.candidate.deadline, 60)
        for each in (result, again):
            self.clock.advance(1.5)
            self.failureResultOf(each, RemoteError)
        self.assertIsNone(self.candidate.user)
        self.assertIsNone(self.candidate.reason)

    def test_leavingIsAFailure(self) -> None:
        """
        Who goes away before it is known whether the password was right has guessed.
        """
        for _ in range(4):
            self.slowChecker()
            self.authentication = self.come()
            self.init()
            result = self.start("PLAIN", b"\0bob\0hushhush")
            result.cancel()
            self.failureResultOf(result)
        self.authentication = self.come()
        self.init()
        self.assertNoResult(self.start("PLAIN", b"\0alice\0sesame"))
        self.assertIsNone(self.candidate.deadline)

    def test_unprovenIsAFailure(self) -> None:
        """
        So has who begins SCRAM and does not go on.
        """
        for number in range(5):
            self.authentication = self.come()
            self.init()
            client = ScramClient(["SCRAM-SHA-256"], f"user {number}", "sesame")
            result = self.start("SCRAM-SHA-256", client.get_client_first().encode())
            if number < 4:
                self.successResultOf(result)
                self.authentication.abandon()
        self.assertNoResult(result)

    def test_brokenCheckerIsNoFailure(self) -> None:
        """
        A broken checker is not the client's fault.
        """
        for _ in range(5):
            self.slowChecker().errback(ZeroDivisionError())
            self.authentication = self.come()
            self.init()
            result = self.start("PLAIN", b"\0alice\0sesame")
            self.assertRefusedLater(result)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 5)


class ArrivalsTests(SynchronousTestCase):
    """
    Tests for L{PendingClients}.
    """

    def setUp(self) -> None:
        """
        Allow five clients, of which two may be unknown.
        """
        self.pending: PendingClients[str] = PendingClients()
        self.limits = Limits(maxClients=5, maxAnonymousClients=2)
        self.connections: list[str] = []

    def come(self, name: str, *, unknown: bool = True) -> str | None:
        """
        Connect.

        @return: who has to go.
        """
        self.connections.append(name)
        leaver = self.pending.came(name, len(self.connections), self.limits, unknown=unknown)
        if leaver is not None:
            self.connections.remove(leaver)
            self.pending.gone(leaver)
        return leaver

    def test_oldestUnknownGoes(self) -> None:
        """
        The unknown one that came first goes when there is one too many.
        """
        self.assertEqual([self.come(name) for name in "abcd"], [None, None, "a", "b"])

    def test_knownStay(self) -> None:
        """
        Those who have become known are not counted any more.
        """
        self.come("a")
        self.pending.known("a")
        self.assertEqual([self.come(name) for name in "bcd"], [None, None, "b"])

    def test_goneAreNotCounted(self) -> None:
        """
        Nor are those who are gone.
        """
        self.come("a")
        self.connections.remove("a")
        self.pending.gone("a")
        self.pending.gone("a")
        self.assertEqual([self.come(name) for name in "bcd"], [None, None, "b"])

    def test_full(self) -> None:
        """
        When there are as many as may be, the one goes that has not opened for longest.
        """
        for name in "abcde":
            self.assertIsNone(self.come(name, unknown=False))
        self.pending.opened("a")
        self.assertEqual([self.come(name, unknown=False) for name in "fg"], ["b", "c"])

    def test_fullOfOthers(self) -> None:
        """
        When all others are open there is no place for the newcomer, nor for those who come while
        it is there still; of these no more than a few stay.
        """
        for name in "abcde":
            self.come(name, unknown=False)
            self.pending.opened(name)
        late = [f"late {number}" for number in range(_TURNED_AWAY + 2)]
        leavers = [self.come(name, unknown=False) for name in late]
        self.assertEqual(leavers, [None] * _TURNED_AWAY + late[:2])
        self.assertFalse(any(map(self.pending.hasPlace, late[2:])))
        self.connections.remove("a")
        self.pending.gone("a")
        self.assertIsNone(self.come("next", unknown=False))
        self.assertTrue(self.pending.hasPlace("next"))

    def test_displacedHasNotGone(self) -> None:
        """
        Who had to go for another does not count, even if it takes its time.
        """
        limits = Limits(maxClients=1)
        came = [
            self.pending.came(name, 1 + n, limits, unknown=False) for n, name in enumerate("abc")
        ]
        self.assertEqual(came, [None, "a", "b"])
        self.assertTrue(self.pending.hasPlace("c"))

    def test_turnedAwayAtOnce(self) -> None:
        """
        Of those who come in one turn, before any has gone, no more than a few stay either.
        """
        limits = Limits(maxClients=1)
        self.pending.came("open", 1, limits, unknown=False)
        self.pending.opened("open")
        late = [f"late {number}" for number in range(3 * _TURNED_AWAY)]
        leavers = [
            self.pending.came(name, count, limits, unknown=False)
            for count, name in enumerate(late, 2)
        ]
        self.assertEqual(leavers, [None] * _TURNED_AWAY + late[: 2 * _TURNED_AWAY])

    def test_unlimited(self) -> None:
        """
        There need be no limits.
        """
        self.limits = Limits(maxClients=0, maxAnonymousClients=0)
        self.assertEqual([self.come(str(n)) for n in range(3000)], [None] * 3000)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["come", "plain", "known", "opened", "gone"]), st.integers(0, 50)
            )
        ),
        st.integers(1, 4),
        st.integers(1, 6),
    )
    def test_neverTooMany(self, script: list[tuple[str, int]], unknown: int, clients: int) -> None:
        """
        Whatever happens, there is never one unknown too many, never one client too many that may
        open, and the newcomer is never turned away for somebody who is not open.
        """
        self.setUp()
        self.limits = Limits(maxClients=clients, maxAnonymousClients=unknown)
        opened: set[str] = set()
        rejected: set[str] = set()
        for number, (what, which) in enumerate(script):
            name = self.connections[which % len(self.connections)] if self.connections else ""
            if what in ("come", "plain"):
                leaver = self.come(str(number), unknown=what == "come")
                self.assertNotIn(leaver, opened)
                if not self.pending.hasPlace(str(number)):
                    rejected.add(str(number))
                    self.assertEqual(len(opened & set(self.connections)), clients)
            elif name and what == "gone":
                self.connections.remove(name)
                self.pending.gone(name)
            elif name:
                self.pending.known(name)
                # Whoever is one too many is not let open.
                if what == "opened" and name not in rejected:
                    opened.add(name)
                    self.pending.opened(name)
            self.assertLessEqual(len(self.pending._unknown), unknown)
            inside = set(self.connections) - rejected
            self.assertLessEqual(len(inside), clients)
            self.assertLessEqual(len(self.connections), clients + _TURNED_AWAY)
