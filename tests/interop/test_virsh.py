"""
Tests for an unmodified virsh with C{twistd kaserver}.
"""

from __future__ import annotations

import os
import re
import socket
import time
from xml.etree import ElementTree as ET

from kaproto.backends.domain import DOMAIN
from tests.interop.programs import Program, runVirsh, startVirsh
from tests.interop.servers import KaServer
from tests.interop.shared import SharedServer
from tests.interop.support import InteropTestCase, pause, together

_COMMANDS = ("hostname", "uri", "version", "list --all", "nodeinfo", "capabilities")
_DOMAIN = """\
Id:             1
Name:           test
UUID:           {uuid}
OS Type:        hvm
State:          running
CPU(s):         1
Max memory:     1048576 KiB
Used memory:    1048576 KiB
Persistent:     yes
Autostart:      disable
Managed save:   no
"""


def _memoryKiB() -> int:
    """
    @return: the memory of this machine, according to the kernel.
    """
    with open("/proc/meminfo", encoding="ascii") as file:
        match = re.search(r"MemTotal:\s+(\d+) kB", file.read())
    assert match is not None
    return int(match[1])


class CommandTests(InteropTestCase):
    """
    Tests for single commands: each connects, negotiates, opens, calls and closes.
    """

    async def _runAll(self, mode: int) -> tuple[SharedServer, dict[str, str]]:
        """
        Run every command concurrently with one server.

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
        Check that virsh prints facts about this machine.
        """
        server, outputs = await self._runAll(mode)
        self.assertEqual(outputs["hostname"], socket.gethostname())
        self.assertEqual(outputs["uri"], server.uri)
        self.assertRegex(outputs["version"], r"Running hypervisor: \S+ \d+\.\d+\.\d+")
        self.assertRegex(outputs["list --all"], r"^Id +Name +State\n-+\n 1 +test +running$")
        self._checkNode(outputs["nodeinfo"])
        capabilities = ET.fromstring(outputs["capabilities"])
        self.assertEqual(capabilities.tag, "capabilities")
        self.assertEqual(capabilities.findtext("host/cpu/arch"), os.uname().machine)
        self.assertNotIn("Traceback", server.log)

    def _checkNode(self, output: str) -> None:
        """
        Check that C{virsh nodeinfo} describes this machine, and that its numbers are consistent.
        """
        node = dict(re.findall(r"^(.+?): +(.+)$", output, re.MULTILINE))
        self.assertEqual(node["CPU model"], os.uname().machine)
        self.assertEqual(int(node["CPU(s)"]), os.cpu_count())
        self.assertEqual(int(node["Memory size"].removesuffix(" KiB")), _memoryKiB())
        parts = ("NUMA cell(s)", "CPU socket(s)", "Core(s) per socket", "Thread(s) per core")
        capacity = 1
        for part in parts:
            capacity *= int(node[part])
        # Offline processors are part of the topology, but do not count as CPUs.
        self.assertGreaterEqual(capacity, int(node["CPU(s)"]))

    async def test_facts(self) -> None:
        """
        In each mode, each command prints facts about this machine.
        """
        await together(*map(self._check, range(3)))


class DomainTests(InteropTestCase):
    """
    Tests for the domain of the embedded host.
    """

    async def _commands(self, server: KaServer, commands: str) -> str:
        """
        Run commands in one virsh.

        @return: what it printed, without empty lines.
        """
        result = await runVirsh(self, "-c", server.uri, commands)
        self.assertEqual((result.exitCode, result.errors), (0, ""), commands)
        return "".join(line + "\n" for line in result.output.splitlines() if line)

    async def test_domain(self) -> None:
        """
        virsh can show and change the domain, and prints why something cannot be done.
        """
        await together(
            self._facts(),
            self._unknown(),
            self._suspended(),
            self._events(),
            self._wrongState(),
        )

    async def _facts(self) -> None:
        """
        C{dominfo} and C{dumpxml} describe the domain, by name, id or UUID.
        """
        server = await KaServer.start(self)
        for name in ("test", "1", str(DOMAIN.uuid)):
            self.assertEqual(
                await self._commands(server, f"dominfo {name}"), _DOMAIN.format(uuid=DOMAIN.uuid)
            )
        output = await self._commands(server, "domid test; domuuid test; dumpxml test")
        number, uuid, text = output.split("\n", 2)
        self.assertEqual((number, uuid), ("1", str(DOMAIN.uuid)))
        self.assertEqual(ET.fromstring(text).findtext("name"), "test")

    async def _unknown(self) -> None:
        """
        virsh reports an unknown domain as not found.
        """
        server = await KaServer.start(self)
        result = await runVirsh(self, "-c", server.uri, "dominfo other")
        self.assertEqual(result.exitCode, 1)
        self.assertIn("failed to get domain 'other'", result.errors)

    async def _suspended(self) -> None:
        """
        A domain suspended by one virsh is paused for the others until it is resumed.
        """
        server = await KaServer.start(self, "--mode=2")
        self.assertEqual(
            await self._commands(server, "suspend test; domstate --reason test"),
            "Domain 'test' suspended\npaused (user)\n",
        )
        self.assertRegex(await self._commands(server, "list --all"), r" 1 +test +paused\n")
        self.assertNotIn("test", await self._commands(server, "list --state-running"))
        self.assertEqual(
            await self._commands(server, "resume test; domstate --reason test"),
            "Domain 'test' resumed\nrunning (unpaused)\n",
        )

    async def _events(self) -> None:
        """
        C{event --all} prints the changes that another virsh makes.
        """
        server = await KaServer.start(self, "--mode=2")
        watching = startVirsh(self, "-c", server.uri, "event --all --loop --timeout 30")
        # virsh prints nothing when it has registered, so change the domain until it prints an
        # event.
        deadline = time.monotonic() + 15
        while "Suspended" not in watching.output and time.monotonic() < deadline:
            await self._commands(server, "suspend test; resume test")
        for event in ("Suspended Paused", "Resumed Unpaused"):
            await watching.waitOutput(f"event 'lifecycle' for domain 'test': {event}")
        self.assertEqual(watching.errors, "")

    async def _wrongState(self) -> None:
        """
        virsh prints why a running domain cannot be resumed, and that a read-only connection cannot
        suspend it.
        """
        server = await KaServer.start(self)
        result = await runVirsh(self, "-c", server.uri, "resume test")
        self.assertEqual(result.exitCode, 1)
        self.assertIn("domain 'test' is not paused", result.errors)
        result = await runVirsh(self, "-r", "-c", server.uri, "suspend test")
        self.assertIn("read only access prevents virDomainSuspend", result.errors)


class InteractiveTests(InteropTestCase):
    """
    Tests for an interactive virsh, which stays connected between commands.
    """

    async def _servers(self, *arguments: str) -> list[SharedServer]:
        """
        @return: a server in each mode.
        """
        return await together(
            *(SharedServer.get(f"--mode={mode}", *arguments) for mode in range(3))
        )

    async def _hostname(self, virsh: Program) -> str:
        """
        @return: the output of the command C{hostname}.
        """
        match = await virsh.ask("hostname", r"hostname\n(.*)\n")
        return match[1]

    async def test_connect(self) -> None:
        """
        C{connect} in a running virsh closes its connection and opens another.
        """
        await together(*(self._connectAgain(server) for server in await self._servers()))

    async def _connectAgain(self, server: SharedServer) -> None:
        """
        Check C{connect} with one server.
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
        In each mode an idle C{virsh -k 1 -K 2}, which gives up 3 s after the server's last message,
        stays connected to a server with the same settings.
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
