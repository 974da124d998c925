"""
Starts servers and clients in their namespaces.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from twisted.internet.task import LoopingCall

from tests.harness.faults.ends import OurClient, Server, VirshEnd
from tests.harness.faults.link import serverAddress
from tests.harness.faults.namespaces import Namespaces, TimedProgram, portOf
from tests.harness.faults.verdicts import Judge
from tests.interop.servers import twistdCommand
from tests.interop.support import VIRSH, InteropTestCase, privateEnvironment

__all__ = ["Bench"]

_LOOK_EVERY: Final = 0.03


class Bench:
    """
    Servers and clients for one test.
    """

    def __init__(self, case: InteropTestCase, namespaces: Namespaces) -> None:
        self.case = case
        self.namespaces = namespaces
        self.servers: list[Server] = []
        self.judge = Judge(namespaces)
        self.ours = OurClient.start(case, namespaces)

    @classmethod
    async def make(cls, case: InteropTestCase, links: int) -> Bench:
        """
        Create the namespaces, and start a process with kaproto's client.
        """
        bench = cls(case, await Namespaces.make(case, links))
        bench._watch()
        return bench

    async def anotherClient(self) -> OurClient:
        """
        Start another process with kaproto's client.
        """
        return OurClient.start(self.case, self.namespaces)

    def _watch(self) -> None:
        """
        Check the connections of all servers frequently, until the test ends.
        """
        loop = LoopingCall(self._look)
        loop.start(_LOOK_EVERY)
        self.case.addCleanup(loop.stop)

    def _look(self) -> None:
        for server in self.servers:
            server.look()

    async def kaserver(
        self,
        interval: float,
        count: int,
        *arguments: str,
        command: Sequence[str] | None = None,
        kind: str = "kaserver",
    ) -> Server:
        """
        Start a kaserver in mode 2.

        @param arguments: more arguments for kaserver.
        @param command: another server to start, which logs its address as kaserver does.
        @param kind: its L{Server.kind}.
        """
        if command is None:
            command = [
                *twistdCommand(),
                "-n",
                "--pidfile=",
                "kaserver",
                "--insecure",
                "--listen=tcp:0:interface=0.0.0.0",
                "--mode=2",
                f"--interval={interval}",
                f"--count={count}",
                *arguments,
            ]
        program = TimedProgram.start(
            self.case,
            [*self.namespaces.inServers(), *command],
            os.environ,
            self.case.privateDirectory(),
        )
        match = await program.waitOutput(r"0\.0\.0\.0:(\d+)", timeout=20)
        server = Server(program, int(match[1]), interval, count, kind)
        self.servers.append(server)
        return server

    async def virsh(
        self, server: Server, link: int, interval: int = 0, count: int = 5, name: str = ""
    ) -> VirshEnd:
        """
        Start a virsh in the clients' namespace.

        @param interval: its C{-k}; with 0 it never pings.
        @param count: its C{-K}.
        """
        directory = self.case.privateDirectory()
        settings = ["-k", str(interval), "-K", str(count)]
        program = TimedProgram.start(
            self.case,
            [*self.namespaces.inClients(), VIRSH, *settings, "-c", server.uri(link)],
            privateEnvironment(directory),
            directory,
        )
        await program.waitOutput("virsh # ", timeout=15)
        port = portOf(program.pid, f"{serverAddress(link)}:{server.port}")
        assert port is not None, program.describe()
        shown = name or f"virsh -k {interval}"
        return VirshEnd(program, shown, link, port, server, interval * (count + 1))
