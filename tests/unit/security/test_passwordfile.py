"""
Tests for L{kaproto.security.passwordfile}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from scramp import ScramClient
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.mechanism import Mechanism, OpenGate, SASLFailed
from kaproto.security.passwordfile import PasswordFile
from kaproto.security.plain import Plain
from kaproto.security.scram import ScramSHA256
from kaproto.security.scramkeys import ScramKeys
from kaproto.security.users import makePortal

atOnce = OpenGate().enter

FOREIGN = (
    "$apr1$Wx6bZ3bI$Q1Hp0qT3WbDaJ4eG0vO7d1",
    "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC",
    "$6$rounds=5000$salt$hash",
    "$y$j9T$salt$hash",
    "{SHA}2PRZAyDhNDqRW2OUFwZQqPNdaSY=",
    "{PLAIN}sesame",
    "pbkdf2_sha256$600000$salt$hash=",
    "!$6$salt$hash",
    "_J9..rasmBYk8r9AiWNc",
    "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19",
    "md50123456789abcdef0123456789abcdef",
    "sha256$salt$0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "SCRAM-SHA-256$4096$salt",
    "x",
    "*",
    "!",
    "!!",
)


class PasswordFileTests(SynchronousTestCase):
    """
    Tests for L{PasswordFile}.
    """

    def setUp(self) -> None:
        """
        Write a file with one user.
        """
        self.path = Path(self.mktemp())
        self.path.write_text("alice:open sesame\n")

    def say(self, mechanism: Mechanism, data: bytes) -> Any:
        """
        @return: the mechanism's answer, C{None} if it refuses.
        """
        result: list[Any] = []
        Deferred.fromCoroutine(mechanism.respond(data)).addBoth(result.append)
        if isinstance(result[0], tuple):
            return result[0]
        result[0].trap(SASLFailed)
        return None

    def logIn(self, user: str, password: str) -> tuple[str | None, str | None]:
        """
        @return: the user according to PLAIN and according to SCRAM, each C{None} if refused.
        """
        portal = makePortal([PasswordFile(self.path)])
        plain = self.say(Plain(portal, atOnce), f"\0{user}\0{password}".encode())
        mechanism = ScramSHA256(portal, atOnce)
        client = ScramClient(["SCRAM-SHA-256"], user, password)
        first = self.say(mechanism, client.get_client_first().encode())
        client.set_server_first(first.data.decode())
        proof = self.say(mechanism, client.get_client_final().encode())
        mechanism.abandon()
        return plain and plain.user, proof and proof.user

    def test_both(self) -> None:
        """
        PLAIN and SCRAM agree on who may log in.
        """
        self.path.write_text("alice:open sesame\n\uff42ob:\uff53es\u00a0ame\n", encoding="utf-8")
        for user, password, who in [
            ("alice", "open sesame", "alice"),
            ("bob", "ses ame", "bob"),
            ("\uff42ob", "\uff53es\u00a0ame", "bob"),
            ("alice", "open", None),
            ("alice", "open sesame ", None),
            ("Alice", "open sesame", None),
            ("eve", "open sesame", None),
        ]:
            self.assertEqual(self.logIn(user, password), (who, who), (user, password))

    def test_foreign(self) -> None:
        """
        Hashes, passwords with a colon and comments after a password are errors, since they are
        hardly meant as passwords. The message does not quote them.
        """
        for secret in (
            *FOREIGN,
            "sesame:",
            "sesame:and more",
            "x:0:0:root:/root:/bin/bash",
            "realm:0123456789abcdef0123456789abcdef",
            "$6$salt$hash:19000:0:99999:7:::",
            "sesame # until May",
        ):
            self.path.write_text(f"alice:{secret}\n")
            error = str(self.assertRaises(ValueError, PasswordFile, self.path))
            self.assertIn(f"{self.path}, line 1: ", error)
            if len(secret) > 2:
                self.assertNotIn(secret, error)

    def test_impossible(self) -> None:
        """
        Passwords that no client can send are errors.
        """
        for secret in ("ses\u0007ame", "s" * 1025):
            self.path.write_text(f"alice:{secret}\n")
            with self.assertRaisesRegex(ValueError, "line 1: this cannot be a password: "):
                PasswordFile(self.path)

    def test_odd(self) -> None:
        """
        Passwords may have all other characters that SASLprep allows.
        """
        for secret in ("$", "$5", "a$b$c", "{}", "#x", "a#b", "!x", "pa$$word", "=,=2C"):
            self.path.write_text(f"alice:{secret}\n")
            self.assertEqual(self.logIn("alice", secret), ("alice", "alice"), secret)

    def test_reload(self) -> None:
        """
        A reload replaces the users; a faulty file changes nothing.
        """
        checker = PasswordFile(self.path)
        self.path.write_text("bob:x1\n")
        checker.reload()
        for text in ("rubbish", "", "bob:x1\nbob:x2\n"):
            self.path.write_text(text)
            self.assertRaises(ValueError, checker.reload)
            self.assertEqual(checker._passwords, {b"bob": b"x1"})

    def test_unknownCostsAsMuch(self) -> None:
        """
        A password is hashed once whether or not the user exists, so the time does not tell.
        """
        fromPassword = ScramKeys.fromPassword
        for user in ("alice", "eve"):
            with mock.patch.object(ScramKeys, "fromPassword", side_effect=fromPassword) as hashing:
                self.logIn(user, "open sesame")
            self.assertEqual(hashing.call_count, 1)
