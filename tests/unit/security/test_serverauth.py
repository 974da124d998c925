"""
Tests for L{kaproto.security.serverauth}.
"""

from __future__ import annotations

from typing import Any

from scramp import ScramClient
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import AuthenticationFailed, RemoteError
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.security.loginqueue import LoginQueue
from kaproto.security.mechanism import IKnown
from kaproto.security.serverauth import Authentication
from kaproto.security.users import makePortal
from kaproto.wire.sasl import (
    SASLResult,
    packStart,
    packStep,
    unpackMechanisms,
    unpackResult,
)
from kaproto.wire.xdr import XDRError


class FakeCandidate:
    """
    A connection that records how its login ends.
    """

    def __init__(self) -> None:
        self.peer = Peer(transport="tls")
        self.user: str | None = None
        self.failures = 0
        self.reason: Exception | None = None
        self.deadline: float | None = 60.0
        self.limits = self

    def authenticated(self, user: str) -> None:
        """
        Record the user.
        """
        self.user = user

    def authenticationFailed(self) -> None:
        """
        Count the failure.
        """
        self.failures += 1

    def hold(self) -> float:
        """
        Stop the deadline.

        @return: the seconds left.
        """
        assert self.deadline is not None
        left, self.deadline = self.deadline, None
        return left

    def resume(self, left: float) -> None:
        """
        Start the deadline again.
        """
        assert self.deadline is None
        self.deadline = left

    def endSoon(self, reason: Exception) -> None:
        """
        Record the reason.
        """
        self.reason = reason


class AuthenticationTests(SynchronousTestCase):
    """
    Tests for L{Authentication}.
    """

    def setUp(self) -> None:
        """
        Create a client that may fail twice, for a server with one user.
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
        Start a mechanism.
        """
        return Deferred.fromCoroutine(self.authentication.start(packStart(mechanism, data)))

    def step(self, data: bytes | None) -> Deferred[bytes]:
        """
        Send a mechanism's next message.
        """
        return Deferred.fromCoroutine(self.authentication.step(packStep(data)))

    def assertRefusedLater(self, result: Deferred[bytes], after: float = 1.5) -> None:
        """
        Check that a call fails with libvirtd's error, C{after} seconds from now and no earlier.
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
        Make the checker wait for the test.

        @return: the checker's answer, for the test to fire.
        """
        answer: Deferred[bytes] = Deferred()
        self.patch(self.checker, "requestAvatarId", lambda _credentials: answer)
        return answer

    def test_mechanisms(self) -> None:
        """
        The client is told the mechanisms.
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
        A first step without a message is answered at once, too.
        """
        self.init()
        payload = self.successResultOf(self.start("PLAIN", None))
        self.assertEqual(unpackResult(payload), SASLResult(complete=False, data=b""))
        self.successResultOf(self.step(b"\0alice\0sesame"))
        self.assertEqual(self.candidate.user, "alice")

    def test_refused(self) -> None:
        """
        A wrong password is answered after a delay, and logged.
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
        A refusal is sent at the same time, however long the check took.
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
        If the check takes longer than the delay, the refusal is sent at once.
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
        A client that has used up its tries is disconnected after the answer.
        """
        for reason in (None, AuthenticationFailed):
            self.init()
            self.assertRefusedLater(self.start("PLAIN", b"\0alice\0wrong"))
            self.assertEqual(type(self.candidate.reason), reason or type(None))
        self.assertEqual(str(self.candidate.reason), "failed to log in 2 times")

    def test_noMoreTries(self) -> None:
        """
        A client that does not wait for the answers has no more tries than others.
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
        A message that cannot be decoded raises L{XDRError} and does not count as a try.
        """
        for call in (self.authentication.start, self.authentication.step):
            self.failureResultOf(Deferred.fromCoroutine(call(b"\0")), XDRError)
        self.assertEqual(self.candidate.failures, 0)

    def test_gone(self) -> None:
        """
        When the client disconnects, its login ends without a log line or a failure.
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
        Have others on the same network fail four times, without waiting for the answers.
        """
        for _ in range(4):
            other = self.come()
            Deferred.fromCoroutine(other.init(b""))
            Deferred.fromCoroutine(
                other.start(packStart("PLAIN", f"\0{user}\0hushhush".encode()))
            ).addErrback(lambda failure: failure.trap(RemoteError) and None)

    def test_turn(self) -> None:
        """
        After many failures on the network, a login waits for its turn. The client's deadline does
        not run meanwhile.
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
        A user who has logged in from this network before does not wait, and the checker is told
        that the pair is known. It is not known for others, whether they waited or not.
        """
        known: list[object] = []
        check: Any = self.checker.requestAvatarId

        def requestAvatarId(credentials: IUsernamePassword) -> object:
            known.append(IKnown(credentials).known)
            return check(credentials)

        self.patch(self.checker, "requestAvatarId", requestAvatarId)
        self.init()
        self.successResultOf(self.start("PLAIN", b"\0alice\0sesame"))
        self.guess("bob")
        for user in (b"carol", b"alice"):
            self.authentication = self.come()
            self.init()
            result = self.start("PLAIN", b"\0" + user + b"\0sesame")
        self.successResultOf(result)
        self.assertEqual(known, [False] * 5 + [True])
        self.clock.advance(2)
        self.assertEqual(known, [False] * 5 + [True, False])

    def test_turnAndFailure(self) -> None:
        """
        The delay of a refusal begins with the login's turn, not when it was sent.
        """
        self.guess("bob")
        self.init()
        result = self.start("PLAIN", b"\0alice\0hushhush")
        self.clock.advance(1.5)
        self.assertRefusedLater(result)

    def test_goneWhileWaiting(self) -> None:
        """
        A client that disconnects while it waits leaves no timer behind.
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
        A client that sends another call while it waits loses its turn and one try.
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
        A client that disconnects before its password is checked counts as a failure.
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
        A client that starts SCRAM and disconnects counts as a failure.
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
        An error in the checker does not count as the client's failure.
        """
        for _ in range(5):
            self.slowChecker().errback(ZeroDivisionError())
            self.authentication = self.come()
            self.init()
            result = self.start("PLAIN", b"\0alice\0sesame")
            self.assertRefusedLater(result)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 5)
