"""
Base classes for subcommands: options, output, exit codes.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from getopt import GetoptError, gnu_getopt
from typing import Any, ClassVar, Final, NoReturn

from twisted.internet.interfaces import IReactorTime
from twisted.python.usage import Options, UsageError

from kaproto import __version__

__all__ = [
    "Command",
    "CommandFailed",
    "ExitCode",
    "ListingCommand",
    "number",
    "printVersion",
    "wholeNumber",
]

_LARGEST: Final = 2147483
_WRONG_NUMBER: Final = "Wrong number of arguments."
"""
Twisted's error message when a command has too many or too few arguments.
"""


class ExitCode(IntEnum):
    """
    The exit codes of commands.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class CommandFailed(Exception):
    """
    A command failed; the message is for the user.

    @ivar exitCode: the exit code.
    """

    def __init__(self, message: str, exitCode: int = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exitCode = exitCode


class Command(Options):
    """
    A subcommand to subclass.

    @ivar write: prints a line.
    """

    longdesc = ""  # Otherwise --help ends with the docstring of __main__.

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.write: Callable[[str], object] = _print

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Accept options before and after other arguments, as GNU's programs do.
        """
        given = sys.argv[1:] if options is None else list(options)
        with suppress(GetoptError):  # The base class reports the error.
            pairs, arguments = gnu_getopt(given, self.shortOpt, self.longOpt)
            valued = {each.rstrip("=") for each in self.longOpt if each.endswith("=")}
            given = [
                f"{name}={value}" if name[2:] in valued else name + value for name, value in pairs
            ]
            given += ["--", *arguments]
        try:
            super().parseOptions(given)  # type: ignore[no-untyped-call]
        except UsageError as error:
            if str(error) != _WRONG_NUMBER:
                raise
            name = "" if self.parent is None else f"{self.parent.subCommand} "
            form = getattr(self, "synopsis", "[options]")
            raise UsageError(f"write kaproto {name}{form}") from error

    def opt_version(self) -> None:
        """
        Print kaproto's version and exit.
        """
        printVersion()

    async def run(self, reactor: IReactorTime) -> int:
        """
        Execute the command.

        @return: the exit code.
        @raise CommandFailed: when the command fails.
        """
        raise NotImplementedError


class ListingCommand(Command):
    """
    A subcommand that prints objects, for people or as JSON.
    """

    optFlags: ClassVar = [["json", "j", "Print an array of JSON objects."]]

    def show(self, objects: Sequence[dict[str, Any]], *lines: str) -> int:
        """
        Print objects as JSON, or else lines for people.

        @return: the exit code for success.
        """
        if self["json"]:
            self.write(json.dumps(list(objects), indent=2))
        else:
            for line in lines:
                self.write(line)
        return ExitCode.OK


def printVersion() -> NoReturn:
    """
    Print kaproto's version and exit.
    """
    sys.stdout.write(f"kaproto {__version__}\n")
    raise SystemExit(ExitCode.OK)


def _print(line: str) -> None:
    # Flush, so that a user who watches a pipe sees each line at once.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def number(flag: str, least: float = 0.0) -> Callable[[str], float]:
    """
    @param flag: the option's name, for errors.
    @param least: the smallest value.
    @return: a function that converts the option's text, or raises L{ValueError}.
    """

    def coerce(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= _LARGEST:
            raise ValueError(f"--{flag} takes a number from {least:g} to {_LARGEST}, not {text!r}")
        return value

    return coerce


def wholeNumber(flag: str, least: int = 0) -> Callable[[str], int]:
    """
    @param flag: the option's name, for errors.
    @param least: the smallest value.
    @return: a function that converts the option's text, or raises L{ValueError}.
    """

    def coerce(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= _LARGEST):
            raise ValueError(f"--{flag} takes a whole number from {least} up, not {text!r}")
        return int(text)

    return coerce
