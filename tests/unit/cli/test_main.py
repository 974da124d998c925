"""
Tests for L{kaproto.cli.main}, and for what all commands share.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kaproto import __version__
from kaproto.cli.command import Command, CommandFailed, number, wholeNumber
from kaproto.cli.main import Options, main, perform
from kaproto.cli.ping import Ping


@implementer(IReactorFromThreads)
class Reactor(MemoryReactorClock):
    """
    A reactor that calls functions from threads at once.
    """

    def callFromThread(  # type: ignore[override]
        self, function: Callable[[], object]
    ) -> None:
        """
        Call the function.
        """
        function()


class Waiting(Command):
    """
    A command whose end the test decides.
    """

    def __init__(self) -> None:
        super().__init__()
        self.result: Deferred[int] = Deferred()

    async def run(self, reactor: IReactorTime) -> int:
        """
        Wait for the result.
        """
        return await self.result


def parse(*arguments: str) -> Options:
    """
    @return: the options of a parsed command line.
    """
    options = Options()  # type: ignore[no-untyped-call]
    options.parseOptions(arguments)
    return options


class OptionsTests(SynchronousTestCase):
    """
    Tests for the command line.
    """

    def test_mistakes(self) -> None:
        """
        The error for a mistake names the argument or says what is allowed.
        """
        for arguments, words in [
            ((), "which command?"),
            (("nonsense",), "there is no command 'nonsense'; there are list, show, disconnect"),
            (
                ("--registry=redis://h", "show", "1"),
                "no command 'show' with --registry; there are nodes, list, refused, disconnect",
            ),
            (("ping",), "write kaproto ping [options] URI"),
            (("ping", "a", "b"), "write kaproto ping [options] URI"),
            (("list", "5"), "write kaproto list [options]"),
            (("--registry=redis://h", "drain"), "write kaproto drain [options] NODE"),
            (("ping", "--count=0", "x"), "--count takes a whole number from 1 up, not '0'"),
            (("ping", "--interval=0", "x"), "--interval takes a number from 0.1"),
            (("ping", "--interval=x", "x"), "not 'x'"),
            (("ping", "--freeze", "--check", "x"), "--freeze"),
            (("ping", "--check", "--json", "x"), "leave --json out"),
            (("completion", "tcsh"), "bash, zsh or fish, not 'tcsh'"),
        ]:
            error = self.assertRaises(UsageError, parse, *arguments)
            self.assertIn(words, str(error), arguments)

    def test_help(self) -> None:
        """
        A command's help begins with its usage.
        """
        options = parse("ping", "tcp:host")
        self.assertIsInstance(options.subOptions, Ping)
        self.assertIn(
            "Usage: kaproto [--socket=PATH] ping [options] URI\n", str(options.subOptions)
        )
        fresh = Options()  # type: ignore[no-untyped-call]
        self.assertIn("Usage: kaproto [--socket=PATH] COMMAND\n", str(fresh))

    def test_version(self) -> None:
        """
        Every command accepts C{--version}.
        """
        for arguments in (["--version"], ["ping", "--version"]):
            with redirect_stdout(io.StringIO()) as out:
                error = self.assertRaises(SystemExit, parse, *arguments)
            self.assertEqual((error.code, out.getvalue()), (0, f"kaproto {__version__}\n"))

    def test_numbers(self) -> None:
        """
        Negative numbers, infinities, NaN and empty text are refused.
        """
        self.assertEqual(number("x")("0.5"), 0.5)
        self.assertEqual(wholeNumber("x")("5"), 5)
        for text in ("nan", "inf", "-1", ""):
            self.assertRaises(ValueError, number("x"), text)
            self.assertRaises(ValueError, wholeNumber("x"), text)


class PerformTests(SynchronousTestCase):
    """
    Tests for running a command.
    """

    def setUp(self) -> None:
        """
        Start a command.
        """
        self.before = signal.getsignal(signal.SIGINT)
        self.command = Waiting()
        self.running = Deferred.fromCoroutine(perform(Reactor(), self.command))
        self.addCleanup(signal.signal, signal.SIGINT, self.before)

    def assertExit(self, code: int) -> None:
        """
        Check that the command has ended with this exit code, and that the signal handler is
        restored.
        """
        self.assertEqual(self.successResultOf(self.running), code)
        self.assertIs(signal.getsignal(signal.SIGINT), self.before)

    def test_result(self) -> None:
        """
        The exit code is the command's result.
        """
        self.command.result.callback(7)
        self.assertExit(7)

    def test_failed(self) -> None:
        """
        The error of a command that fails is printed.
        """
        with redirect_stderr(io.StringIO()) as errors:
            self.command.result.errback(CommandFailed("no such client", 5))
        self.assertExit(5)
        self.assertEqual(errors.getvalue(), "kaproto: no such client\n")

    def test_interrupted(self) -> None:
        """
        Ctrl-C cancels the command, with exit code 130.
        """
        handler = signal.getsignal(signal.SIGINT)
        assert callable(handler)
        handler(signal.SIGINT, None)
        self.assertExit(130)


class MainTests(SynchronousTestCase):
    """
    Tests for the whole process.
    """

    def test_mistake(self) -> None:
        """
        A mistake on the command line is reported in one line, with exit code 2.
        """
        with redirect_stderr(io.StringIO()) as errors:
            error = self.assertRaises(SystemExit, main, ["nonsense"])
        self.assertEqual(error.code, 2)
        self.assertIn("kaproto: there is no command 'nonsense'", errors.getvalue())

    def test_writes(self) -> None:
        """
        Commands print lines to standard output.
        """
        with redirect_stdout(io.StringIO()) as out:
            Command().write("line")
        self.assertEqual(out.getvalue(), "line\n")
        self.assertIsNot(sys.stdout, out)

    def test_abstract(self) -> None:
        """
        The base class cannot be run.
        """
        running = Deferred.fromCoroutine(Command().run(MemoryReactorClock()))
        self.failureResultOf(running, NotImplementedError)

    def test_exits(self) -> None:
        """
        The process ends with the command's exit code.
        """
        found: list[Deferred[object]] = []

        def react(run: Callable[[object], Deferred[object]]) -> None:
            found.append(run(Reactor()))

        self.patch(task, "react", react)
        with redirect_stdout(io.StringIO()) as out:
            main(["ping", "--check", "qemu+udp://host/system"])
        error = self.failureResultOf(found[0], SystemExit).value
        self.assertEqual(error.code, 3)
        self.assertIn("is not one of tcp, tls, unix", out.getvalue())
