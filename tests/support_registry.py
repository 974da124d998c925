"""
What the tests of the registry stand on: a node whose clients the test says.
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
    A L{kaproto.registry.interfaces.Node} that remembers what it was told.

    @ivar clients: what is shown of its clients, by number.
    @ivar refusals: who was refused.
    @ivar told: what it was told to do.
    """

    def __init__(self) -> None:
        self.clients: dict[int, Mapping[str, object]] = {}
        self.refusals: list[Mapping[str, object]] = []
        self.told: list[tuple[object, ...]] = []
        self.changed: Callable[[int], object]

    def follow(self, changed: Callable[[int], object]) -> None:
        """
        Remember whom to tell.
        """
        self.changed = changed

    def set(self, number: int, **fields: object) -> None:
        """
        A client has connected, or has changed.
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
        @return: something.
        """
        return {"state": "serving", "clients": len(self.clients)}

    def refused(self) -> Sequence[Mapping[str, object]]:
        """
        @return: what the test says.
        """
        return self.refusals

    def disconnect(self, number: int, reason: str | None) -> bool:
        """
        Remember it.
        """
        self.told.append(("disconnect", number, reason))
        return self.clients.pop(number, None) is not None

    def drain(self) -> None:
        """
        Remember it.
        """
        self.told.append(("drain",))


class RegistryTestCase(ClockTestCase):
    """
    A test of nodes and a model of Redis.

    @ivar redis: the model.
    """

    LOCATION = Location("redis.example")

    def setUp(self) -> None:
        """
        Have a Redis.
        """
        super().setUp()
        self.redis = ModelRedis(IReactorTime(self.clock))
        self.password = Password(None)
        self.factory = RedisFactory(self.LOCATION, self.password, IReactorTime(self.clock))

    def registry(
        self, node: FakeNode, name: str = "host1", started: float = 1000, orders: str = "all"
    ) -> RedisRegistry:
        """
        List a node from now on.

        @param started: the time of day when it was started.
        @param orders: which orders it obeys.
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
        Stop listing a node.
        """
        stopped: list[object] = []
        registry.stop().addBoth(stopped.append)
        for _second in range(4):
            self.turns()
            self.clock.advance(1)
        self.assertEqual(stopped, [None])

    def wait(self, seconds: float) -> None:
        """
        Let time pass, in steps of a quarter of a second.
        """
        for _step in range(round(seconds * 4)):
            self.clock.pump([0, 0, 0.25])
        self.turns()

    def result(self, coroutine: Coroutine[Deferred[Any], Any, _T], seconds: float = 0) -> _T:
        """
        @return: what a coroutine returns within some time, or raises.
        """
        results: list[_T | Failure] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        self.wait(seconds)
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result
