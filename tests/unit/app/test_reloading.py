"""
Tests for L{kaproto.app.reloading}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.logger import LogLevel

from kaproto.app.reloading import Reloader
from kaproto.registry.location import Password
from kaproto.security.passwordfile import PasswordFile
from tests.support import ClockTestCase


class File:
    """
    Something that was read from a file.

    @ivar read: how often it was reloaded.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        self.read = 0
        self._error = error

    def reload(self) -> None:
        """
        Count, and fail if there is an error.
        """
        self.read += 1
        if self._error is not None:
            raise self._error


class ReloaderTests(ClockTestCase):
    """
    Tests for reloading files.
    """

    def test_each(self) -> None:
        """
        Everything that can be reloaded is.  An error is logged and does not keep the others from
        being reloaded.
        """
        good = File()
        errors = [
            ValueError("line 2: no"),
            OSError(13, "Permission denied"),
            RecursionError("maximum recursion depth exceeded"),
            MemoryError(),
        ]
        bad = [File(each) for each in errors]
        problems = Reloader([object(), *bad, good]).reload()
        self.assertEqual(problems[0], "line 2: no")
        self.assertEqual(len(problems), 4)
        self.assertEqual([each.read for each in (*bad, good)], [1] * 5)
        self.assertEqual(self.logged(LogLevel.info), ["reloaded File"])
        self.assertEqual(
            self.logged(LogLevel.error),
            [
                f"could not reload File, keeping the previous version: {each}"
                for each in (
                    "line 2: no",
                    "[Errno 13] Permission denied",
                    "maximum recursion depth exceeded",
                    "MemoryError",
                )
            ],
        )

    def test_names(self) -> None:
        """
        The log names what was reloaded in an administrator's words.
        """
        path = Path(self.mktemp())
        path.write_text("alice:sesame\n")
        Reloader([PasswordFile(path), Password(path)]).reload()
        self.assertEqual(
            self.logged(),
            [f"reloaded the users in {path}", f"reloaded the password in {path}"],
        )

    def test_nothing(self) -> None:
        """
        A reload without anything to read is logged.
        """
        Reloader([object()]).reload()
        self.assertEqual(
            self.logged(), ["nothing to reload: no setting names a file that can be read again"]
        )
