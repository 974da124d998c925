"""
A socket that somebody else listens on, as systemd does it for a service that it starts, with the
unit files that the documentation has to copy.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
from configparser import ConfigParser

from tests.interop.gateway import GatewayTestCase
from tests.interop.programs import Program, runVirsh
from tests.interop.servers import KaServer, LibvirtDaemon, twistdCommand
from tests.interop.support import reactor

_UNITS = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "systemd")

_START = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""
"""
Tells the program that the sockets are for it, in the words of systemd.
"""


def _unit(name: str) -> ConfigParser:
    """
    @return: a unit file.  Where a setting is given more than once, the last is told.
    """
    unit = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    with open(os.path.join(_UNITS, name), encoding="ascii") as file:
        unit.read_string(file.read().replace("\\\n", ""))
    return unit


class ActivationTests(GatewayTestCase):
    """
    C{--listen=systemd:domain=INET:name=NAME}.
    """

    async def activated(self, command: list[str]) -> KaServer:
        """
        Start a kaserver as its unit says, with a socket that is listening already.

        @param command: the twistd to run, and its arguments.
        """
        name = _unit("kaserver.socket")["Socket"]["FileDescriptorName"]
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.addCleanup(listening.close)
        program = Program("kaserver")
        reactor.spawnProcess(
            program,
            sys.executable,
            [sys.executable, "-c", _START, *command],
            env=os.environ | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": name},
            path=self.privateDirectory(),
            childFDs={0: "w", 1: "r", 2: "r", 3: listening.fileno()},
        )
        self.addCleanup(program.kill)
        return KaServer(program, listening.getsockname()[1])

    async def test_serves(self) -> None:
        """
        With the command of the service's unit, and a socket named as in the socket's unit, a
        virsh that connects while kaserver is still starting gets through to libvirtd. The log
        says where kaserver listens.
        """
        daemon = await LibvirtDaemon.start(self)
        command = shlex.split(_unit("kaserver.service")["Service"]["ExecStart"])
        self.assertEqual(command[0], "/opt/kaproto/bin/twistd")
        self.assertEqual(command[-1], "--upstream=unix:/run/libvirt/libvirt-sock")
        server = await self.activated(
            [*twistdCommand(), *command[1:-1], f"--upstream=unix:{daemon.socketPath}"]
        )
        direct = await runVirsh(self, "-c", daemon.uri, "hostname")
        self.assertEqual(direct.exitCode, 0)
        self.assertEqual(await runVirsh(self, "-c", server.uri, "hostname"), direct)
        self.assertIn(f"listening on tcp 127.0.0.1:{server.port} (mode optional", server.log)
        server.program.signal(signal.SIGTERM)
        ended = await server.program.finish()
        self.assertEqual(ended.signal, signal.SIGTERM)
        self.assertNotIn("Traceback", server.log)

    async def test_noSuchName(self) -> None:
        """
        A name that the socket's unit does not have is a mistake on the command line, not a
        traceback.
        """
        command = [*twistdCommand(), "-n", "--pidfile=", "kaserver"]
        server = await self.activated([*command, "--listen=systemd:domain=INET:name=other"])
        ended = await server.program.finish()
        self.assertEqual(ended.exitCode, 1)
        self.assertIn("--listen=systemd:domain=INET:name=other: ", ended.output + ended.errors)
        self.assertNotIn("Traceback", ended.output + ended.errors)
