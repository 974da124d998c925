"""
Tests for L{kaproto.security.scram}.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient
from twisted.cred.checkers import (
    AllowAnonymousAccess,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kaproto.security import scram
from kaproto.security.mechanism import Answer, OpenGate, SASLFailed
from kaproto.security.scram import IScramCredentials, ScramSHA256
from kaproto.security.scramkeys import ScramKeys
from kaproto.security.users import makePortal

atOnce = OpenGate().enter

EXAMPLE = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
"""
The password C{pencil} with the salt and the number of iterations of RFC 7677's example.
"""


@implementer(ICredentialsChecker)
class Scripted:
    """
    A checker that calls the test's function.
    """

    credentialInterfaces = (IScramCredentials,)

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def requestAvatarId(self, credentials: Any) -> Any:
        """
        Call the test's function.
        """
        return self.answer(credentials)


class MechanismTests(SynchronousTestCase):
    """
    Tests for L{ScramSHA256}.
    """

    def setUp(self) -> None:
        """
        Create a checker with one user.
        """
        self.checker: ICredentialsChecker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")

    def mechanism(self) -> ScramSHA256:
        """
        @return: a mechanism with that checker.
        """
        return ScramSHA256(makePortal([self.checker]), atOnce)

    def respond(self, mechanism: ScramSHA256, message: str | bytes | None) -> Answer:
        """
        Send a message to the mechanism.

        @return: its answer.
        """
        data = message.encode() if isinstance(message, str) else message
        return self.successResultOf(Deferred.fromCoroutine(mechanism.respond(data)))

    def refusal(self, mechanism: ScramSHA256, message: str | bytes) -> SASLFailed:
        """
        Send a message that the mechanism refuses.

        @return: the error.
        """
        data = message.encode() if isinstance(message, str) else message
        failure = self.failureResultOf(Deferred.fromCoroutine(mechanism.respond(data)), SASLFailed)
        error = failure.value
        assert isinstance(error, SASLFailed)
        return error

    def challenge(
        self, user: str = "alice", password: str = "sesame"
    ) -> tuple[ScramSHA256, ScramClient, str]:
        """
        Exchange the first messages.

        @return: the mechanism, a client, and the server's first message.
        """
        mechanism = self.mechanism()
        client = ScramClient(["SCRAM-SHA-256"], user, password)
        answer = self.respond(mechanism, client.get_client_first())
        self.assertIsNone(answer.user)
        assert answer.data is not None
        first = answer.data.decode()
        client.set_server_first(first)
        return mechanism, client, first

    def test_right(self) -> None:
        """
        A client with the right password is accepted, and receives the server's proof.
        """
        mechanism, client, _first = self.challenge()
        answer = self.respond(mechanism, client.get_client_final())
        self.assertEqual(answer.user, "alice")
        assert answer.data is not None
        client.set_server_final(answer.data.decode())

    def test_later(self) -> None:
        """
        A client that starts without a message is asked for one.
        """
        mechanism = self.mechanism()
        self.assertEqual(self.respond(mechanism, None), Answer(b"", None))
        mechanism.abandon()

    def test_wrong(self) -> None:
        """
        A wrong password and an unknown user are refused with the same error.
        """
        errors = []
        for user, password in (("alice", "other"), ("bob", "sesame")):
            mechanism, client, _first = self.challenge(user, password)
            error = self.refusal(mechanism, client.get_client_final())
            self.assertEqual(error.user, user)
            mechanism.abandon()
            errors.append(str(error))
        self.assertEqual(errors, ["wrong user name or password"] * 2)

    def test_unknownLooksKnown(self) -> None:
        """
        An unknown user's challenge looks like a known one's: the salt is constant and as long, and
        the iterations are the same.
        """

        def parts(user: str) -> tuple[str, str]:
            _nonce, salt, iterations = self.challenge(user)[2].split(",")
            return salt, iterations

        known, again, unknown = parts("alice"), parts("alice"), parts("bob")
        self.assertEqual(known, again)
        self.assertEqual(unknown, parts("bob"))
        self.assertEqual(len(known[0]), len(unknown[0]))
        self.assertEqual(known[1], unknown[1])

    def test_unknownCostsAsMuch(self) -> None:
        """
        A password is hashed once whether or not the user exists.
        """
        hashed: list[str] = []
        fromPassword = ScramKeys.fromPassword

        def counting(password: str, *arguments: Any) -> ScramKeys:
            hashed.append(password)
            return fromPassword(password, *arguments)

        self.patch(ScramKeys, "fromPassword", counting)
        for user in ("alice", "bob"):
            del hashed[:]
            self.challenge(user)
            self.assertEqual(len(hashed), 1, user)

    def test_hostileNames(self) -> None:
        """
        Invalid names and messages that are too long are refused before the checker is asked, with
        an error of bounded length.
        """
        self.checker = Scripted(None)
        for message in (
            "n,,n=" + "\ufdfa" * 85 + ",r=x",
            "n,,n=" + "a" * 256 + ",r=x",
            "n,,n=a\u0007,r=x",
            "n,,n=\u00ad,r=x",
            "n,,n=alice,r=" + "x" * 3000,
            "n" * 16000,
        ):
            error = self.refusal(self.mechanism(), message)
            self.assertLess(len(str(error)), 120)
            self.assertIsNone(error.user)

    def test_escapes(self) -> None:
        """
        A name may have characters that SCRAM escapes.
        """
        name = "=2C,=3D,="
        database: Any = self.checker
        database.addUser(name.encode(), b"sesame")
        mechanism, client, _first = self.challenge(name)
        answer = self.respond(mechanism, client.get_client_final())
        self.assertEqual(answer.user, name)

    def later(self) -> list[Callable[[], None]]:
        """
        Delay the hashing of passwords, as threads would.

        @return: a list of functions that each hash one password.
        """
        jobs: list[Callable[[], None]] = []

        def hashLater(
            function: Callable[..., Any], *arguments: Any, stranger: bool
        ) -> Deferred[Any]:
            result: Deferred[Any] = Deferred()
            self.assertTrue(stranger)

            def work() -> None:
                if not result.called:
                    maybeDeferred(function, *arguments).chainDeferred(result)

            jobs.append(work)
            return result

        self.patch(scram, "offReactor", hashLater)
        return jobs

    def start(self, user: str) -> tuple[ScramSHA256, ScramClient, Deferred[Answer]]:
        """
        Send the client's first message.
        """
        mechanism = self.mechanism()
        client = ScramClient(["SCRAM-SHA-256"], user, "sesame")
        first = client.get_client_first().encode()
        return mechanism, client, Deferred.fromCoroutine(mechanism.respond(first))

    def test_hashedLater(self) -> None:
        """
        The challenge is sent once the password is hashed, whether or not the user exists.
        """
        for user in ("alice", "bob"):
            jobs = self.later()
            mechanism, client, result = self.start(user)
            self.assertNoResult(result)
            self.assertEqual(len(jobs), 1)
            jobs[0]()
            answer = self.successResultOf(result)
            assert answer.data is not None
            client.set_server_first(answer.data.decode())
            final = client.get_client_final()
            if user == "alice":
                self.assertEqual(self.respond(mechanism, final).user, "alice")
            else:
                self.refusal(mechanism, final)
            mechanism.abandon()

    async def admit(self, known: bool, _user: str) -> bool:
        """
        Admit every login, as a known pair or not.
        """
        return known

    def test_known(self) -> None:
        """
        A known user's password is hashed as work of our own; others as work for a stranger.
        """
        strangers: list[bool] = []

        def hashNow(function: Callable[..., Any], *arguments: Any, stranger: bool) -> Deferred[Any]:
            strangers.append(stranger)
            return maybeDeferred(function, *arguments)

        self.patch(scram, "offReactor", hashNow)
        for known in (True, False):
            mechanism = ScramSHA256(makePortal([self.checker]), partial(self.admit, known))
            client = ScramClient(["SCRAM-SHA-256"], "alice", "sesame")
            self.respond(mechanism, client.get_client_first())
            mechanism.abandon()
        self.assertEqual(strangers, [False, True])

    def test_goneWhileHashing(self) -> None:
        """
        If the client disconnects before the password is hashed, nothing is hashed or logged.
        """
        for user in ("alice", "bob"):
            jobs = self.later()
            mechanism, _client, result = self.start(user)
            result.cancel()
            mechanism.abandon()
            self.failureResultOf(result, CancelledError)
            jobs[0]()

    def test_hashingFails(self) -> None:
        """
        If a password cannot be hashed, the error is logged and the client is still challenged.
        """
        hashed = [ZeroDivisionError(), ScramKeys.fromText(EXAMPLE)]

        def hashOnce(function: object, *arguments: object, stranger: bool) -> Deferred[Any]:
            result = hashed.pop(0)
            return fail(result) if isinstance(result, Exception) else succeed(result)

        self.patch(scram, "offReactor", hashOnce)
        mechanism, client, _first = self.challenge()
        self.refusal(mechanism, client.get_client_final())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_abandoned(self) -> None:
        """
        When a client disconnects, the checker is told that it proved nothing.
        """
        results: list[bool] = []

        def check(credentials: IScramCredentials) -> Deferred[bytes]:
            challenged = credentials.challenge(ScramKeys.fromText(EXAMPLE))
            return challenged.addCallback(results.append).addCallback(lambda _: b"alice")

        self.checker = Scripted(check)
        mechanism, _client, _first = self.challenge()
        self.assertEqual(results, [])
        mechanism.abandon()
        mechanism.abandon()
        self.assertEqual(results, [False])

    def test_keys(self) -> None:
        """
        A checker may have keys instead of passwords.
        """

        def check(credentials: IScramCredentials) -> Deferred[bytes]:
            challenged = credentials.challenge(ScramKeys.fromText(EXAMPLE))
            return challenged.addCallback(lambda proven: b"ALICE" if proven else b"nobody")

        self.checker = Scripted(check)
        mechanism, client, first = self.challenge(password="pencil")
        self.assertIn("s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", first)
        self.assertEqual(self.respond(mechanism, client.get_client_final()).user, "ALICE")

    def test_hastyChecker(self) -> None:
        """
        A checker that does not wait for the client's proof still authenticates nobody without one.
        """

        @implementer(ICredentialsChecker)
        class Hasty:
            credentialInterfaces = (IUsernameHashedPassword,)

            def requestAvatarId(self, credentials: Any) -> Any:
                """
                Return a user at once, before the proof.
                """
                return succeed(b"alice") if credentials.checkPassword(b"sesame") else None

        self.checker = Hasty()
        mechanism, client, _first = self.challenge(password="other")
        self.refusal(mechanism, client.get_client_final())
        mechanism, client, _first = self.challenge()
        self.assertEqual(self.respond(mechanism, client.get_client_final()).user, "alice")

    def test_twoChallenges(self) -> None:
        """
        Of two challenges by a checker, only the first one is answered.
        """

        def check(credentials: IScramCredentials) -> Deferred[bytes]:
            credentials.challenge(ScramKeys.fromText(EXAMPLE))
            challenged = credentials.challenge(ScramKeys.fromPassword("other"))
            return challenged.addCallback(lambda _proven: b"alice")

        self.checker = Scripted(check)
        mechanism, client, _first = self.challenge(password="pencil")
        self.assertEqual(self.respond(mechanism, client.get_client_final()).user, "alice")

    def test_provenAndYetNotLetIn(self) -> None:
        """
        The checker may refuse a client that has proved its password.
        """

        def check(credentials: IScramCredentials) -> Deferred[bool]:
            challenged = credentials.challenge(ScramKeys.fromText(EXAMPLE))
            return challenged.addCallback(lambda _: fail(UnauthorizedLogin("locked")))

        self.checker = Scripted(check)
        mechanism, client, _first = self.challenge(password="pencil")
        error = self.refusal(mechanism, client.get_client_final())
        self.assertEqual(str(error), "refused by the portal")

    def test_brokenChecker(self) -> None:
        """
        A checker that raises an error authenticates nobody, and the error is logged.
        """

        def check(credentials: object) -> None:
            raise ZeroDivisionError

        self.checker = Scripted(check)
        mechanism, client, _first = self.challenge()
        self.refusal(mechanism, client.get_client_final())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_noChecker(self) -> None:
        """
        Without a checker for SCRAM, nobody is authenticated.
        """
        self.checker = AllowAnonymousAccess()
        mechanism, client, _first = self.challenge()
        self.refusal(mechanism, client.get_client_final())

    def test_passwordThatCannotBe(self) -> None:
        """
        A stored password that is not UTF-8 or not valid for SASLprep never matches.
        """
        self.checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"\xff", bob=b"\x07")
        for user in ("alice", "bob"):
            mechanism, client, _first = self.challenge(user)
            self.refusal(mechanism, client.get_client_final())

    def test_malformed(self) -> None:
        """
        Malformed messages are refused.
        """
        for message in (b"", b"\xff", b"n,,n=,r=x", b"p=tls-unique,,n=alice,r=x", b"n,a=b,n=c,r=x"):
            self.assertIn("malformed", str(self.refusal(self.mechanism(), message)))
        mechanism, _client, _first = self.challenge()
        error = self.refusal(mechanism, b"rubbish")
        self.assertIn("malformed", str(error))
        self.assertEqual(error.user, "alice")

    def test_notYoursNonce(self) -> None:
        """
        A proof from another exchange is refused.
        """
        mechanism, _client, _first = self.challenge()
        _mechanism, other, _first = self.challenge()
        self.refusal(mechanism, other.get_client_final())

    @settings(max_examples=30, deadline=None)
    @given(st.binary(max_size=30), st.binary(max_size=30))
    def test_anything(self, first: bytes, second: bytes) -> None:
        """
        Any message is answered or fails with L{SASLFailed}, and nobody is authenticated.
        """
        mechanism = self.mechanism()
        for data in (b"n,," + first, first, second):
            result: list[Any] = []
            Deferred.fromCoroutine(mechanism.respond(data)).addBoth(result.append)
            if isinstance(result[0], Answer):
                self.assertIsNone(result[0].user)
            else:
                result[0].trap(SASLFailed)
        mechanism.abandon()
