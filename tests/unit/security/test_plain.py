"""
Tests for L{kaproto.security.plain}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.mechanism import Answer, OpenGate, SASLFailed
from kaproto.security.plain import Plain
from kaproto.security.users import makePortal


class PlainTests(SynchronousTestCase):
    """
    Tests for L{Plain}.
    """

    def setUp(self) -> None:
        """
        Create a mechanism with one user.
        """
        self.plain = Plain(
            makePortal([InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")]), OpenGate().enter
        )

    def respond(self, data: bytes | None) -> Answer:
        """
        Send a message to the mechanism.

        @return: its answer.
        """
        return self.successResultOf(Deferred.fromCoroutine(self.plain.respond(data)))

    def refusal(self, data: bytes) -> SASLFailed:
        """
        Send a message that the mechanism refuses.

        @return: the error.
        """
        failure = self.failureResultOf(Deferred.fromCoroutine(self.plain.respond(data)), SASLFailed)
        error = failure.value
        assert isinstance(error, SASLFailed)
        return error

    def test_right(self) -> None:
        """
        The right password is accepted, without a further message.
        """
        self.assertEqual(self.respond(b"\0alice\0sesame"), Answer(None, "alice"))

    def test_asItself(self) -> None:
        """
        The authorization identity may be the user's own name.
        """
        self.assertEqual(self.respond(b"alice\0alice\0sesame").user, "alice")

    def test_later(self) -> None:
        """
        A client that starts without a message is asked for one.
        """
        self.assertEqual(self.respond(None), Answer(b"", None))
        self.assertEqual(self.respond(b"\0alice\0sesame").user, "alice")
        self.plain.abandon()

    def test_wrong(self) -> None:
        """
        A wrong password and an unknown user are refused with the same error.
        """
        wrong = self.refusal(b"\0alice\0other")
        unknown = self.refusal(b"\0bob\0sesame")
        self.assertEqual(str(wrong), str(unknown))
        self.assertEqual((wrong.user, unknown.user), ("alice", "bob"))

    def test_asSomebodyElse(self) -> None:
        """
        An authorization identity other than the user's own name is refused.
        """
        self.assertIn("act as another user", str(self.refusal(b"root\0alice\0sesame")))

    def test_incomplete(self) -> None:
        """
        An empty name or password is refused.
        """
        for data, words in ((b"\0\0sesame", "user name"), (b"\0alice\0", "password")):
            self.assertIn(f"this cannot be a {words}: it is empty", str(self.refusal(data)))

    def test_prepared(self) -> None:
        """
        Name and password are prepared with SASLprep, as they are for SCRAM.
        """
        self.assertEqual(self.respond("\0ali\u00adce\0\uff53esame".encode()).user, "alice")

    def test_hostile(self) -> None:
        """
        A name or password that is too long, not UTF-8 or prohibited is refused, with an error of
        bounded length.
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
        A message that does not have three parts is refused.
        """
        for data in (b"", b"\0", b"alice sesame", b"\0alice\0sesame\0"):
            self.assertIn("malformed", str(self.refusal(data)))

    @given(st.binary(max_size=20))
    def test_anything(self, data: bytes) -> None:
        """
        Any message is answered or fails with L{SASLFailed}, and the password is in neither.
        """
        result: list[object] = []
        Deferred.fromCoroutine(self.plain.respond(b"\0alice\0hushhush" + data)).addBoth(
            result.append
        )
        self.assertEqual(len(result), 1)
        self.assertNotIn("hush", str(result[0]))


class SecretsTests(SynchronousTestCase):
    """
    Tests that passwords are not shown.
    """

    def test_credentials(self) -> None:
        """
        The credentials given to checkers do not show the password.
        """
        seen: list[object] = []

        class Checker(InMemoryUsernamePasswordDatabaseDontUse):
            def requestAvatarId(self, credentials: object) -> Any:
                """
                Record the credentials and check them.
                """
                seen.append(credentials)
                return super().requestAvatarId(credentials)  # type: ignore[no-untyped-call]

        plain = Plain(makePortal([Checker(alice=b"sesame")]), OpenGate().enter)
        answer = self.successResultOf(Deferred.fromCoroutine(plain.respond(b"\0alice\0sesame")))
        self.assertEqual(answer.user, "alice")
        self.assertTrue(IUsernamePassword.providedBy(seen[0]))
        self.assertNotIn("sesame", repr(seen) + str(seen[0]))
