"""
virsh, as anybody has it installed, against C{twistd kaserver}.
"""

from __future__ import annotations

import os
import re
import socket
from xml.etree import ElementTree as ET

from tests.interop.programs import Program, runVirsh, startVirsh
from tests.interop.shared import SharedServer
from tests.interop.support import InteropTestCase, pause, together

_COMMANDS = ("hostname", "uri", "version", "list --all", "nodeinfo", "capabilities")


def _memoryKiB() -> int:
    """
    @return: the memory of this machine, as the kernel tells it.
    """
    with open("/proc/meminfo", encoding="ascii") as file:
        match = re.search(r"MemTotal:\s+(\d+) kB", file.read())
    assert match is not None
    return int(match[1])


class CommandTests(InteropTestCase):
    """
    Single commands: each connects, negotiates, opens, asks, closes.
    """

    async def _runAll(self, mode: int) -> tuple[SharedServer, dict[str, str]]:
        """
        Run every command against one server, all at the same time.

        @return: the server, and the output of each command.
        """
        server = await SharedServer.get(f"--mode={mode}")
        results = await together(
            *(runVirsh(self, "-c", server.uri, *command.split()) for command in _COMMANDS)
        )
        for command, result in zip(_COMMANDS, results, strict=True):
            self.assertEqual((result.exitCode, result.errors), (0, ""), f"virsh {command}")
        return server, dict(
            zip(_COMMANDS, (result.output.strip() for result in results), strict=True)
        )

    async def _check(self, mode: int) -> None:
        """
        What virsh prints is true for this machine.
        """
        server, outputs = await self._runAll(mode)
        self.assertEqual(outputs["hostname"], socket.gethostname())
        self.assertEqual(outputs["uri"], server.uri)
        self.assertRegex(outputs["version"], r"Running hypervisor: \S+ \d+\.\d+\.\d+")
        self.assertRegex(outputs["list --all"], r"^Id +Name +State\n-+")
        self._checkNode(outputs["nodeinfo"])
        capabilities = ET.fromstring(outputs["capabilities"])
        self.assertEqual(capabilities.tag, "capabilities")
        self.assertEqual(capabilities.findtext("host/cpu/arch"), os.uname().machine)
        self.assertNotIn("Traceback", server.log)

    def _checkNode(self, output: str) -> None:
        """
        C{virsh nodeinfo} describes this machine, and its numbers agree with each other.
        """
        node = dict(re.findall(r"^(.+?): +(.+)$", output, re.MULTILINE))
        self.assertEqual(node["CPU model"], os.uname().machine)
        self.assertEqual(int(node["CPU(s)"]), os.cpu_count())
        self.assertEqual(int(node["Memory size"].removesuffix(" KiB")), _memoryKiB())
        parts = ("NUMA cell(s)", "CPU socket(s)", "Core(s) per socket", "Thread(s) per core")
        capacity = 1
        for part in parts:
            capacity *= int(node[part])
        # Processors that are switched off count in the topology, but not among the CPUs.
        self.assertGreaterEqual(capacity, int(node["CPU(s)"]))

    async def test_mode0(self) -> None:
        """
        In mode 0 each command is answered with the truth about this machine.
        """
        await self._check(0)

    async def test_mode1(self) -> None:
        """
        In mode 1 each command is answered with the truth about this machine.
        """
        await self._check(1)

    async def test_mode2(self) -> None:
        """
        In mode 2 each command is answered with the truth about this machine.
        """
        await self._check(2)


class InteractiveTests(InteropTestCase):
    """
    virsh with its prompt, which stays connected between commands.
    """

    async def _servers(self, *arguments: str) -> list[SharedServer]:
        """
        @return: a server in each of the modes 0, 1 and 2.
        """
        return await together(
            *(SharedServer.get(f"--mode={mode}", *arguments) for mode in range(3))
        )

    async def _hostname(self, virsh: Program) -> str:
        """
        @return: what the command C{hostname} prints.
        """
        match = await virsh.ask("hostname", r"hostname\n(.*)\n")
        return match[1]

    async def test_connect(self) -> None:
        """
        C{connect} in a running virsh closes one connection and opens another.
        """
        await together(*(self._connectAgain(server) for server in await self._servers()))

    async def _connectAgain(self, server: SharedServer) -> None:
        """
        Use C{connect} with one server.
        """
        virsh = startVirsh(self, "-c", server.uri)
        self.assertEqual(await self._hostname(virsh), socket.gethostname())
        await virsh.ask(f"connect {server.uri}", r"virsh # $")
        self.assertEqual(await self._hostname(virsh), socket.gethostname())
        virsh.send("quit")
        result = await virsh.finish()
        self.assertEqual((result.exitCode, result.errors), (0, ""))

    async def test_staysConnected(self) -> None:
        """
        C{virsh -k 1 -K 2}, which gives up 3 s after the server fell silent, and a server that
        does the same, stay connected while there is nothing to say, in each of the modes.
        """
        servers = await self._servers("--interval=1", "--count=2")
        programs = [startVirsh(self, "-k", "1", "-K", "2", "-c", server.uri) for server in servers]
        for virsh in programs:
            await virsh.waitOutput("virsh # ")
        await pause(3.5)
        for virsh in programs:
            self.assertEqual(await self._hostname(virsh), socket.gethostname())
            virsh.send("quit")
            result = await virsh.finish()
            self.assertEqual((result.exitCode, result.errors), (0, ""))
            self.assertNotIn("isconnected", result.output)
