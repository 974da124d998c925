"""
A command to a running C{kaserver}, over the socket of its C{--admin}.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime

from kaproto.admin.client import ControlClient
from kaproto.cli.command import CommandFailed, ExitCode, ListingCommand
from kaproto.errors import RemoteError
from kaproto.wire.programs import ErrorCode

__all__ = ["DEFAULT_SOCKET", "RemoteCommand"]

DEFAULT_SOCKET: Final = "/run/libvirt/virtkaserver-admin-sock"
"""
The path of the socket in kaserver's systemd unit, and for C{virt-admin -c virtkaserver:///system}.
"""


class RemoteCommand(ListingCommand):
    """
    A command to a running C{kaserver}.
    """

    async def run(self, reactor: IReactorTime) -> int:
        """
        Connect, and perform the command.
        """
        assert self.parent is not None, "it is a subcommand"
        path = self.parent["socket"]
        try:
            client = await ControlClient.connect(reactor, path)
        except ConnectError as error:
            raise CommandFailed(_unreachable(path, error), ExitCode.UNREACHABLE) from error
        try:
            return await self.perform(client)
        except RemoteError as error:
            more = ""
            if error.code == ErrorCode.NO_CLIENT:
                more = "; kaproto list shows who is connected, kaproto ended who was"
            raise CommandFailed(error.message + more) from error
        except DeferredTimeout as error:
            raise CommandFailed(
                f"kaserver does not answer at {path}", ExitCode.UNREACHABLE
            ) from error
        finally:
            await client.close()

    async def perform(self, client: ControlClient) -> int:
        """
        Perform the command.

        @return: the exit code.
        """
        raise NotImplementedError


def _unreachable(path: str, error: ConnectError) -> str:
    number = error.osError
    reason = str(error) if number is None else os.strerror(number)
    cure = {
        errno.EACCES: "run kaproto as root, or as the user that kaserver runs as",
        errno.ECONNREFUSED: "kaserver is not running",
    }.get(number, "is kaserver running, with --admin? kaproto --socket=PATH names another socket")
    return f"cannot reach kaserver at {path}: {reason}; {cure}"
