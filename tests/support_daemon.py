"""
A daemon for the tests of those who watch and steer one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kaproto.server import KeepAliveServerFactory

__all__ = ["FakeDaemon"]


class FakeDaemon:
    """
    Has a factory, and remembers what it was told.

    @ivar calls: what it was told to do.
    @ivar problems: what L{reload} returns.
    @ivar expiry: what L{certificateExpiry} returns.
    """

    def __init__(self, factory: KeepAliveServerFactory) -> None:
        self.factory = factory
        self.draining = False
        self.problem: str | None = None
        self.listeners: Sequence[str] = ["tcp:16509:interface=127.0.0.1"]
        self.problems: Sequence[str] = []
        self.expiry: Mapping[str, float] = {}
        self.calls: list[tuple[object, ...]] = []

    def certificateExpiry(self) -> Mapping[str, float]:
        """
        @return: what the test says.
        """
        return self.expiry

    def reload(self) -> Sequence[str]:
        """
        @return: what the test says.
        """
        self.calls.append(("reload",))
        return self.problems

    def drain(self, within: float | None = None) -> None:
        """
        Remember it.
        """
        self.calls.append(("drain", within))
        self.draining = True

    def stop(self) -> None:
        """
        Remember it.
        """
        self.calls.append(("stop",))
