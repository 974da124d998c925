"""
Tests for programs that do not ask for keepalive: exceptions and read-only listeners.
"""

from __future__ import annotations

import os
import re

from tests.interop.gateway import GatewayTestCase
from tests.interop.programs import Program, Result, runVirsh
from tests.interop.servers import KaServer
from tests.interop.support import PYTHON, InteropTestCase, privateEnvironment, together

OPEN = """
import libvirt, sys
libvirt.registerErrorHandler(lambda context, error: None, None)
try:
    domain = libvirt.open(sys.argv[1]).lookupByName("test")
    domain.suspend()
    print("suspended", domain.name())
except libvirt.libvirtError as error:
    print(error)
"""
"""
A program without an event loop, like most batch tools.
"""


class ExceptionsTests(InteropTestCase):
    """
    Tests for kaserver on a UNIX socket.
    """

    tools = ("python3-libvirt",)

    async def serve(self, *arguments: str, options: str = "") -> tuple[KaServer, str]:
        """
        Start kaserver.

        @param options: what follows the path in the endpoint.
        @return: the server, and the URI for its UNIX socket.
        """
        path = os.path.join(self.privateDirectory(), "sock")
        server = await KaServer.start(
            self, "--mode=2", f"--listen=unix:{path}{options}", *arguments
        )
        await server.program.waitOutput(re.escape(path))
        return server, f"test+unix:///default?socket={path}"

    async def openAs(self, uri: str, name: str) -> Result:
        """
        Run the program without an event loop.

        @param name: the name of its executable.
        """
        directory = self.privateDirectory()
        python = os.path.join(directory, name)
        os.symlink(PYTHON, python)
        script = os.path.join(directory, "script.py")
        with open(script, "w", encoding="ascii") as file:
            file.write(OPEN)
        command = [python, script, uri]
        return await Program.start(self, command, privateEnvironment(directory)).finish()

    async def test_exceptions(self) -> None:
        """
        The exceptions apply to the programs that they name, in modes 1 and 2; a read-only listener
        is read-only for them too.
        """
        await together(
            self._program(),
            self._longName(),
            self._wouldRefuse(),
            self._readOnly(),
        )

    async def _program(self) -> None:
        """
        A program with an exception can open.  Others are refused with a message that names the
        exception to add, and logged with program and process id.
        """
        server, uri = await self.serve("--except=program=virt-install", "--except=user=nobody")
        result = await self.openAs(uri, "virt-install")
        self.assertEqual(result.output, "suspended test\n", result)
        result = await self.openAs(uri, "virt-clone")
        self.assertIn("this server requires keepalive", result.output)
        self.assertIn("--except=program=virt-clone", result.output)
        match = re.search(r"refused unix socket pid=\d+ uid=\d+ program='virt-clone'", server.log)
        self.assertIsNotNone(match, server.log)
        self.assertIn("(exception program=virt-install)", server.log)

    async def _longName(self) -> None:
        """
        C{program=} matches names longer than the 15 characters that the kernel keeps.
        """
        name = "prometheus-libvirt-exporter"
        _server, uri = await self.serve(f"--except=program={name}")
        self.assertEqual((await self.openAs(uri, name)).output, "suspended test\n")

    async def _wouldRefuse(self) -> None:
        """
        In mode 1, programs with an exception are not logged as those that mode 2 would refuse.
        """
        server, uri = await self.serve("--mode=1", "--except=program=virt-install")
        for name in ("virt-install", "virt-clone"):
            await self.openAs(uri, name)
            await runVirsh(self, "-c", uri, "resume test")
        self.assertIn("program='virt-clone': mode 2 would refuse", server.log)
        self.assertNotIn("program='virt-install': mode 2 would refuse", server.log)

    async def _readOnly(self) -> None:
        """
        A client of a read-only listener can read but not modify, even if it did not ask for a
        read-only connection.
        """
        server, uri = await self.serve("--except=transport=unix", options=":readonly=yes")
        self.assertIn("read-only", server.log)
        result = await self.openAs(uri, "virt-install")
        self.assertEqual(
            result.output,
            "operation forbidden: read only access prevents virDomainSuspend\n",
        )
        result = await runVirsh(self, "-c", uri, "domstate test")
        self.assertEqual(result.output.strip(), "running")
        # The other listener is not read-only.
        result = await runVirsh(self, "-c", server.uri, "suspend test")
        self.assertEqual((result.exitCode, result.errors), (0, ""))


class ReadOnlyGatewayTests(GatewayTestCase):
    """
    Tests for a gateway with a read-only listener.
    """

    async def test_readOnly(self) -> None:
        """
        libvirtd is opened read-only for clients of that listener, and refuses their changes.
        Clients of the other listener can make changes.
        """
        path = os.path.join(self.privateDirectory(), "sock")
        _daemon, server = await self.start(f"--listen=unix:{path}:readonly=yes")
        await server.program.waitOutput(re.escape(path))
        uri = f"test+unix:///default?socket={path}"
        result = await runVirsh(self, "-c", uri, "suspend test")
        self.assertEqual(result.exitCode, 1)
        self.assertIn("read only access prevents virDomainSuspend", result.errors)
        result = await runVirsh(self, "-c", uri, "domstate test")
        self.assertEqual(result.output.strip(), "running")
        result = await runVirsh(self, "-c", server.uri, "suspend test")
        self.assertEqual((result.exitCode, result.errors), (0, ""))
