"""
Adapts a running server for its registry.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Mapping, Sequence

from kaproto.admin.disconnecting import disconnectClient
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.status.daemon import Daemon
from kaproto.status.objects import listedObject, nodeObject, refusalObject

__all__ = ["RegisteredNode", "defaultNode"]


def defaultNode() -> str:
    """
    @return: the host's name, made valid as a node's name.
    """
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64].lstrip(".-") or "localhost"


class RegisteredNode:
    """
    A L{kaproto.registry.interfaces.Node}.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._clients: dict[int, ServerConnection] = {}

    def follow(self, changed: Callable[[int], object]) -> None:
        """
        Call C{changed} with the number of each client that connects, changes or leaves.
        """
        clients = self._daemon.factory.clients
        self._clients = {each.peer.id: each for each in clients}

        def onChange(connection: ServerConnection) -> None:
            number = connection.peer.id
            if connection in clients:
                self._clients[number] = connection
            else:
                self._clients.pop(number, None)
            changed(number)

        clients.onChange = onChange

    def numbers(self) -> Collection[int]:
        """
        @return: the numbers of all clients.
        """
        return self._clients.keys()

    def client(self, number: int) -> Mapping[str, object] | None:
        """
        @return: the description of a client, if it is connected.
        """
        client = self._clients.get(number)
        if client is None:
            return None
        return listedObject(client, self._daemon.factory.journal.wallClock)

    def about(self) -> Mapping[str, object]:
        """
        @return: the description of the server.
        """
        return nodeObject(self._daemon)

    def refused(self) -> Sequence[Mapping[str, object]]:
        """
        @return: clients that were refused, or would be in mode 2, the latest first.
        """
        journal = self._daemon.factory.journal
        return [refusalObject(each, journal.wallClock) for each in journal.refusals]

    def disconnect(self, number: int, reason: str | None) -> bool:
        """
        Disconnect a client.

        @return: whether it was connected.
        """
        client = self._clients.get(number)
        if client is None:
            return False
        disconnectClient(client, reason)
        return True

    def drain(self) -> None:
        """
        Drain the server, within its configured time.
        """
        self._daemon.drain()
