"""
Tests for L{kaproto.security.scramfile}.
"""

from __future__ import annotations

import getpass
import io
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from scramp import ScramClient
from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from kaproto.security import scramfile
from kaproto.security.mechanism import OpenGate, SASLFailed
from kaproto.security.plain import Plain
from kaproto.security.scram import IScramCredentials, ScramSHA256
from kaproto.security.scramfile import ScramFile, main
from kaproto.security.scramkeys import ScramKeys
from kaproto.security.users import makePortal

atOnce = OpenGate().enter

ALICE = ScramKeys.fromPassword("sesame")


class ScramFileTests(SynchronousTestCase):
    """
    Tests for L{ScramFile}.
    """

    def setUp(self) -> None:
        """
        Write a file with one user.
        """
        self.path = Path(self.mktemp())
        self.write(f"# comment\n\nalice:{ALICE.toText()}\n")

    def write(self, text: str) -> None:
        """
        Write the file.
        """
        self.path.write_text(text, encoding="utf-8")

    def plain(self, user: str, password: str) -> str | None:
        """
        Log in with PLAIN.

        @return: the user, C{None} if refused.
        """
        mechanism = Plain(makePortal([ScramFile(self.path)]), atOnce)
        message = f"\0{user}\0{password}".encode()
        result: list[Any] = []
        Deferred.fromCoroutine(mechanism.respond(message)).addBoth(result.append)
        if isinstance(result[0], tuple):
            return result[0].user  # type: ignore[attr-defined, no-any-return]
        result[0].trap(SASLFailed)
        return None

    def scram(self, user: str, password: str) -> tuple[str | None, str]:
        """
        Log in with SCRAM.

        @return: the user, C{None} if refused, and the challenge's salt and iterations.
        """
        mechanism = ScramSHA256(makePortal([ScramFile(self.path)]), atOnce)
        client = ScramClient(["SCRAM-SHA-256"], user, password)

        def respond(message: str) -> Any:
            result: list[Any] = []
            Deferred.fromCoroutine(mechanism.respond(message.encode())).addBoth(result.append)
            return result[0]

        first = respond(client.get_client_first()).data.decode()
        client.set_server_first(first)
        final = respond(client.get_client_final())
        mechanism.abandon()
        return getattr(final, "user", None), first.partition(",")[2]

    def test_plain(self) -> None:
        """
        A password is checked by its keys.
        """
        self.assertEqual(self.plain("alice", "sesame"), "alice")
        self.assertIsNone(self.plain("alice", "other"))
        self.assertIsNone(self.plain("bob", "sesame"))

    async def admit(self, known: bool, _user: str) -> bool:
        """
        Admit every login, as a known pair or not.
        """
        return known

    def test_offReactor(self) -> None:
        """
        Passwords are hashed off the reactor's thread, those of unknown pairs as work for strangers.
        """
        jobs: list[tuple[bool, Deferred[bool]]] = []

        def later(function: object, *arguments: object, stranger: bool) -> Deferred[bool]:
            jobs.append((stranger, Deferred()))
            return jobs[-1][1]

        self.patch(scramfile, "offReactor", later)
        for known in (True, False):
            plain = Plain(makePortal([ScramFile(self.path)]), partial(self.admit, known))
            result = Deferred.fromCoroutine(plain.respond(b"\0alice\0sesame"))
            self.assertNoResult(result)
            stranger, job = jobs.pop()
            self.assertEqual(stranger, not known)
            job.callback(True)
            self.assertEqual(self.successResultOf(result).user, "alice")
        # Credentials that do not say whether the pair is known count as a stranger's.
        ScramFile(self.path).requestAvatarId(UsernamePassword(b"alice", b"sesame"))
        self.assertTrue(jobs[0][0])

    def test_scram(self) -> None:
        """
        SCRAM works with the keys.
        """
        self.assertEqual(self.scram("alice", "sesame")[0], "alice")
        self.assertIsNone(self.scram("alice", "other")[0])
        self.assertIsNone(self.scram("bob", "sesame")[0])

    def test_unknownLooksKnown(self) -> None:
        """
        An unknown user's challenge looks like a known one's. Its salt stays the same after a
        restart and when users are added to the file.
        """
        self.write(f"carol:{ScramKeys.fromPassword('x', bytes(24), 5000).toText()}\n")
        first = self.scram("bob", "x")[1]
        self.assertEqual(len(first), len(self.scram("carol", "x")[1]))
        self.assertTrue(first.endswith(",i=5000"))
        with self.path.open("a") as file:
            file.write(f"dave:{ScramKeys.fromPassword('y', bytes(24), 5000).toText()}\n")
        self.assertEqual(self.scram("bob", "x")[1], first)

    def test_costsTheSame(self) -> None:
        """
        Fake keys are made for every user, known or not, so the time does not tell.
        """
        made: list[bytes] = []
        fake = ScramKeys.fake

        def counting(username: bytes, *arguments: Any) -> ScramKeys:
            made.append(username)
            return fake(username, *arguments)

        self.patch(ScramKeys, "fake", counting)
        for user in ("alice", "bob"):
            self.scram(user, "sesame")
        self.assertEqual(made[:1] + made[-1:], [b"alice", b"bob"])

    def test_iterations(self) -> None:
        """
        If users' keys differ in their iterations and salt lengths, those of unknown users do too.
        """
        weak = ScramKeys.fromPassword("x", bytes(12), 4096)
        strong = ScramKeys.fromPassword("x", bytes(16), 5000)
        self.write(f"carol:{weak.toText()}\ndave:{strong.toText()}\n")
        checker = ScramFile(self.path)
        seen: list[ScramKeys] = []
        credentials = mock.Mock()
        directlyProvides(credentials, IScramCredentials)

        def challenge(keys: ScramKeys) -> Deferred[bool]:
            seen.append(keys)
            return Deferred()

        credentials.challenge = challenge
        for number in range(100):
            credentials.username = b"stranger%d" % number
            checker.requestAvatarId(credentials)
        shapes = [keys.shape for keys in seen]
        self.assertEqual(set(shapes), {weak.shape, strong.shape})
        self.assertGreater(min(map(shapes.count, set(shapes))), 25)

    def test_mistakes(self) -> None:
        """
        Malformed keys are an error with the line, and with the command that makes such lines.
        """
        for keys in ("sesame", ALICE.toText() + ":", ALICE.toText()[:-1], "$apr1$x$y"):
            self.write(f"# users\nalice:{keys}\n")
            error = self.assertRaises(ValueError, ScramFile, self.path)
            self.assertIn(f"{self.path}, line 2: ", str(error))
            self.assertIn("python -m kaproto.security.scramfile", str(error))
            self.assertNotIn(keys, str(error))

    def test_reload(self) -> None:
        """
        A reload replaces the users; a faulty file changes nothing.
        """
        checker = ScramFile(self.path)
        self.write(f"bob:{ALICE.toText()}\n")
        checker.reload()
        before = dict(vars(checker))
        self.assertEqual(set(checker._users), {b"bob"})
        for text in ("rubbish", "", f"bob:{ALICE.toText()}\neve:sesame\n"):
            self.write(text)
            self.assertRaises(ValueError, checker.reload)
            self.assertEqual(vars(checker), before)
        self.path.unlink()
        self.assertRaises(ValueError, checker.reload)
        self.assertEqual(vars(checker), before)


class MainTests(SynchronousTestCase):
    """
    Tests for C{python -m kaproto.security.scramfile}.
    """

    def type(self, *answers: str) -> None:
        """
        Make C{getpass} return these passwords.
        """
        typed = iter(answers)
        self.patch(getpass, "getpass", lambda _prompt: next(typed))

    def test_line(self) -> None:
        """
        The line has keys for the password, and not the password.
        """
        self.type("sesame", "sesame")
        name, _colon, keys = main(["alice"]).partition(":")
        self.assertEqual(name, "alice")
        self.assertTrue(ScramKeys.fromText(keys).matches("sesame"))

    def test_misspelt(self) -> None:
        """
        Two different passwords are refused.
        """
        self.type("sesame", "sesane")
        self.assertIn("the passwords differ", str(self.assertRaises(SystemExit, main, ["alice"])))

    def test_impossible(self) -> None:
        """
        A password or a name that SASLprep forbids is refused.
        """
        self.type("a\x07", "a\x07")
        self.assertIn("cannot be a pass", str(self.assertRaises(SystemExit, main, ["alice"])))
        self.assertIn("be a user name", str(self.assertRaises(SystemExit, main, ["a\x07"])))

    def test_usage(self) -> None:
        """
        Anything but one name that can stand in the file is a usage error.
        """
        for arguments in ([], ["a", "b"], ["a:b"], ["#a"], ["a "]):
            self.assertIn("usage", str(self.assertRaises(SystemExit, main, arguments)))

    def test_command(self) -> None:
        """
        The module can be run as a command, which prints the line.
        """
        self.type("sesame", "sesame")
        output = io.StringIO()
        self.patch(sys, "argv", ["kaproto.security.scramfile", "alice"])
        self.patch(sys, "stdout", output)
        runpy.run_path(str(scramfile.__file__), run_name="__main__")
        self.assertTrue(output.getvalue().startswith("alice:SCRAM-SHA-256$4096:"))
        self.assertTrue(output.getvalue().endswith("\n"))
