"""
The registry of a server that is alone: its clients are listed in its own memory.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from kaproto.registry.interfaces import IRegistry, Node, RegistryStatus

__all__ = ["LocalRegistry"]


@implementer(IRegistry)
class LocalRegistry:
    """
    Keeps no list besides the server's own, which is always up to date, and costs nothing.
    """

    def __init__(self, node: str) -> None:
        self.node = node

    def start(self, node: Node) -> None:
        """
        There is nothing to begin.
        """

    def stop(self) -> Deferred[None]:
        """
        @return: has fired.
        """
        return succeed(None)

    def status(self) -> RegistryStatus:
        """
        @return: that all is well.
        """
        return RegistryStatus("memory")
