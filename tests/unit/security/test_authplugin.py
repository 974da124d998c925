"""
Tests for L{kaproto.security.authplugin}.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from twisted.cred import strcred
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthType
from twisted.plugin import getPlugins
from twisted.plugins.cred_unix import UNIXChecker
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.authplugin import ScramFileFactory, makeChecker
from kaproto.security.passwordfile import PasswordFile
from kaproto.security.scramfile import ScramFile
from kaproto.security.scramkeys import ScramKeys


class MakeCheckerTests(SynchronousTestCase):
    """
    Tests for L{makeChecker}.
    """

    def test_file(self) -> None:
        """
        C{file:} makes kaproto's L{PasswordFile} instead of Twisted's checker.
        """
        path = Path(self.mktemp())
        path.write_text("alice:sesame\n")
        self.assertIsInstance(makeChecker(f"file:{path}"), PasswordFile)

    def test_others(self) -> None:
        """
        Other checkers come from Twisted's plugins.
        """
        self.assertIsInstance(makeChecker("unix"), UNIXChecker)
        self.assertRaises(InvalidAuthType, makeChecker, "nosuch:x")

    def test_memory(self) -> None:
        """
        The users of C{memory:} log in with a name and password in UTF-8.
        """
        checker = makeChecker("memory:al\u00efce:s\u00e9same:bob:hunter2")
        for name, password in (("al\u00efce", "s\u00e9same"), ("bob", "hunter2")):
            right = UsernamePassword(name.encode(), password.encode())
            found = self.successResultOf(checker.requestAvatarId(right))
            self.assertEqual(found, name.encode())
            wrong = UsernamePassword(name.encode(), b"wrong")
            self.failureResultOf(checker.requestAvatarId(wrong), UnauthorizedLogin)

    def test_memoryOfBytes(self) -> None:
        """
        The users of a C{memory:} checker that are bytes already are left alone.
        """
        users = InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")
        self.patch(strcred, "makeChecker", lambda _description: users)
        self.assertIs(makeChecker("memory:alice:sesame"), users)
        self.assertEqual(users.users, {b"alice": b"sesame"})

    def test_noFile(self) -> None:
        """
        C{file:} and C{scram:} without a path are refused.
        """
        for kind in ("file", "scram"):
            for description in (kind, f"{kind}:"):
                with self.assertRaisesRegex(ValueError, "takes the path of a file"):
                    makeChecker(description)


class ScramFileFactoryTests(SynchronousTestCase):
    """
    Tests for C{--auth=scram:FILE}.
    """

    def test_installed(self) -> None:
        """
        Twisted finds the plugin.
        """
        path = Path(self.mktemp())
        path.write_text(f"alice:{ScramKeys.fromPassword('sesame').toText()}\n")
        self.assertIsInstance(strcred.makeChecker(f"scram:{path}"), ScramFile)
        factories: list[object] = list(getPlugins(ICheckerFactory))
        self.assertTrue(any(isinstance(factory, ScramFileFactory) for factory in factories))

    def test_notInstalled(self) -> None:
        """
        Without scramp, the error says what to install.
        """
        with (
            mock.patch.dict(sys.modules, {"kaproto.security.scramfile": None}),
            self.assertRaisesRegex(ValueError, r"pip install 'kaproto\[scram\]'"),
        ):
            ScramFileFactory().generateChecker("x")
