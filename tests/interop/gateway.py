"""
A libvirtd with a gateway in front of it, and the gateway's resources as the kernel reports them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tests.interop import wire
from tests.interop.programs import Program, Result
from tests.interop.rawclient import RawClient
from tests.interop.servers import KaServer, LibvirtDaemon
from tests.interop.support import (
    VIRSH,
    InteropTestCase,
    privateEnvironment,
    together,
    waitUntil,
)

__all__ = ["GatewayTestCase", "openSockets", "residentKiB"]


def openSockets(pid: int) -> int:
    """
    @return: how many sockets a process has open.
    """
    found = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")
    return found


def residentKiB(pid: int) -> int:
    """
    @return: the resident memory of a process, in KiB.
    """
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        match = re.search(r"VmRSS:\s+(\d+) kB", file.read())
    assert match is not None
    return int(match[1])


class GatewayTestCase(InteropTestCase):
    """
    A test with libvirtd and a kaserver in front of it.
    """

    tools: tuple[str, ...] = ("virsh", "libvirtd")

    async def start(self, *arguments: str, mode: int = 2) -> tuple[LibvirtDaemon, KaServer]:
        """
        Start both.

        @param arguments: for kaserver, besides C{--mode} and C{--upstream}.
        """
        daemon = await LibvirtDaemon.start(self)
        return daemon, await self.startGateway(daemon, *arguments, mode=mode)

    async def startGateway(self, daemon: LibvirtDaemon, *arguments: str, mode: int = 2) -> KaServer:
        """
        Start a kaserver in front of a libvirtd's UNIX socket.
        """
        upstream = f"--upstream=unix:{daemon.socketPath}"
        return await KaServer.start(self, f"--mode={mode}", upstream, "--insecure", *arguments)

    def startVirsh(
        self, uri: str, commands: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Program:
        """
        Run commands in one virsh, and print each before its output.

        @param environment: variables to add.
        """
        directory = self.privateDirectory()
        script = "; ".join(f"echo '=== {command}'; {command}" for command in commands)
        return Program.start(
            self,
            [VIRSH, "-c", uri, script],
            privateEnvironment(directory) | dict(environment or {}),
            directory,
        )

    async def virsh(
        self, uri: str, commands: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Result:
        """
        Run commands in one virsh, as L{startVirsh} does, and wait for its end.
        """
        return await self.startVirsh(uri, commands, environment).finish(30)

    async def client(self, port: int) -> RawClient:
        """
        Connect a client that has asked for keepalive and registered a close callback.
        """
        client = await RawClient.connect(self, port)
        await client.open()
        await client.succeed(wire.CLOSE_CALLBACK)
        return client

    async def clients(self, port: int, count: int) -> list[RawClient]:
        """
        Connect C{count} clients as L{client} does.
        """
        return await together(*(self.client(port) for _number in range(count)))

    async def settled(self, server: KaServer, sockets: int) -> None:
        """
        Wait until a kaserver has at most C{sockets} sockets open.
        """
        pid = server.program.pid
        await waitUntil(
            lambda: openSockets(pid) <= sockets,
            lambda: f"{sockets} open sockets in kaserver, which has {openSockets(pid)}",
        )
