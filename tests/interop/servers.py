"""
The two servers that are compared, each in its own process: C{twistd kaserver} and libvirtd.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

from tests.interop.programs import Program
from tests.interop.support import (
    LIBVIRTD,
    InteropTestCase,
    privateEnvironment,
    waitUntil,
)

__all__ = ["KaServer", "LibvirtDaemon", "holdPort", "reservePort", "twistdCommand"]

_LISTENING = re.compile(r"127\.0\.0\.1:(\d+)")
_UNPRIVILEGED = 65534
"""
The user id of C{nobody}, for a libvirtd started by root.
"""

_DAEMON_SETTINGS = """
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
tcp_port = "{port}"
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_dir = "{directory}"
keepalive_interval = {interval}
keepalive_count = {count}
log_outputs = "3:stderr"
"""


def twistdCommand() -> list[str]:
    """
    @return: the command for the twistd of the Python that runs the tests.
    """
    script = os.path.join(os.path.dirname(sys.executable), "twistd")
    if os.access(script, os.X_OK):
        return [script]
    return [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


class KaServer:
    """
    A kaserver on a loopback port of its own.

    @ivar program: the process; its output is the log.
    @ivar port: the port that it listens on.
    """

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.port = port

    @classmethod
    async def start(
        cls,
        case: InteropTestCase,
        *arguments: str,
        listen: str = "tcp:0:interface=127.0.0.1",
        twistd: Sequence[str] | None = None,
    ) -> KaServer:
        """
        Start it, and wait until its log says that it listens.

        @param arguments: the arguments of C{kaserver}, besides the endpoint.
        @param listen: the endpoint.
        @param twistd: the command for twistd, if not L{twistdCommand}.
        """
        directory = case.privateDirectory()
        command = [*(twistdCommand() if twistd is None else twistd), "-n", "--pidfile="]
        command += ["kaserver", f"--listen={listen}", *arguments]
        program = Program.start(case, command, os.environ, directory)
        match = await program.waitOutput(_LISTENING.pattern, timeout=20)
        return cls(program, int(match[1]))

    @property
    def uri(self) -> str:
        """
        The URI for virsh.
        """
        return f"test+tcp://127.0.0.1:{self.port}/default"

    @property
    def log(self) -> str:
        """
        The log so far.
        """
        return self.program.output + self.program.errors


class LibvirtDaemon:
    """
    A real libvirtd with the test driver, which shares nothing with any other on this machine.

    Only an unprivileged libvirtd keeps all its sockets, locks and state in folders that the
    environment names, so root runs it as C{nobody}.  It can listen on TCP nevertheless.

    @cvar address: the address that it listens on.
    @ivar port: the TCP port that it listens on, without authentication.
    @ivar socketPath: the path of its UNIX socket.
    @ivar program: the current process.
    """

    address = "127.0.0.1"
    program: Program

    def __init__(
        self,
        case: InteropTestCase,
        directory: str,
        interval: int,
        count: int,
        settings: str = "",
    ) -> None:
        self._case = case
        self._settings = settings
        self._directory = directory
        self._interval = interval
        self._count = count
        self.port = 0
        self.socketPath = os.path.join(directory, "libvirt-sock")

    @classmethod
    async def start(
        cls, case: InteropTestCase, interval: int = -1, count: int = 5, settings: str = ""
    ) -> LibvirtDaemon:
        """
        Start it, and wait until it accepts connections.

        @param interval: its C{keepalive_interval} in seconds; with -1 it never pings.
        @param count: its C{keepalive_count}.
        @param settings: more lines for its configuration file.
        """
        daemon = cls(case, case.privateDirectory(), interval, count, settings)
        daemon.port = reservePort(case)
        await daemon.restart()
        return daemon

    async def restart(self) -> None:
        """
        Start it on the same paths and the same port as before.  The previous process must have
        ended.
        """
        environment = privateEnvironment(self._directory)
        settings = os.path.join(self._directory, "libvirtd.conf")
        with open(settings, "w", encoding="ascii") as file:
            file.write(
                _DAEMON_SETTINGS.format(
                    address=self.address,
                    port=self.port,
                    directory=self._directory,
                    interval=self._interval,
                    count=self._count,
                )
                + self._settings
            )
        os.makedirs(environment["XDG_RUNTIME_DIR"], mode=0o700, exist_ok=True)
        user = _UNPRIVILEGED if os.geteuid() == 0 else None
        if user is not None:
            for path in (self._directory, environment["XDG_RUNTIME_DIR"]):
                os.chown(path, user, user)
        pidFile = os.path.join(self._directory, "libvirtd.pid")
        command = [LIBVIRTD, "--listen", "--config", settings, "--pid-file", pidFile]
        self.program = self.launch(command, environment, user)
        await waitUntil(self._accepts, self.program.describe, timeout=20)

    def launch(
        self, command: Sequence[str], environment: Mapping[str, str], user: int | None
    ) -> Program:
        """
        Start the process.

        @param user: run as this user and its group.
        """
        return Program.start(self._case, command, environment, self._directory, uid=user, gid=user)

    def listens(self) -> bool:
        """
        @return: whether the TCP socket accepts connections.
        """
        return _takesConnections(socket.AF_INET, (self.address, self.port))

    def _accepts(self) -> bool:
        """
        @return: whether both sockets accept connections.
        @raise AssertionError: when libvirtd has ended.
        """
        if not self.program.running:
            raise AssertionError(f"no libvirtd: {self.program.describe()}")
        return _takesConnections(socket.AF_UNIX, self.socketPath) and self.listens()

    @property
    def uri(self) -> str:
        """
        The URI for clients over TCP.
        """
        return f"test+tcp://127.0.0.1:{self.port}/default"

    @property
    def unixURI(self) -> str:
        """
        The URI for clients over the UNIX socket.
        """
        return f"test+unix:///default?socket={self.socketPath}"

    def freeze(self) -> None:
        """
        Stop the process (C{SIGSTOP}): its sockets stay open, but nothing is answered.
        """
        self.program.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """
        Continue a stopped process (C{SIGCONT}).
        """
        self.program.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """
        Kill the process (C{SIGKILL}).  L{restart} starts another.
        """
        await self.program.kill()


def _takesConnections(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    """
    @return: whether a server listens at the address.
    """
    with socket.socket(family) as probe:
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


def reservePort(case: InteropTestCase) -> int:
    """
    Reserve a loopback TCP port until the test ends, for a program that cannot choose one.
    """
    holder = holdPort()
    case.addCleanup(holder.close)
    return int(holder.getsockname()[1])


def holdPort() -> socket.socket:
    """
    Reserve a loopback TCP port for a program that cannot choose one.

    @return: a socket bound to it.  No other program is given that port, but one that sets
        C{SO_REUSEADDR}, like libvirtd, can listen there.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder
