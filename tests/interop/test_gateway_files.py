"""
Tests for calls that can carry file descriptors, through the gateway.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from tests.interop.gateway import GatewayTestCase
from tests.interop.programs import startPythonLibvirt
from tests.interop.support import unavailable

_SCRIPT = """
import os, libvirt_qemu
libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.open(sys.argv[1])
XML = '''<domain type="%s"><name>files</name><memory>65536</memory>
<os><type arch="x86_64">hvm</type></os></domain>'''
results = []

def attempt(function, *arguments):
    try:
        result = function(*arguments)
    except libvirt.libvirtError as error:
        result = [error.get_error_code(), str(error)]
    results.append(result.name() if isinstance(result, libvirt.virDomain) else result)

nothing = os.open(os.devnull, os.O_RDONLY)
for files in ([], [nothing] * 2):
    if sys.argv[2] == "qemu":
        if not results:
            domain = connection.createXML(XML % "qemu", libvirt.VIR_DOMAIN_START_PAUSED)
        attempt(lambda: libvirt_qemu.qemuMonitorCommandWithFiles(
            domain, '{"execute": "query-status"}', files, 0)[0])
    else:
        attempt(connection.createXMLWithFiles, XML % "test", files, 0)
    results.append(connection.getType())
print(json.dumps(results), flush=True)
"""


class FilesTests(GatewayTestCase):
    """
    Tests for a client on a UNIX socket, where file descriptors can be sent.
    """

    tools = ("virsh", "libvirtd", "python3-libvirt")

    async def results(self, driver: str) -> list[list[Any]]:
        """
        @return: the results of calls with no and with two files, direct and through the gateway;
            after each call the connection is used again.
        """
        path = os.path.join(self.privateDirectory(), "gateway")
        daemon, _server = await self.start(f"--listen=unix:{path}", mode=1)
        found = []
        for socket in (daemon.socketPath, path):
            name = "/session" if driver == "qemu" else "/default"
            program = startPythonLibvirt(
                self, _SCRIPT, f"{driver}+unix://{name}?socket={socket}", driver
            )
            result = await program.finish(30)
            self.assertEqual(result.exitCode, 0, program.describe())
            found.append(json.loads(result.output))
            if driver == "qemu":
                await self.virsh(f"qemu+unix:///session?socket={socket}", ["destroy files"])
        return found

    def assertRefused(self, answer: list[Any]) -> None:
        """
        Check that the answer is the gateway's refusal.
        """
        self.assertEqual(answer[0], 84)
        self.assertIn("file descriptors cannot be passed through a gateway", answer[1])

    async def test_create(self) -> None:
        """
        Creating a domain with an empty list of files works as it does directly.  With files it is
        refused, and the connection stays open.
        """
        direct, relayed = await self.results("test")
        self.assertEqual(relayed[:2], direct[:2])
        self.assertRefused(relayed[2])
        self.assertEqual(relayed[3], "TEST")

    async def test_monitor(self) -> None:
        """
        A command to qemu's monitor, as virt-qemu-qmp-proxy sends it, works without files and is
        refused with them, and the connection stays open.
        """
        if shutil.which("qemu-system-x86_64") is None:
            unavailable("no qemu-system-x86_64, which has the monitor")
        direct, relayed = await self.results("qemu")
        self.assertIn('"status"', direct[0])
        self.assertEqual(relayed[:2], direct[:2])
        self.assertRefused(relayed[2])
        self.assertEqual(relayed[3], "QEMU")
