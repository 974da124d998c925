"""
A libvirtd in the servers' namespace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.harness.faults.ends import Server
from tests.harness.faults.namespaces import Namespaces, TimedProgram, listening
from tests.interop.servers import LibvirtDaemon
from tests.interop.support import InteropTestCase

__all__ = ["NamespacedDaemon"]

_PORT = 16509


class NamespacedDaemon(LibvirtDaemon):
    """
    A libvirtd for clients in the other namespace.

    @ivar program: the current process.
    """

    address = "0.0.0.0"
    program: TimedProgram
    _namespaces: Namespaces

    @classmethod
    async def inNamespace(
        cls, case: InteropTestCase, namespaces: Namespaces, interval: int = 5, count: int = 5
    ) -> NamespacedDaemon:
        """
        Start it, and wait until it accepts connections.

        @param interval: its C{keepalive_interval} in seconds.
        @param count: its C{keepalive_count}.
        """
        daemon = cls(case, case.privateDirectory(), interval, count)
        daemon._namespaces = namespaces
        daemon.port = _PORT + namespaces.number()
        await daemon.restart()
        return daemon

    def launch(
        self, command: Sequence[str], environment: Mapping[str, str], user: int | None
    ) -> TimedProgram:
        """
        Start the process in the namespace.
        """
        become = [] if user is None else [f"--setuid={user}", f"--setgid={user}"]
        inside = self._namespaces.inServers(*become)
        return TimedProgram.start(self._case, [*inside, *command], environment, self._directory)

    def listens(self) -> bool:
        """
        Check in the kernel's table, which works across namespaces.

        @return: whether it listens on its TCP port.
        """
        return listening(self.program.pid, self.port)

    def server(self) -> Server:
        """
        @return: the server for clients to connect to.
        """
        return Server(self.program, self.port, self._interval, self._count, "libvirtd")
