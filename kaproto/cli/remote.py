"""
The commands that ask a running C{kaserver}, over the socket of its C{--admin}.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from twisted.python.usage import UsageError

from kaproto.admin.client import ControlClient
from kaproto.cli.command import CommandFailed, ExitCode, number, wholeNumber
from kaproto.cli.objects import ago, fields, messageLine, milliseconds, who
from kaproto.cli.remotecommand import RemoteCommand
from kaproto.cli.table import table
from kaproto.status.texts import elapsed

__all__ = [
    "Disconnect",
    "Drain",
    "Ended",
    "List",
    "Refused",
    "Reload",
    "Replace",
    "Show",
    "Status",
    "Trace",
]

_Object = dict[str, Any]


class List(RemoteCommand):
    """
    List the clients that are connected.
    """

    async def perform(self, client: ControlClient) -> int:
        """
        List them.
        """
        found = await client.clients()
        rows = [
            (
                each["id"],
                each["transport"],
                each["address"] or f"pid {each['pid']}",
                who(each),
                ago(each["since"]),
                each["phase"],
                each["keepalive_asked"],
                milliseconds(each["latency_us"]),
                each["opened"],
            )
            for each in found
        ]
        headings = (
            "ID",
            "TRANSPORT",
            "FROM",
            "WHO",
            "SINCE",
            "PHASE",
            "KEEPALIVE",
            "LATENCY",
            "OPENED",
        )
        return self.show(found, *table(headings, rows))


class Show(RemoteCommand):
    """
    Show all details of one client.
    """

    synopsis = "[options] ID"

    def parseArgs(self, which: str) -> None:  # type: ignore[override]
        """
        Take the id.
        """
        self["id"] = _id(which)

    async def perform(self, client: ControlClient) -> int:
        """
        Show it.
        """
        found = await client.client(self["id"])
        lines = [line for each in found for line in fields(each)]
        return self.show(found, *lines)


class Disconnect(RemoteCommand):
    """
    Disconnect one client.
    """

    synopsis = "[options] ID"
    optParameters: ClassVar = [
        ["reason", "r", None, "The reason, for the client, the log and kaproto ended."]
    ]

    def parseArgs(self, which: str) -> None:  # type: ignore[override]
        """
        Take the id.
        """
        self["id"] = _id(which)

    async def perform(self, client: ControlClient) -> int:
        """
        Disconnect it.
        """
        await client.disconnect(self["id"], self["reason"])
        return self.show([{"id": self["id"]}], f"client {self['id']} is disconnected")


class Ended(RemoteCommand):
    """
    List the latest connections that ended, and why.
    """

    async def perform(self, client: ControlClient) -> int:
        """
        List them.
        """
        found = await client.ended()
        rows = [
            (
                each["id"],
                each["ended"],
                elapsed(each["duration_s"]),
                each["address"] or f"pid {each['pid']}",
                who(each),
                each["reason"],
                each["message"],
            )
            for each in found
        ]
        headings = ("ID", "ENDED", "AFTER", "FROM", "WHO", "REASON", "MESSAGE")
        return self.show(found, *table(headings, rows))


class Refused(RemoteCommand):
    """
    List clients that were refused, or would be in mode 2.
    """

    async def perform(self, client: ControlClient) -> int:
        """
        List them.
        """
        found = await client.refused()
        rows = [
            (
                each["host"],
                who(each),
                each["refused"],
                each["would_refuse"],
                each["last"],
            )
            for each in found
        ]
        headings = ("HOST", "WHO", "REFUSED", "WOULD REFUSE", "LAST")
        return self.show(found, *table(headings, rows))


class Status(RemoteCommand):
    """
    Show the state of kaserver.  Exits with 1 when it accepts no new clients.
    """

    async def perform(self, client: ControlClient) -> int:
        """
        Show it.
        """
        found = await client.status()
        self.show(found, *(line for each in found for line in fields(each)))
        return ExitCode.OK if all(each["ready"] for each in found) else ExitCode.FAILED


class Trace(RemoteCommand):
    """
    Watch the messages of one client: their headers, not their contents.
    """

    synopsis = "[options] ID"
    optParameters: ClassVar = [
        ["for", "f", 60, "Seconds to watch.", wholeNumber("for", 1)],
    ]

    def parseArgs(self, which: str) -> None:  # type: ignore[override]
        """
        Take the id.
        """
        self["id"] = _id(which)

    async def perform(self, client: ControlClient) -> int:
        """
        Watch.
        """
        before = "["

        def traced(event: _Object) -> None:
            nonlocal before
            if self["json"]:
                self.write(before + json.dumps(event))
                before = ","
            else:
                self.write(messageLine(event))

        end = await client.trace(self["id"], self["for"], traced)
        if self["json"]:
            self.write("[]" if before == "[" else "]")
        else:
            self.write(f"end of the trace: {end}")
        return ExitCode.OK


class Reload(RemoteCommand):
    """
    Make kaserver read its files again: certificates, rules, users.
    """

    async def perform(self, client: ControlClient) -> int:
        """
        Reload.

        @raise CommandFailed: when a file cannot be used; its previous contents stay in use.
        """
        problems = await client.reload()
        if problems:
            raise CommandFailed("; ".join(problems))
        return self.show([], "reloaded")


class Replace(RemoteCommand):
    """
    Replace the workers of a kaserver --workers, one by one, for example after an upgrade.  A new
    worker serves before the old one stops accepting, so no client is refused.  The clients of the
    old one have C{--drain-timeout} seconds to leave.
    """

    async def perform(self, client: ControlClient) -> int:
        """
        Replace them.
        """
        number = await client.replace()
        return self.show(
            [{"workers": number}], f"{number} new workers serve; the old ones end when empty"
        )


class Drain(RemoteCommand):
    """
    Make kaserver accept no new clients, and stop when the present ones have left.
    """

    optParameters: ClassVar = [
        ["within", "w", None, "Seconds that clients have to leave.", number("within")]
    ]

    async def perform(self, client: ControlClient) -> int:
        """
        Drain.
        """
        (status,) = await client.status()
        await client.drain(self["within"])
        return self.show(
            [{"clients": status["clients"]}],
            _drained(status["clients"]),
        )


def _drained(clients: int) -> str:
    if not clients:
        return "kaserver stops: there are no clients"
    left = "1 client has" if clients == 1 else f"{clients} clients have"
    return f"kaserver accepts no new clients; it stops when {left} left"


def _id(text: str) -> int:
    """
    @raise UsageError: when it is not a whole number.
    """
    if not (text.isascii() and text.isdecimal()) or int(text) >= 1 << 64:
        raise UsageError(f"a client's id is a whole number, as kaproto list shows it, not {text!r}")
    return int(text)
