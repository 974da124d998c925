"""
Runs programs beside the test: virsh, Python scripts with the libvirt bindings, daemons.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.interop.support import (
    PYTHON,
    VIRSH,
    InteropTestCase,
    privateEnvironment,
    reactor,
    waitUntil,
)

__all__ = ["Program", "Result", "runVirsh", "startPythonLibvirt", "startVirsh"]


class Result(NamedTuple):
    """
    How a program ended.

    @ivar exitCode: its exit code, or C{None} when a signal ended it.
    @ivar signal: the number of that signal, or C{None}.
    @ivar output: all of its standard output.
    @ivar errors: all of its standard error.
    """

    exitCode: int | None
    signal: int | None
    output: str
    errors: str


class Program(ProcessProtocol):
    """
    A program that runs during the test, and whose output is kept.

    @ivar endedAt: when it ended, on the monotonic clock, or C{None} while it runs.
    """

    transport: IProcessTransport

    def __init__(self, name: str) -> None:
        self._name = name
        self._output = bytearray()
        self._errors = bytearray()
        self._reason: ProcessDone | ProcessTerminated | None = None
        self.endedAt: float | None = None
        self._pid = 0

    @classmethod
    def start(
        cls,
        case: InteropTestCase,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: str | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Self:
        """
        Start a program.  If it still runs at the end of the test, it is killed.

        @param command: the path of the program, then its arguments.
        @param uid: run as this user; only root can do that.
        """
        program = cls(os.path.basename(command[0]))
        reactor.spawnProcess(
            program,
            command[0],
            list(command),
            env=dict(environment),
            path=directory,
            uid=uid,
            gid=gid,
        )
        case.addCleanup(program.kill)
        return program

    def connectionMade(self) -> None:
        """
        Remember the process id: the transport forgets it when the program ends.
        """
        self._pid = self.transport.pid

    def outReceived(self, data: bytes) -> None:
        """
        Keep the standard output.
        """
        self._output += data

    def errReceived(self, data: bytes) -> None:
        """
        Keep the standard error.
        """
        self._errors += data

    def processExited(self, reason: Failure) -> None:
        """
        Record when the program ended.
        """
        self.endedAt = time.monotonic()

    def processEnded(self, reason: Failure) -> None:
        """
        Record how the program ended; all of its output has been read.
        """
        assert isinstance(reason.value, ProcessDone | ProcessTerminated)
        self._reason = reason.value

    @property
    def pid(self) -> int:
        """
        The process id.
        """
        return self._pid

    @property
    def running(self) -> bool:
        """
        Whether the program still runs.
        """
        return self.endedAt is None

    @property
    def output(self) -> str:
        """
        The standard output so far.
        """
        return self._output.decode("utf-8", "replace")

    @property
    def errors(self) -> str:
        """
        The standard error so far.
        """
        return self._errors.decode("utf-8", "replace")

    def describe(self) -> str:
        """
        @return: the state and output of the program, for failure messages.
        """
        state = "running" if self.running else "ended"
        return f"{self._name} ({state})\n--- output\n{self.output}\n--- errors\n{self.errors}"

    def send(self, line: str) -> None:
        """
        Write a line to the program's standard input.
        """
        self.transport.write(line.encode() + b"\n")

    def signal(self, number: int) -> None:
        """
        Send a signal, if the program still runs.
        """
        if self.running:
            os.kill(self._pid, number)

    async def waitOutput(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """
        Wait until C{pattern}, a regular expression, matches in the standard output or the standard
        error.

        @raise AssertionError: when it has not matched within C{timeout} seconds, or the program
            ended without a match.
        """

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.output) or re.search(pattern, self.errors)
            if match is None and self._reason is not None:
                raise AssertionError(f"no {pattern!r} ever came from {self.describe()}")
            return match

        return await waitUntil(found, lambda: f"{pattern!r} from {self.describe()}", timeout)

    async def ask(self, line: str, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """
        Write a line to the standard input, and wait until C{pattern} matches in the standard output
        that follows.
        """
        seen = len(self.output)
        self.send(line)

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.output[seen:])

        return await waitUntil(
            found, lambda: f"{pattern!r} after {line!r} from {self.describe()}", timeout
        )

    async def finish(self, timeout: float = 20.0) -> Result:
        """
        Wait for the program to end by itself.

        @raise AssertionError: when it still runs after C{timeout} seconds.
        """
        return await waitUntil(self._result, lambda: f"the end of {self.describe()}", timeout)

    def _result(self) -> Result | None:
        if self._reason is None:
            return None
        return Result(self._reason.exitCode, self._reason.signal, self.output, self.errors)

    async def kill(self) -> None:
        """
        Kill the program, even if it is stopped, and wait for its end.
        """
        self.signal(signal.SIGKILL)
        await self.finish()


def startVirsh(case: InteropTestCase, *arguments: str) -> Program:
    """
    Start virsh.  Without a command among the arguments it is interactive: it takes commands from
    L{Program.ask}, and stays connected between them.
    """
    directory = case.privateDirectory()
    return Program.start(case, [VIRSH, *arguments], privateEnvironment(directory), directory)


async def runVirsh(case: InteropTestCase, *arguments: str, timeout: float = 15.0) -> Result:
    """
    Run virsh, and wait for its end.

    @param timeout: the most seconds it may run.
    """
    return await startVirsh(case, *arguments).finish(timeout)


def startPythonLibvirt(case: InteropTestCase, script: str, *arguments: str) -> Program:
    """
    Run a script with the system's Python, which has the libvirt bindings.

    @param script: its text; C{libvirt}, C{json}, C{sys}, C{threading} and C{time} are already
        imported.
    @param arguments: C{sys.argv} from 1 on.
    """
    directory = case.privateDirectory()
    preamble = "import json, sys, threading, time\nimport libvirt\n"
    return Program.start(
        case,
        [PYTHON, "-u", "-c", preamble + script, *arguments],
        privateEnvironment(directory),
        directory,
    )
