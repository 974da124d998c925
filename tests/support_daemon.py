"""
A daemon for the tests of those who watch and steer one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from twisted.internet.interfaces import IReactorTime

from kaproto.backends.gateway import Gateway
from kaproto.backends.health import Health
from kaproto.registry.interfaces import IRegistry, RegistryStatus
from kaproto.registry.local import LocalRegistry
from kaproto.server import KeepAliveServerFactory
from kaproto.status.register import LocalRegister, Register

__all__ = ["FakeDaemon", "FakeGateway", "SickRegistry"]


class FakeGateway:
    """
    In the place of a gateway, of which only its health is looked at.

    @ivar busy: clients that wait for the server.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.health = Health(clock, Answering)
        self.upstream = self
        self.busy: set[object] = set()


class Answering:
    """
    A connection whose server answers.
    """

    lastHeard = 1.0
    problem: str | None = None

    def close(self) -> None:
        """
        It is no longer needed.
        """


class SickRegistry(LocalRegistry):
    """
    A registry that is not well.
    """

    def status(self) -> RegistryStatus:
        """
        @return: for how long.
        """
        return RegistryStatus("redis://x", "it hangs", 75.0)


class FakeDaemon:
    """
    Has a factory, and remembers what it was told.

    @ivar calls: what it was told to do.
    @ivar problems: what L{reload} returns.
    @ivar register: its clients.
    @ivar expiry: what L{certificateExpiry} returns.
    @ivar registry: where its clients are listed.
    """

    def __init__(self, factory: KeepAliveServerFactory) -> None:
        self.factory = factory
        self.draining = False
        self.register: Register = LocalRegister(factory)
        self.listeners: Sequence[str] = ["tcp:16509:interface=127.0.0.1"]
        self.problems: Sequence[str] = []
        self.expiry: Mapping[str, float] = {}
        self.registry: IRegistry = LocalRegistry("host1")
        self.calls: list[tuple[object, ...]] = []

    def becomeGateway(self) -> FakeGateway:
        """
        Have something behind it.
        """
        gateway = FakeGateway(self.factory.clock)
        self.register = LocalRegister(self.factory, cast(Gateway, gateway))
        return gateway

    def certificateExpiry(self) -> Mapping[str, float]:
        """
        @return: what the test says.
        """
        return self.expiry

    async def reload(self) -> Sequence[str]:
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
