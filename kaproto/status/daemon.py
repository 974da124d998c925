"""
The interface of the running C{kaserver} for monitoring and administration.
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
The name of the server in C{virt-admin} and C{kaproto}.
"""


class Daemon(Protocol):
    """
    A server that can be reloaded and stopped.

    @ivar factory: the factory of its connections.
    @ivar draining: whether it accepts no new clients.
    @ivar register: its clients.
    @ivar registry: lists its clients together with those of other servers.
    """

    factory: KeepAliveServerFactory
    draining: bool
    register: Register
    registry: IRegistry

    @property
    def listeners(self) -> Sequence[str]:
        """
        The endpoint strings on which it listens.
        """

    def certificateExpiry(self) -> Mapping[str, float]:
        """
        @return: when the server's certificates expire, in seconds since 1970, by listener.
        """

    async def reload(self) -> Sequence[str]:
        """
        Reload files: certificates, rules, users.

        @return: an error message for each file that could not be read.  The previous contents of
            such a file stay in use.
        """

    def drain(self, within: float | None = None) -> None:
        """
        Accept no new clients, and stop when the present ones have left.

        @param within: seconds that clients have to leave; by default the configured time.
        """

    def stop(self) -> None:
        """
        Stop gracefully, as on SIGTERM.
        """


def readiness(daemon: Daemon) -> str | None:
    """
    @return: why no new client should be sent to a daemon; C{None} if it is ready.
    """
    if daemon.draining:
        return "draining"
    return daemon.register.problem()
