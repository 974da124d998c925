"""
Tests for L{kaproto.security.saslserver}.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.checkers import (
    ANONYMOUS,
    AllowAnonymousAccess,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.saslserver import (
    Admit,
    Answer,
    IUser,
    Mechanism,
    OpenGate,
    Plain,
    Realm,
    SASLFailed,
    SASLServer,
    User,
    makePortal,
)
from kaproto.wire.sasl import SASLResult


def users() -> InMemoryUsernamePasswordDatabaseDontUse:
    """
    A checker that knows Alice.
    """
    return InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")


atOnce = OpenGate().enter


class PortalTests(SynchronousTestCase):
    """
    Tests for L{makePortal} and L{Realm}.
    """

    def test_known(self) -> None:
        """
        Whom the checkers know is a user.
        """
        avatarId: Any = b"al\xc3\xafce"
        interface, user, logout = Realm().requestAvatar(avatarId, None, IUser)
        self.assertEqual((interface, user), (IUser, User("al\u00efce")))
        logout()

    def test_nothingElse(self) -> None:
        """
        There is nothing but users, and nobody is one without a name.
        """
        for avatarId, interface in ((b"alice", IAnonymous), (ANONYMOUS, IUser)):
            self.assertRaises(NotImplementedError, Realm().requestAvatar, avatarId, None, interface)

    def test_severalCheckers(self) -> None:
        """
        Several checkers may each be for other credentials.
        """
        portal = makePortal([users(), AllowAnonymousAccess()])
        self.assertIn(IAnonymous, portal.listCredentialsInterfaces())

    def test_sameCheckersTwice(self) -> None:
        """
        Two for the same are refused, because cred would pass over one of them in silence.
        """
        with self.assertRaisesRegex(ValueError, "two checkers for IUsernamePassword"):
            makePortal([users(), users()])


class PlainTests(SynchronousTestCase):
    """
    Tests for L{Plain}.
    """

    def setUp(self) -> None:
        """
        Begin.
        """
        self.plain = Plain(makePortal([users()]), atOnce)

    def respond(self, data: bytes | None) -> Answer:
        """
        Say something to the mechanism.
        """
        return self.successResultOf(Deferred.fromCoroutine(self.plain.respond(data)))

    def refusal(self, data: bytes) -> SASLFailed:
        """
        Say something to the mechanism that it does not like.
        """
        failure = self.failureResultOf(Deferred.fromCoroutine(self.plain.respond(data)), SASLFailed)
        error = failure.value
        assert isinstance(error, SASLFailed)
        return error

    def test_right(self) -> None:
        """
        With the right password a user is let in, and nothing more is said.
        """
        self.assertEqual(self.respond(b"\0alice\0sesame"), Answer(None, "alice"))

    def test_asItself(self) -> None:
        """
        A user may say twice who it is.
        """
        self.assertEqual(self.respond(b"alice\0alice\0sesame").user, "alice")

    def test_later(self) -> None:
        """
        A client that begins with nothing is asked to go on.
        """
        self.assertEqual(self.respond(None), Answer(b"", None))
        self.assertEqual(self.respond(b"\0alice\0sesame").user, "alice")
        self.plain.abandon()

    def test_wrong(self) -> None:
        """
        A wrong password and an unknown name look the same.
        """
        wrong = self.refusal(b"\0alice\0other")
        unknown = self.refusal(b"\0bob\0sesame")
        self.assertEqual(str(wrong), str(unknown))
        self.assertEqual((wrong.user, unknown.user), ("alice", "bob"))

    def test_asSomebodyElse(self) -> None:
        """
        Nobody may act as somebody else.
        """
        self.assertIn("act as another user", str(self.refusal(b"root\0alice\0sesame")))

    def test_incomplete(self) -> None:
        """
        There have to be a name and a password.
        """
        for data, words in ((b"\0\0sesame", "user name"), (b"\0alice\0", "password")):
            self.assertIn(f"this cannot be a {words}: it is empty", str(self.refusal(data)))

    def test_prepared(self) -> None:
        """
        Name and password are prepared by SASLprep, as they are for SCRAM.
        """
        self.assertEqual(self.respond("\0ali\u00adce\0\uff53esame".encode()).user, "alice")

    def test_hostile(self) -> None:
        """
        A name or password that is too long, not UTF-8 or prohibited is refused, and the message for
        the log does not grow with it.
        """
        for data in (
            b"\0alice\0" + b"a" * 1025,
            b"\0" + b"a" * 256 + b"\0sesame",
            b"\0" + "\ufdfa".encode() * 5000 + b"\0sesame",
            b"\0ali\xe9ce\0sesame",
            b"\0alice\0ses\xe9ame",
            b"\0alice\0ses\x07ame",
            b"x" * 16384,
            b"\0" * 16384,
        ):
            error = self.refusal(data)
            self.assertLess(len(f"{error}{error.user}"), 120)
            self.assertNotIn("ame", str(error).replace("name", ""))

    def test_malformed(self) -> None:
        """
        There have to be three parts.
        """
        for data in (b"", b"\0", b"alice sesame", b"\0alice\0sesame\0"):
            self.assertIn("malformed", str(self.refusal(data)))

    @given(st.binary(max_size=20))
    def test_anything(self, data: bytes) -> None:
        """
        Whatever is said, it is an answer or L{SASLFailed}, and the password is not in it.
        """
        result: list[object] = []
        Deferred.fromCoroutine(self.plain.respond(b"\0alice\0hushhush" + data)).addBoth(
            result.append
        )
        self.assertEqual(len(result), 1)
        self.assertNotIn("hush", str(result[0]))


class Scripted:
    """
    A mechanism whose answers the test gives.
    """

    def __init__(self) -> None:
        self.asked: list[bytes | None] = []
        self.answers: list[Deferred[Answer]] = []
        self.abandoned = 0

    async def respond(self, data: bytes | None) -> Answer:
        """
        Wait for the test to answer.
        """
        self.asked.append(data)
        self.answers.append(Deferred())
        return await self.answers[-1]

    def abandon(self) -> None:
        """
        Count.
        """
        self.abandoned += 1


class ServerTests(SynchronousTestCase):
    """
    Tests for L{SASLServer}.
    """

    def setUp(self) -> None:
        """
        Make a server with one mechanism.
        """
        self.made: list[Scripted] = []
        self.server = SASLServer(makePortal([users()]), {"SCRIPTED": self.make, "PLAIN": Plain})

    def make(self, portal: Portal, admit: Admit) -> Mechanism:
        """
        Make a mechanism.
        """
        self.made.append(Scripted())
        return self.made[-1]

    def going(self, coroutine: Coroutine[Any, Any, SASLResult]) -> Deferred[SASLResult]:
        """
        Let a call go on.
        """
        return Deferred.fromCoroutine(coroutine)

    def fails(self, coroutine: Coroutine[Any, Any, SASLResult], words: str) -> None:
        """
        Check that a call fails.
        """
        failure = self.failureResultOf(self.going(coroutine), SASLFailed)
        self.assertIn(words, str(failure.value))

    def begin(self) -> Deferred[SASLResult]:
        """
        Begin with the mechanism of the test's.
        """
        self.server.init()
        return self.going(self.server.start("SCRIPTED", b"first"))

    def test_init(self) -> None:
        """
        The client is told what there is.
        """
        self.assertEqual(self.server.init(), ["SCRIPTED", "PLAIN"])

    def test_initTwice(self) -> None:
        """
        It may ask only once; after that has failed it may begin anew.
        """
        self.server.init()
        self.assertRaises(SASLFailed, self.server.init)
        self.assertEqual(self.server.failures, 1)
        self.server.init()

    def test_outOfOrder(self) -> None:
        """
        It has to begin at the beginning.
        """
        self.fails(self.server.start("PLAIN", None), "out of order: before init")
        self.fails(self.server.step(None), "out of order: before init")
        self.server.init()
        self.fails(self.server.step(None), "out of order: after init")
        self.assertEqual(self.server.failures, 3)

    def test_unknownMechanism(self) -> None:
        """
        It has to choose from what there is.
        """
        self.server.init()
        self.fails(self.server.start("CRAM-MD5", None), "there is no mechanism 'CRAM-MD5'")
        self.assertEqual(self.server.failures, 1)
        self.assertIsNone(self.server.mechanism)

    def test_oneStep(self) -> None:
        """
        A mechanism may need no more than the start.
        """
        self.server.init()
        result = self.successResultOf(self.going(self.server.start("PLAIN", b"\0alice\0sesame")))
        self.assertEqual(result, SASLResult(complete=True, data=None))
        self.assertEqual(self.server.user, "alice")
        self.assertEqual(self.server.mechanism, "PLAIN")

    def test_severalSteps(self) -> None:
        """
        Or it may need any number of steps.
        """
        started = self.begin()
        (mechanism,) = self.made
        mechanism.answers[0].callback(Answer(b"question", None))
        self.assertEqual(
            self.successResultOf(started), SASLResult(complete=False, data=b"question")
        )
        stepped = self.going(self.server.step(b"answer"))
        mechanism.answers[1].callback(Answer(b"welcome", "alice"))
        self.assertEqual(self.successResultOf(stepped), SASLResult(complete=True, data=b"welcome"))
        self.assertEqual(mechanism.asked, [b"first", b"answer"])
        self.assertEqual(self.server.user, "alice")
        self.assertEqual(mechanism.abandoned, 0)

    def test_failure(self) -> None:
        """
        After a failure the client may begin anew.
        """
        started = self.begin()
        self.made[0].answers[0].errback(SASLFailed("no", "alice"))
        self.failureResultOf(started, SASLFailed)
        self.assertEqual(self.server.failures, 1)
        self.assertEqual(self.made[0].abandoned, 1)
        self.assertNoResult(self.begin())

    def test_brokenMechanism(self) -> None:
        """
        A mechanism that fails in another way has let nobody in.
        """
        started = self.begin()
        self.made[0].answers[0].errback(ZeroDivisionError())
        self.failureResultOf(started, ZeroDivisionError)
        self.assertEqual(self.server.failures, 1)
        self.assertIsNone(self.server.user)

    def test_impatience(self) -> None:
        """
        A client that does not wait for an answer is not let in by it.
        """
        started = self.begin()
        self.fails(self.server.step(b"more"), "out of order: being checked")
        self.made[0].answers[0].callback(Answer(None, "alice"))
        self.failureResultOf(started, SASLFailed)
        self.assertIsNone(self.server.user)
        self.assertEqual(self.server.failures, 1)

    def test_impatienceAndFailure(self) -> None:
        """
        Nor does it count twice when that one fails.
        """
        started = self.begin()
        self.fails(self.server.start("PLAIN", None), "out of order")
        self.made[0].answers[0].errback(SASLFailed("no"))
        self.failureResultOf(started, SASLFailed)
        self.assertEqual(self.server.failures, 1)

    def test_onlyOnce(self) -> None:
        """
        Nobody becomes somebody else.
        """
        self.test_oneStep()
        self.assertRaises(SASLFailed, self.server.init)
        self.fails(self.server.start("PLAIN", b"\0alice\0sesame"), "out of order: complete")
        self.assertRaises(SASLFailed, self.server.init)
        self.assertEqual(self.server.user, "alice")

    def test_abandon(self) -> None:
        """
        When the client is gone, the mechanism is told, once.
        """
        self.begin()
        self.server.abandon()
        self.server.abandon()
        self.assertEqual(self.made[0].abandoned, 1)
        self.assertRaises(SASLFailed, self.server.init)


class SecretsTests(SynchronousTestCase):
    """
    Passwords do not show.
    """

    def test_credentials(self) -> None:
        """
        What checkers are given has no representation that shows the password.
        """
        seen: list[object] = []

        class Checker(InMemoryUsernamePasswordDatabaseDontUse):
            def requestAvatarId(self, credentials: object) -> Any:
                """
                Look at the credentials.
                """
                seen.append(credentials)
                return super().requestAvatarId(credentials)  # type: ignore[no-untyped-call]

        plain = Plain(makePortal([Checker(alice=b"sesame")]), atOnce)
        answer = self.successResultOf(Deferred.fromCoroutine(plain.respond(b"\0alice\0sesame")))
        self.assertEqual(answer.user, "alice")
        self.assertTrue(IUsernamePassword.providedBy(seen[0]))
        self.assertNotIn("sesame", repr(seen) + str(seen[0]))
