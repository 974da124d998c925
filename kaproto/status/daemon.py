"""
The running C{kaserver}, as those who watch and steer it see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from kaproto.registry.interfaces import IRegistry
from kaproto.server import KeepAliveServerFactory
from kaproto.status.register import Register

__all__ = ["SERVER_NAME", "Daemon", "readiness"]

SERVER_NAME: Final = "kaserver"
"""
What C{virt-admin} and C{kaproto} call the server.
"""


class Daemon(Protocol):
    """
    A server that can be reloaded and stopped.

    @ivar factory: the factory of its connections.
    @ivar draining: whether it accepts no new clients.
    @ivar register: its clients.
    @ivar registry: where its clients are listed beside those of other servers.
    """

    factory: KeepAliveServerFactory
    draining: bool
    register: Register
    registry: IRegistry

    @property
    def listeners(self) -> Sequence[str]:
        """
        The endpoint strings of the places that it listens at.
        """

    def certificateExpiry(self) -> Mapping[str, float]:
        """
        @return: when the certificates end that clients are shown, in seconds since 1970, by
            listener.
        """

    async def reload(self) -> Sequence[str]:
        """
        Read files again: certificates, rules, the list of those who may log in.

        @return: what could not be read and is in use as it was before; nothing if all is well.
        """

    def drain(self, within: float | None = None) -> None:
        """
        Accept no new clients, and stop when those that are there have left.

        @param within: seconds that they have; by default what the configuration says.
        """

    def stop(self) -> None:
        """
        Stop in order, as on SIGTERM.
        """


def readiness(daemon: Daemon) -> str | None:
    """
    @return: why no new client should be sent to a daemon; C{None} if it is ready.
    """
    if daemon.draining:
        return "draining"
    return daemon.register.problem()
