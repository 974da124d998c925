"""
Helpers for tests of the registry: a node with fake clients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from kaproto.registry.link import RedisFactory
from kaproto.registry.location import Location, Password
from kaproto.registry.redis import RedisRegistry
from tests.support import ClockTestCase
from tests.support_redis import ModelRedis

__all__ = ["FakeNode", "RegistryTestCase"]

_T = TypeVar("_T")


class FakeNode:
    """
    A L{kaproto.registry.interfaces.Node} that records commands.

    @ivar clients: the descriptions of its clients, by number.
    @ivar refusals: the descriptions of refused clients.
    @ivar told: the commands, in order.
    """

    def __init__(self) -> None:
        self.clients: dict[int, Mapping[str, object]] = {}
        self.refusals: list[Mapping[str, object]] = []
        self.told: list[tuple[object, ...]] = []
        self.changed: Callable[[int], object]

    def follow(self, changed: Callable[[int], object]) -> None:
        """
        Record the callback.
        """
        self.changed = changed

    def set(self, number: int, **fields: object) -> None:
        """
        Add or change a client, and call the callback.
        """
        self.clients[number] = {"id": number, **fields}
        self.changed(number)

    def numbers(self) -> Collection[int]:
        """
        @return: the numbers of all clients.
        """
        return self.clients.keys()

    def client(self, number: int) -> Mapping[str, object] | None:
        """
        @return: one client.
        """
        return self.clients.get(number)

    def about(self) -> Mapping[str, object]:
        """
        @return: a description of the node.
        """
        return {"state": "serving", "clients": len(self.clients)}

    def refused(self) -> Sequence[Mapping[str, object]]:
        """
        @return: C{refusals}.
        """
        return self.refusals

    def disconnect(self, number: int, reason: str | None) -> bool:
        """
        Record the command.
        """
        self.told.append(("disconnect", number, reason))
        return self.clients.pop(number, None) is not None

    def drain(self) -> None:
        """
        Record the command.
        """
        self.told.append(("drain",))


class RegistryTestCase(ClockTestCase):
    """
    Base class for tests of nodes and a model of Redis.

    @ivar redis: the model.
    """

    LOCATION = Location("redis.example")

    def setUp(self) -> None:
        """
        Create a model of Redis.
        """
        super().setUp()
        self.redis = ModelRedis(IReactorTime(self.clock))
        self.password = Password(None)
        self.factory = RedisFactory(self.LOCATION, self.password, IReactorTime(self.clock))

    def registry(
        self, node: FakeNode, name: str = "host1", started: float = 1000, orders: str = "all"
    ) -> RedisRegistry:
        """
        Create and start a registry that lists a node.

        @param started: the time of day when the node was started.
        @param orders: which orders the node obeys.
        """
        registry = RedisRegistry(
            name,
            str(self.LOCATION),
            self.redis,
            self.factory,
            IReactorTime(self.clock),
            orders,
            wall=lambda: started,
        )
        registry.start(node)
        self.addCleanup(self.stop, registry)
        self.turns()
        return registry

    def stop(self, registry: RedisRegistry) -> None:
        """
        Stop a registry.
        """
        stopped: list[object] = []
        registry.stop().addBoth(stopped.append)
        for _second in range(4):
            self.turns()
            self.clock.advance(1)
        self.assertEqual(stopped, [None])

    def wait(self, seconds: float) -> None:
        """
        Advance the clock in steps of a quarter of a second.
        """
        for _step in range(round(seconds * 4)):
            self.clock.pump([0, 0, 0.25])
        self.turns()

    def result(self, coroutine: Coroutine[Deferred[Any], Any, _T], seconds: float = 0) -> _T:
        """
        @return: the result of a coroutine that ends within this time, in seconds.
        """
        results: list[_T | Failure] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        self.wait(seconds)
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result
