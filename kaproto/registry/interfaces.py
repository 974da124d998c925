"""
What a registry is to a server, and what a server is to its registry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

__all__ = ["IRegistry", "Node", "RegistryStatus"]


@attrs.frozen
class RegistryStatus:
    """
    How a registry is.

    @ivar where: where it is, for people to read.
    @ivar problem: why its list is not up to date; C{None} if it is.
    @ivar stale: for how many seconds it has not been.
    """

    where: str
    problem: str | None = None
    stale: float = 0.0


class Node(Protocol):
    """
    A server, as its registry sees it.
    """

    def follow(self, changed: Callable[[int], object]) -> None:
        """
        Call C{changed} from now on, with the number of the connection, whenever a client has
        connected, has ended, or has changed in what is shown of it.
        """

    def numbers(self) -> Collection[int]:
        """
        @return: the numbers of the connections of all clients.
        """

    def client(self, number: int) -> Mapping[str, object] | None:
        """
        @return: what is shown of a client, for JSON; C{None} if it is not connected.
        """

    def about(self) -> Mapping[str, object]:
        """
        @return: what is shown of the server itself, for JSON.
        """

    def refused(self) -> Sequence[Mapping[str, object]]:
        """
        @return: who was refused, or would be in mode 2, the latest first, for JSON.
        """

    def disconnect(self, number: int, reason: str | None) -> bool:
        """
        Disconnect a client.

        @return: whether it was connected.
        """

    def drain(self) -> None:
        """
        Accept no new clients, and stop when those that are there have left.
        """


class IRegistry(Interface):
    """
    Lists the clients of this node beside those of others, and takes orders to disconnect them.

    Nothing that becomes of a registry may delay, refuse or end a client, and nothing that it says
    may let one in.
    """

    node: str = Attribute("The name of this node.")

    def start(node: Node) -> None:
        """
        List a server's clients from now on.
        """

    def stop() -> Deferred[None]:
        """
        Take this node off the list, if that is possible at once.

        @return: fires when no more is to be done, a few seconds later at most.
        """

    def status() -> RegistryStatus:
        """
        @return: how it is now.
        """
