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
    A libvirtd that clients reach over links.

    @ivar program: the process of the present run.
    """

    address = "0.0.0.0"
    program: TimedProgram
    _namespaces: Namespaces

    @classmethod
    async def inNamespace(
        cls, case: InteropTestCase, namespaces: Namespaces, interval: int = 5, count: int = 5
    ) -> NamespacedDaemon:
        """
        Start it, and wait until it can be connected to.

        @param interval: its own C{keepalive_interval} in seconds.
        @param count: its own C{keepalive_count}.
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
        See L{LibvirtDaemon.listens}.
        """
        return listening(self.program.pid, self.port)

    def server(self) -> Server:
        """
        @return: what clients connect to.
        """
        return Server(self.program, self.port, self._interval, self._count, "libvirtd")
