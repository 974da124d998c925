"""
Tests for kaserver as a systemd service, with the unit files from the documentation: passed sockets,
notifications and the watchdog.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from configparser import ConfigParser

from twisted.internet.threads import deferToThread

from tests.interop.gateway import GatewayTestCase
from tests.interop.manager import Manager
from tests.interop.programs import Program, runVirsh
from tests.interop.rawclient import RawClient
from tests.interop.servers import LibvirtDaemon, twistdCommand
from tests.interop.support import InteropTestCase, waitUntil

_UNITS = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "systemd")
_STRANGER = 65534

_CONNECT = """
import socket, sys
socket.socket(socket.AF_UNIX).connect(sys.argv[1])
"""

_STUCK = """
import signal, sys, time
from twisted.scripts.twistd import run

def stick(number, frame):
    from twisted.internet import reactor
    reactor.callFromThread(time.sleep, 60)

signal.signal(signal.SIGUSR1, stick)
run()
"""
"""
Runs twistd; SIGUSR1 blocks the reactor for a minute.
"""


class UnitFileTests(InteropTestCase):
    """
    Tests for the unit files.
    """

    tools = ("systemd-analyze",)

    def test_verified(self) -> None:
        """
        C{systemd-analyze verify} accepts the unit files, including the template.
        """
        folder = self.privateDirectory()
        for name in os.listdir(_UNITS):
            if name.endswith((".service", ".socket")):
                with open(os.path.join(_UNITS, name), encoding="ascii") as file:
                    text = file.read().replace("/opt/kaproto/bin/twistd", sys.executable)
                with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                    file.write(text)
        for name in ("kaserver.service", "kaserver@1.service"):
            command = ["systemd-analyze", "verify", "--man=no", os.path.join(folder, name)]
            verified = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual((verified.returncode, verified.stderr), (0, ""))

    def test_stopped(self) -> None:
        """
        Only the main process gets SIGTERM; with C{--workers} that is the parent.
        """
        for name in ("kaserver.service", "kaserver@.service"):
            self.assertEqual(_unit(name)["Service"]["KillMode"], "mixed")


def _unit(name: str) -> ConfigParser:
    """
    @return: a unit file.  Of repeated settings it has the last value.
    """
    unit = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    with open(os.path.join(_UNITS, name), encoding="ascii") as file:
        unit.read_string(file.read().replace("\\\n", ""))
    return unit


class ActivationTests(GatewayTestCase):
    """
    Tests for C{--listen=systemd:domain=UNIX:name=NAME}, as the units use it.
    """

    async def test_units(self) -> None:
        """
        With the service unit's command and another user's socket as in the socket unit, a virsh
        that connects while kaserver is starting reaches libvirtd.  systemd is notified of ready,
        reload and stop.  Throughout, and after the end, the socket keeps its mode and owner, and
        the kernel refuses other users.
        """
        daemon = await LibvirtDaemon.start(self)
        command = shlex.split(_unit("kaserver.service")["Service"]["ExecStart"])
        settings = _unit("kaserver.socket")["Socket"]
        self.assertEqual(command[0], "/opt/kaproto/bin/twistd")
        self.assertEqual(command[-1], "--upstream=unix:/run/libvirt/libvirt-sock")
        manager = Manager(self)
        folder = self.privateDirectory()
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "libvirt-sock")
        owner = 2 if os.geteuid() == 0 else -1
        mode = int(settings["SocketMode"], 8)
        manager.listenUNIX(settings["FileDescriptorName"], path, mode, owner)
        before = os.stat(path)
        admin, _page = self._listenForOperators(manager, folder)

        async def unchanged() -> None:
            after = os.stat(path)
            self.assertEqual(stat.S_IMODE(after.st_mode), 0o660)
            self.assertEqual((after.st_uid, after.st_gid), (before.st_uid, before.st_gid))
            if owner >= 0:
                stranger = Program.start(
                    self,
                    [sys.executable, "-c", _CONNECT, path],
                    {},
                    uid=_STRANGER,
                    gid=_STRANGER,
                )
                self.assertIn("PermissionError", (await stranger.finish()).errors)

        manager.start([*twistdCommand(), *command[1:-1], f"--upstream=unix:{daemon.socketPath}"])
        uri = f"test+unix:///default?socket={path}"
        direct = await runVirsh(self, "-c", daemon.uri, "hostname")
        self.assertEqual(direct.exitCode, 0)
        self.assertEqual(await runVirsh(self, "-c", uri, "hostname"), direct)
        await manager.waitTold("READY", "1")
        log = manager.program.output
        self.assertIn(f"listening on unix {path} (mode optional", log)
        self.assertIn(f"connect with: virsh -c 'qemu+unix:///system?socket={path}'", log)
        self.assertIn(f"listening on unix {admin} (administration", log)
        self.assertIn("0 clients", manager.tellings("STATUS"))
        await unchanged()

        manager.program.signal(signal.SIGHUP)
        await manager.waitTold("READY", "1", times=2)
        self.assertEqual(manager.tellings("RELOADING"), ["1"])
        (usec,) = manager.tellings("MONOTONIC_USEC")
        self.assertLess(int(usec) / 1_000_000, manager.told[-1].at)
        await unchanged()

        manager.program.signal(signal.SIGTERM)
        ended = await manager.program.finish()
        self.assertEqual(ended.signal, signal.SIGTERM)
        self.assertEqual(manager.tellings("STOPPING"), ["1"])
        self.assertGreater(int(manager.tellings("EXTEND_TIMEOUT_USEC")[0]), 5_000_000)
        self.assertNotIn("Traceback", manager.program.output)
        await unchanged()
        waiting = socket.socket(socket.AF_UNIX)
        self.addCleanup(waiting.close)
        waiting.connect(path)

    def _listenForOperators(self, manager: Manager, folder: str) -> list[str]:
        """
        @return: the paths of sockets for administration and the status page, as in their units.
        """
        paths = []
        for unit in ("kaserver-admin.socket", "kaserver-status.socket"):
            settings = _unit(unit)["Socket"]
            paths.append(os.path.join(folder, os.path.basename(settings["ListenStream"])))
            mode = int(settings["SocketMode"], 8)
            manager.listenUNIX(settings["FileDescriptorName"], paths[-1], mode)
        self.assertEqual(os.path.basename(paths[0]), "virtkaserver-admin-sock")
        return paths

    async def test_operators(self) -> None:
        """
        With the service unit's command, the administration socket and the status page work over the
        sockets of their units.
        """
        daemon = await LibvirtDaemon.start(self)
        command = shlex.split(_unit("kaserver.service")["Service"]["ExecStart"])
        manager = Manager(self)
        folder = self.privateDirectory()
        manager.listenUNIX("kaserver", os.path.join(folder, "libvirt-sock"), 0o660)
        admin, page = self._listenForOperators(manager, folder)
        manager.start([*twistdCommand(), *command[1:-1], f"--upstream=unix:{daemon.socketPath}"])
        await manager.waitTold("READY", "1")
        administered = Program.start(
            self,
            [sys.executable, "-m", "kaproto", f"--socket={admin}", "status", "--json"],
            os.environ,
        )
        (status,) = json.loads((await administered.finish()).output)
        self.assertEqual((status["policy"], status["ready"]), ("optional", True))
        with socket.socket(socket.AF_UNIX) as browser:
            browser.connect(page)
            browser.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            answer = await deferToThread(browser.recv, 4096)
        self.assertTrue(answer.startswith(b"HTTP/1.0 200"), answer)

    async def test_environment(self) -> None:
        """
        systemd's variables are removed from the environment of child processes.
        """
        manager = Manager(self)
        port = manager.listenTCP("kaserver")
        listen = "--listen=systemd:domain=INET:name=kaserver"
        manager.start([*twistdCommand(), "-n", "--pidfile=", "kaserver", listen])
        await manager.waitTold("READY", "1")
        # /proc shows the environment at the start, so a child prints what it gets from Python.
        probe = (
            "import os; os.environ['LISTEN_PID'] = os.environ['WATCHDOG_PID'] = str(os.getpid());"
            "from kaproto.app.options import Options; from kaproto.app.service import makeService;"
            "options = Options(); options.parseOptions([]); makeService(options);"
            "os.execvp('env', ['env'])"
        )
        asked = Manager(self)
        asked.listenTCP("kaserver")
        asked.start([sys.executable, "-c", probe])
        output = (await asked.program.finish()).output
        self.assertIn("PATH=", output)
        for name in ("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_"):
            self.assertNotIn(name, output)
        client = await RawClient.connect(self, port)
        await client.open()

    async def test_noSuchName(self) -> None:
        """
        A socket name that systemd did not pass, and a domain that does not fit the socket, are
        usage errors of one line.
        """
        for listen, words in (
            ("systemd:domain=INET:name=other", "systemd has passed no socket named 'other'"),
            (
                "systemd:domain=UNIX:name=kaserver",
                "is of another address family: write domain=INET",
            ),
        ):
            manager = Manager(self)
            manager.listenTCP("kaserver")
            command = [*twistdCommand(), "-n", "--pidfile=", "kaserver", f"--listen={listen}"]
            manager.start(command)
            ended = await manager.program.finish()
            self.assertEqual((ended.exitCode, ended.output), (1, ""))
            self.assertIn(words, ended.errors)
            self.assertEqual(ended.errors.count("\n"), 1)


class WatchdogTests(InteropTestCase):
    """
    Tests for systemd's watchdog.
    """

    def manage(self) -> tuple[Manager, int]:
        """
        Start a service whose reactor can be blocked.

        @return: its manager and its port.
        """
        manager = Manager(self, watchdog=1)
        port = manager.listenTCP("kaserver")
        self.restart(manager)
        return manager, port

    def restart(self, manager: Manager) -> None:
        """
        Start the service, or start it again.
        """
        listen = "--listen=systemd:domain=INET:name=kaserver"
        manager.start([sys.executable, "-c", _STUCK, "-n", "--pidfile=", "kaserver", listen])

    async def test_stuck(self) -> None:
        """
        A blocked reactor does not notify the watchdog; the service is restarted on the same socket.
        """
        manager, port = self.manage()
        await manager.waitTold("READY", "1")
        manager.program.signal(signal.SIGUSR1)
        self.assertTrue(await manager.superviseUntilSilent(10))
        self.restart(manager)
        await manager.waitTold("READY", "1", times=2)
        client = await RawClient.connect(self, port)
        await client.open()

    async def test_healthy(self) -> None:
        """
        A healthy service notifies the watchdog in time, even while clients connect and disconnect
        as fast as they can.
        """
        manager, port = self.manage()
        await manager.waitTold("READY", "1")
        crowd = Program.start(
            self,
            [sys.executable, "-c", _CROWD, str(port)],
            os.environ | {"PYTHONPATH": os.path.join(os.path.dirname(__file__), "..", "..")},
        )
        self.assertFalse(await manager.superviseUntilSilent(3))
        self.assertTrue(crowd.running, crowd.describe())
        await waitUntil(lambda: "1000 opened" in crowd.output, crowd.describe)
        gaps = [each.at for each in manager.told if "WATCHDOG" in each.values]
        self.assertGreaterEqual(len(gaps), 5)


_CROWD = """
import socket, struct, sys
from tests.interop import wire

opening = wire.encode(wire.SUPPORTS_FEATURE, struct.pack(">i", 10), serial=1)
opening += wire.encode(wire.OPEN, wire.OPEN_ARGUMENTS, serial=2)
opened = 0
while True:
    clients = []
    for _ in range(50):  # fewer than the backlog: connections beyond it wait for a second
        client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        client.sendall(opening)
        clients.append(client)
    for client in clients:
        client.recv(1000)
        client.close()
        opened += 1
    if opened == 1000:
        print("1000 opened", flush=True)
"""
