"""
The command line of C{kaproto}.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Final, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from kaproto.cli.certificates import Certificates
from kaproto.cli.command import Command, CommandFailed, ExitCode, printVersion
from kaproto.cli.completion import Completion
from kaproto.cli.demo import Demo
from kaproto.cli.fleet import FleetDisconnect, FleetDrain, FleetList, FleetRefused, Nodes
from kaproto.cli.ping import Ping
from kaproto.cli.remote import (
    Disconnect,
    Drain,
    Ended,
    List,
    Refused,
    Reload,
    Replace,
    Show,
    Status,
    Trace,
)
from kaproto.cli.remotecommand import DEFAULT_SOCKET

__all__ = ["FLEET_COMMANDS", "Options", "main", "perform"]


FLEET_COMMANDS: Final[list[list[Any]]] = [
    ["nodes", None, Nodes, "List the nodes."],
    ["list", None, FleetList, "List the clients of all nodes, or of one."],
    ["refused", None, FleetRefused, "List clients that were refused, or would be in mode 2."],
    ["disconnect", None, FleetDisconnect, "Disconnect one client, NODE/ID."],
    ["drain", None, FleetDrain, "Make a node stop when its clients have left."],
]
"""
The commands available with C{--registry}.
"""


class Options(BaseOptions):
    """
    The command line.
    """

    longdesc = (
        "Exit status: 0 for success, 1 if the command failed, 2 for a mistake on the command line, "
        "3 if kaserver could not be reached."
    )
    optParameters: ClassVar = [
        ["socket", "s", DEFAULT_SOCKET, "The socket of kaserver's --admin."],
        [
            "registry-password-file",
            None,
            None,
            "Log in to the registry with the first line of this file.",
        ],
    ]
    subCommands: ClassVar[list[list[Any]]] = [
        ["list", None, List, "List the clients of a running kaserver."],
        ["show", None, Show, "Show one client."],
        ["disconnect", None, Disconnect, "Disconnect one client."],
        ["ended", None, Ended, "List connections that ended, and why."],
        ["refused", None, Refused, "List clients that were refused, or would be in mode 2."],
        ["trace", None, Trace, "Watch the messages of one client."],
        ["status", None, Status, "Show the state of kaserver."],
        ["reload", None, Reload, "Make kaserver read its files again."],
        ["replace", None, Replace, "Replace workers one by one, for example after an upgrade."],
        ["drain", None, Drain, "Make kaserver stop when its clients have left."],
        ["nodes", None, Nodes, "List the kaservers in a registry (--registry)."],
        ["ping", None, Ping, "Ping a libvirt host or a kaserver."],
        ["demo", None, Demo, "Watch keepalive at work, in ten seconds, without libvirt."],
        ["certificates", None, Certificates, "Make certificates for a trial of TLS."],
        ["completion", None, Completion, "Print a script that completes commands in your shell."],
    ]

    @property
    def synopsis(self) -> str:
        """
        The first line of C{--help}, for C{kaproto} and for each command.
        """
        command = "" if self.subCommand else " COMMAND"
        whom = "--registry=URL" if self.get("registry") else "[--socket=PATH]"
        return f"Usage: kaproto {whom}{command}"

    def opt_registry(self, url: str) -> None:
        """
        Ask the kaservers listed there: nodes, list, refused, disconnect, drain.
        """
        self["registry"] = url
        self.subCommands = FLEET_COMMANDS  # type: ignore[misc]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse the command line.

        @raise UsageError: when it is wrong; the message lists what is allowed.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except UsageError as error:
            unknown = str(error).removeprefix("Unknown command: ")
            if unknown == str(error):
                raise
            where = " with --registry" if self.get("registry") else ""
            known = ", ".join(each[0] for each in self.subCommands)
            message = f"there is no command {unknown!r}{where}; there are {known}"
            raise UsageError(message) from error

    def opt_version(self) -> None:
        """
        Print kaproto's version and exit.
        """
        printVersion()

    def postOptions(self) -> None:
        """
        @raise UsageError: when there is no command.
        """
        if self.subCommand is None:
            raise UsageError("which command? kaproto --help lists them")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """
    Run a command, and exit the process.

    @param arguments: the command line without the program's name; by default that of the process.
    """
    options = Options()  # type: ignore[no-untyped-call]
    try:
        options.parseOptions(arguments)
    except UsageError as error:
        text = str(error).removeprefix("Parameter type enforcement failed: ")
        sys.stderr.write(f"kaproto: {text}\n")
        raise SystemExit(ExitCode.USAGE) from error
    command = options.subOptions
    assert isinstance(command, Command), "there is one, postOptions says"
    from twisted.internet.task import react

    react(lambda reactor: Deferred.fromCoroutine(_exit(reactor, command)))


async def _exit(reactor: object, command: Command) -> NoReturn:
    raise SystemExit(await perform(IReactorTime(reactor), command))


async def perform(reactor: IReactorTime, command: Command) -> int:
    """
    Run a command.  The first Ctrl-C ends it gracefully.

    @return: the exit code.
    """
    running = Deferred.fromCoroutine(command.run(reactor))

    def interrupted(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        IReactorFromThreads(reactor).callFromThread(running.cancel)

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        return await running
    except CommandFailed as error:
        sys.stderr.write(f"kaproto: {error}\n")
        return error.exitCode
    except CancelledError:
        return ExitCode.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
