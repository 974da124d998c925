"""
Two network namespaces joined by links, and programs that run in them.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final

from tests.harness.faults import link
from tests.harness.faults.link import Quality
from tests.interop.programs import Program
from tests.interop.support import InteropTestCase, unavailable

__all__ = [
    "CUT",
    "GOOD",
    "Namespaces",
    "Report",
    "TimedProgram",
    "established",
    "listening",
    "portOf",
]

GOOD: Final = Quality()
"""
Every packet arrives without delay.
"""

CUT: Final = Quality(loss=1.0)
"""
No packet arrives.
"""

_ESTABLISHED: Final = "01"
_LISTENING: Final = "0A"


class TimedProgram(Program):
    """
    A program whose lines of output are recorded with their times.

    @ivar lines: the time on the monotonic clock, and the line.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.lines: list[tuple[float, str]] = []
        self._rests = {1: b"", 2: b""}

    def outReceived(self, data: bytes) -> None:
        """
        Record lines of the standard output.
        """
        super().outReceived(data)
        self._note(1, data)

    def errReceived(self, data: bytes) -> None:
        """
        Record lines of the standard error.
        """
        super().errReceived(data)
        self._note(2, data)

    def _note(self, stream: int, data: bytes) -> None:
        now = time.monotonic()
        *lines, self._rests[stream] = (self._rests[stream] + data).split(b"\n")
        self.lines += [(now, line.decode("utf-8", "replace")) for line in lines]

    def find(self, pattern: str) -> list[tuple[float, re.Match[str]]]:
        """
        @return: the lines that match C{pattern}, a regular expression, and their times.
        """
        found = ((at, re.search(pattern, line)) for at, line in self.lines)
        return [(at, match) for at, match in found if match is not None]


class Report:
    """
    Statistics of the packets on one link so far.

    @ivar toServer: those of packets to the servers, see L{link}.
    @ivar toClient: those of packets to the clients.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.toServer: Mapping[str, Any] = answer["toServer"]
        self.toClient: Mapping[str, Any] = answer["toClient"]

    def heardByServer(self, client: int, server: int) -> list[float]:
        """
        @param client: the client's port.
        @param server: the server's port.
        @return: when new bytes of the client arrived at the server's end.
        """
        heard: list[float] = self.toServer["heard"].get(f"{client}:{server}", [])
        return heard

    def heardByClient(self, client: int, server: int) -> list[float]:
        """
        @return: when new bytes of the server arrived at the client's end.
        """
        heard: list[float] = self.toClient["heard"].get(f"{server}:{client}", [])
        return heard


class Namespaces:
    """
    A namespace for servers, one for clients, and links between them.
    """

    def __init__(self, program: Program, paths: Mapping[str, str | None]) -> None:
        self._program = program
        self._paths = paths
        self._ids = count()

    @classmethod
    async def make(cls, case: InteropTestCase, links: int) -> Namespaces:
        """
        Create the namespaces, which are removed when the test ends.

        @param links: the number of links, all of which start good.
        @raise SkipTest: where that is not permitted, see L{unavailable}.
        """
        command = [sys.executable, link.__file__, str(links)]
        program = Program.start(case, command, os.environ)
        try:
            match = await program.waitOutput(r"\{.*\}\n")
        except AssertionError:
            if not program.errors.startswith("no network namespaces"):
                raise
            unavailable(program.errors.strip())
        return cls(program, json.loads(match[0]))

    def _inside(self, side: str, *options: str) -> list[str]:
        command = ["nsenter", f"--net={self._paths[side]}", *options]
        if self._paths["user"] is not None:
            command += [f"--user={self._paths['user']}", "--preserve-credentials"]
        return command

    def inServers(self, *options: str) -> list[str]:
        """
        @param options: options of C{nsenter}.
        @return: the words before a command that run it in the servers' namespace.
        """
        return self._inside("server", *options)

    def inClients(self) -> list[str]:
        """
        @return: the words before a command that run it in the clients' namespace.
        """
        return self._inside("client")

    def number(self) -> int:
        """
        @return: a new number at each call.
        """
        return next(self._ids)

    async def set(
        self, number: int, toServer: Quality | None = None, toClient: Quality | None = None
    ) -> float:
        """
        Set the quality of a link.

        @param number: the link, from 0 on.
        @param toServer: the quality for packets to the servers; C{None} to leave it.
        @param toClient: the quality for packets to the clients; C{None} to leave it.
        @return: when that was done, on the monotonic clock.
        """
        orders: dict[str, Any] = {"link": number}
        if toServer is not None:
            orders["toServer"] = toServer._asdict()
        if toClient is not None:
            orders["toClient"] = toClient._asdict()
        at: float = (await self._order(orders))["at"]
        return at

    async def report(self, number: int) -> Report:
        """
        @return: statistics of the packets on a link.
        """
        return Report(await self._order({"link": number}))

    async def _order(self, orders: dict[str, Any]) -> dict[str, Any]:
        orders["id"] = self.number()
        match = await self._program.ask(json.dumps(orders), rf'\{{"id": {orders["id"]}, .*\}}\n')
        answer: dict[str, Any] = json.loads(match[0])
        return answer


def _tcpTable(pid: int) -> list[tuple[str, str, str, str]]:
    """
    @return: the TCP sockets in the namespace of a process: for each its local address, its remote
        address, its state and its inode.
    """
    with open(f"/proc/{pid}/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return [(_shown(row[1]), _shown(row[2]), row[3], row[9]) for row in rows]


def _shown(end: str) -> str:
    address, port = end.split(":")
    numbers = int(address, 16).to_bytes(4, sys.byteorder)
    return f"{'.'.join(map(str, numbers))}:{int(port, 16)}"


def established(pid: int, port: int) -> set[str]:
    """
    @param pid: the process of a server.
    @param port: the port it listens on.
    @return: the clients with an established connection, as C{HOST:PORT}.
    """
    return {
        theirs
        for ours, theirs, state, _inode in _tcpTable(pid)
        if state == _ESTABLISHED and ours.endswith(f":{port}")
    }


def listening(pid: int, port: int) -> bool:
    """
    @return: whether a socket in the namespace of a process listens on a port.
    """
    return any(
        state == _LISTENING and ours.endswith(f":{port}")
        for ours, _theirs, state, _inode in _tcpTable(pid)
    )


def portOf(pid: int, server: str) -> int | None:
    """
    @param pid: the process of a client.
    @param server: the server it is connected to, as C{HOST:PORT}.
    @return: the client's local port, or C{None} if it is not connected.
    """
    sockets = _sockets(pid)
    for ours, theirs, state, inode in _tcpTable(pid):
        if theirs == server and state == _ESTABLISHED and f"socket:[{inode}]" in sockets:
            return int(ours.rpartition(":")[2])
    return None


def _sockets(pid: int) -> Sequence[str]:
    names = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue
    return names
