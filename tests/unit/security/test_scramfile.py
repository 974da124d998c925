"""
Tests for L{kaproto.security.scramfile} and L{kaproto.security.authplugin}.
"""

from __future__ import annotations

import getpass
import io
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from scramp import ScramClient
from twisted.cred.strcred import ICheckerFactory, makeChecker
from twisted.internet.defer import Deferred
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security import scramfile
from kaproto.security.authplugin import ScramFileFactory
from kaproto.security.saslserver import Plain, SASLFailed, makePortal
from kaproto.security.scram import ScramKeys, ScramSHA256
from kaproto.security.scramfile import ScramFile, main

ALICE = ScramKeys.fromPassword("sesame")


class ScramFileTests(SynchronousTestCase):
    """
    Tests for L{ScramFile}.
    """

    def setUp(self) -> None:
        """
        Write a file that has Alice.
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
        Log in by PLAIN.

        @return: as whom.
        """
        mechanism = Plain(makePortal([ScramFile(self.path)]))
        message = f"\0{user}\0{password}".encode()
        result: list[Any] = []
        Deferred.fromCoroutine(mechanism.respond(message)).addBoth(result.append)
        if isinstance(result[0], tuple):
            return result[0].user  # type: ignore[attr-defined, no-any-return]
        result[0].trap(SASLFailed)
        return None

    def scram(self, user: str, password: str) -> tuple[str | None, str]:
        """
        Log in by SCRAM.

        @return: as whom, and salt and iterations.
        """
        mechanism = ScramSHA256(makePortal([ScramFile(self.path)]))
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
        The keys are enough to check a password.
        """
        self.assertEqual(self.plain("alice", "sesame"), "alice")
        self.assertIsNone(self.plain("alice", "other"))
        self.assertIsNone(self.plain("bob", "sesame"))

    def test_scram(self) -> None:
        """
        They are enough for SCRAM too.
        """
        self.assertEqual(self.scram("alice", "sesame")[0], "alice")
        self.assertIsNone(self.scram("alice", "other")[0])
        self.assertIsNone(self.scram("bob", "sesame")[0])

    def test_unknownLooksKnown(self) -> None:
        """
        Somebody who is not in the file is challenged as if, after a restart and after others were
        added to the file as well.
        """
        self.write(f"carol:{ScramKeys.fromPassword('x', bytes(24), 5000).toText()}\n")
        first = self.scram("bob", "x")[1]
        self.assertEqual(len(first), len(self.scram("carol", "x")[1]))
        self.assertTrue(first.endswith(",i=5000"))
        with self.path.open("a") as file:
            file.write(f"alice:{ALICE.toText()}\n")
        self.assertEqual(self.scram("bob", "x")[1], first)

    def test_mistakes(self) -> None:
        """
        What is wrong with a file is said with the line that it is in.
        """
        line = f"alice:{ALICE.toText()}\n"
        for text, words in [
            (f"{line}bob\n", "line 2: not of the form NAME:KEYS"),
            (f"\n:{ALICE.toText()}", "line 2: not of the form NAME:KEYS"),
            ("alice:sesame\n", "line 1: not of the form SCRAM-SHA-256"),
            (line * 2, "line 2: 'alice' is there twice"),
            ("# nobody\n", "there is nobody in it"),
        ]:
            self.write(text)
            error = self.assertRaises(ValueError, ScramFile, self.path)
            self.assertIn(f"{self.path}", str(error))
            self.assertIn(words, str(error))
            self.assertNotIn("sesame", str(error))

    def test_unreadable(self) -> None:
        """
        So is that a file cannot be read.
        """
        for path in (Path("nothere"), Path(self.mktemp())):
            error = self.assertRaises(ValueError, ScramFile, path)
            self.assertIn(f"{path}: cannot be read", str(error))
        self.path.write_bytes(b"\xff")
        self.assertRaises(ValueError, ScramFile, self.path)

    def test_reload(self) -> None:
        """
        Those who were added come in after a reload; a bad file changes nothing.
        """
        checker = ScramFile(self.path)
        self.write(f"bob:{ALICE.toText()}\n")
        checker.reload()
        self.assertEqual(set(checker._users), {b"bob"})
        self.write("rubbish")
        self.assertRaises(ValueError, checker.reload)
        self.assertEqual(set(checker._users), {b"bob"})


class MainTests(SynchronousTestCase):
    """
    Tests for C{python -m kaproto.security.scramfile}.
    """

    def type(self, *answers: str) -> None:
        """
        Have a user type passwords.
        """
        typed = iter(answers)
        self.patch(getpass, "getpass", lambda _prompt: next(typed))

    def test_line(self) -> None:
        """
        A line is made that fits the password and does not show it.
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
        self.assertIn("not the same", str(self.assertRaises(SystemExit, main, ["alice"])))

    def test_impossible(self) -> None:
        """
        So is a password that cannot be one.
        """
        self.type("a\x07", "a\x07")
        self.assertIn("no password can be", str(self.assertRaises(SystemExit, main, ["alice"])))

    def test_usage(self) -> None:
        """
        There is one name, and it has no colon.
        """
        for arguments in ([], ["a", "b"], ["a:b"]):
            self.assertIn("usage", str(self.assertRaises(SystemExit, main, arguments)))

    def test_command(self) -> None:
        """
        It can be run as a module, and prints the line.
        """
        self.type("sesame", "sesame")
        output = io.StringIO()
        self.patch(sys, "argv", ["kaproto.security.scramfile", "alice"])
        self.patch(sys, "stdout", output)
        runpy.run_path(str(scramfile.__file__), run_name="__main__")
        self.assertTrue(output.getvalue().startswith("alice:SCRAM-SHA-256$4096:"))
        self.assertTrue(output.getvalue().endswith("\n"))


class FactoryTests(SynchronousTestCase):
    """
    Tests for C{--auth=scram:FILE}.
    """

    def test_installed(self) -> None:
        """
        Twisted finds it.
        """
        path = Path(self.mktemp())
        path.write_text(f"alice:{ALICE.toText()}\n")
        checker = makeChecker(f"scram:{path}")
        self.assertIsInstance(checker, ScramFile)
        factories: list[object] = list(getPlugins(ICheckerFactory))
        self.assertTrue(any(isinstance(factory, ScramFileFactory) for factory in factories))

    def test_noFile(self) -> None:
        """
        It wants a file.
        """
        with self.assertRaisesRegex(ValueError, "wants the name of a file"):
            ScramFileFactory().generateChecker("")

    def test_notInstalled(self) -> None:
        """
        It says what to install when scramp is not there.
        """
        with (
            mock.patch.dict(sys.modules, {"kaproto.security.scramfile": None}),
            self.assertRaisesRegex(ValueError, r"pip install 'kaproto\[scram\]'"),
        ):
            ScramFileFactory().generateChecker("x")
