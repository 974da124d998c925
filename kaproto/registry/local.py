"""
The registry of a single server: its clients are listed only in its own memory.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from kaproto.registry.interfaces import IRegistry, Node, RegistryStatus

__all__ = ["LocalRegistry"]


@implementer(IRegistry)
class LocalRegistry:
    """
    Stores nothing: the server's own list is always up to date.
    """

    def __init__(self, node: str) -> None:
        self.node = node

    def start(self, node: Node) -> None:
        """
        Do nothing.
        """

    def stop(self) -> Deferred[None]:
        """
        @return: has fired.
        """
        return succeed(None)

    def status(self) -> RegistryStatus:
        """
        @return: a state without a problem.
        """
        return RegistryStatus("memory")
