"""
Tests for L{kaproto.security.admission}.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
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
from kaproto.security.admission import AccessControl, Authentication, PendingClients, mechanismsFor
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
            self.assertIn(f"{dn!r}, is not one", str(judge(TLSIdentity(dn, "00", None))))
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
        limits = Limits(loginTries=2, failureDelay=1.5)
        self.authentication = Authentication(self.candidate, portal, lambda: limits, self.clock)

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
        if leaver is not None and leaver != name:
            self.connections.remove(leaver)
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
        When all others are open, the newcomer has to go, at the latest when the next one comes.
        """
        for name in "abcde":
            self.come(name, unknown=False)
            self.pending.opened(name)
        self.assertEqual([self.come(name, unknown=False) for name in "fg"], ["f", "f"])
        self.assertEqual(self.connections, list("abcdeg"))

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
        Whatever happens, there is never one unknown too many, at most one client too many, and
        the newcomer is never turned away for somebody who is not open.
        """
        self.setUp()
        self.limits = Limits(maxClients=clients, maxAnonymousClients=unknown)
        opened: set[str] = set()
        for number, (what, which) in enumerate(script):
            name = self.connections[which % len(self.connections)] if self.connections else ""
            if what in ("come", "plain"):
                leaver = self.come(str(number), unknown=what == "come")
                if leaver == str(number):
                    self.assertEqual(set(self.connections) - opened, {leaver})
                else:
                    self.assertNotIn(leaver, opened)
            elif name and what == "gone":
                self.connections.remove(name)
                self.pending.gone(name)
            elif name:
                self.pending.known(name)
                if what == "opened":
                    opened.add(name)
                    self.pending.opened(name)
            self.assertLessEqual(len(self.pending._unknown), unknown)
            self.assertLessEqual(len(self.connections), clients + 1)
