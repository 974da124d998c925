"""
Fake daemons for tests of monitoring and administration.
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
    Stands in for a gateway, of which only the health is used.

    @ivar busy: clients waiting for the server.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.health = Health(clock, Answering)
        self.upstream = self
        self.busy: set[object] = set()


class Answering:
    """
    A probe's connection to a server that answers.
    """

    lastHeard = 1.0
    problem: str | None = None

    def close(self) -> None:
        """
        Do nothing.
        """


class SickRegistry(LocalRegistry):
    """
    A registry whose connection is broken.
    """

    def status(self) -> RegistryStatus:
        """
        @return: a problem, and its duration in seconds.
        """
        return RegistryStatus("redis://x", "it hangs", 75.0)


class FakeDaemon:
    """
    A daemon that has a factory and records commands.

    @ivar calls: the commands, in order.
    @ivar problems: the result of L{reload}.
    @ivar register: its clients.
    @ivar expiry: the result of L{certificateExpiry}.
    @ivar registry: the registry that lists its clients.
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
        Make the daemon a gateway.
        """
        gateway = FakeGateway(self.factory.clock)
        self.register = LocalRegister(self.factory, cast(Gateway, gateway))
        return gateway

    def certificateExpiry(self) -> Mapping[str, float]:
        """
        @return: C{expiry}.
        """
        return self.expiry

    async def reload(self) -> Sequence[str]:
        """
        Record the command.

        @return: C{problems}.
        """
        self.calls.append(("reload",))
        return self.problems

    def drain(self, within: float | None = None) -> None:
        """
        Record the command.
        """
        self.calls.append(("drain", within))
        self.draining = True

    def stop(self) -> None:
        """
        Record the command.
        """
        self.calls.append(("stop",))
