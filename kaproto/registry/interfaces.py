"""
Interfaces between a server and its registry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

__all__ = ["IRegistry", "Node", "NotDisconnected", "RegistryStatus"]


class NotDisconnected(Exception):
    """
    It is unknown whether a client was disconnected; the message says why.
    """


@attrs.frozen
class RegistryStatus:
    """
    The state of a registry.

    @ivar where: its location, for people.
    @ivar problem: why its list is not up to date; C{None} if it is.
    @ivar stale: for how many seconds the list has not been up to date.
    """

    where: str
    problem: str | None = None
    stale: float = 0.0


class Node(Protocol):
    """
    The part of a server that its registry uses.
    """

    def follow(self, changed: Callable[[int], object]) -> None:
        """
        Call C{changed}, with the number of the connection, whenever a client has connected or
        ended, or its description has changed.
        """

    def numbers(self) -> Collection[int]:
        """
        @return: the numbers of the connections of all clients.
        """

    def client(self, number: int) -> Mapping[str, object] | None:
        """
        @return: the description of a client, for JSON; C{None} if it is not connected.
        """

    def about(self) -> Mapping[str, object]:
        """
        @return: the description of the server itself, for JSON.
        """

    def refused(self) -> Sequence[Mapping[str, object]]:
        """
        @return: clients that were refused, or would be in mode 2, the latest first, for JSON.
        """

    def disconnect(self, number: int, reason: str | None) -> bool | Deferred[bool]:
        """
        Disconnect a client.

        @return: whether the client was connected.  A Deferred may fail with L{NotDisconnected}.
        """

    def drain(self) -> None:
        """
        Accept no new clients, and stop when the present ones have left.
        """


class IRegistry(Interface):
    """
    Lists the clients of this node and of other nodes, and receives orders to disconnect them.

    The failure of a registry must not delay, refuse or disconnect a client.  A reply from the
    registry must not admit one.
    """

    node: str = Attribute("The name of this node.")

    def start(node: Node) -> None:
        """
        Start listing a server's clients.
        """

    def stop() -> Deferred[None]:
        """
        Remove this node from the list, if the registry answers at once.

        @return: fires within a few seconds, whether that has succeeded or failed.
        """

    def status() -> RegistryStatus:
        """
        @return: the current state.
        """
