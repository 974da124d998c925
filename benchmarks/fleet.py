"""
Measures the cost of a fleet's registry: nodes whose clients come and go, and a model of Redis that
counts commands.

C{python -m benchmarks.fleet} prints the table of C{docs/howto/fleet.rst}.  Only Redis, the network
and the time are simulated: each node runs L{RedisRegistry} and txredisapi on its own clock, and
describes connections of a real server.  Nodes are independent, so they run one after another.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from random import Random
from typing import Final

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from kaproto.client import KeepAliveClientFactory
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Optional
from kaproto.registry.link import RedisFactory
from kaproto.registry.location import Location, Password
from kaproto.registry.redis import RedisRegistry
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory
from kaproto.status.objects import listedObject
from kaproto.testing import connectedPair

__all__ = ["Cost", "main", "measure"]

WARM: Final = 20.0
"""
Seconds until all clients are listed; they are counted separately.
"""

SECONDS: Final = 120.0
"""
Seconds of the measurement.
"""

_FIXED: Final = 9
"""
The number of Redis commands that the script runs in any case, even with nothing to write.
"""


@attrs.define
class Cost:
    """
    The cost of one node.

    @ivar scripts: scripts that Redis ran.
    @ivar pings: pings that Redis answered.
    @ivar commands: commands that Redis ran, including those in scripts.
    @ivar sent: bytes sent to Redis.
    @ivar seconds: processor time of the node.
    """

    scripts: int = 0
    pings: int = 0
    commands: int = 0
    sent: int = 0
    seconds: float = 0.0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.scripts - other.scripts,
            self.pings - other.pings,
            self.commands - other.commands,
            self.sent - other.sent,
            self.seconds - other.seconds,
        )


@implementer(IStreamClientEndpoint)
class _CountingRedis:
    """
    Answers like Redis, stores no values, and counts commands.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.cost = Cost()
        self.own = 0.0
        self.clients: set[bytes] = set()

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @return: a connection.
        """
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.9", 6379))
        assert protocol is not None
        protocol.makeConnection(_Transport(self, protocol))  # type: ignore[arg-type]
        return succeed(protocol)

    def run(self, words: Sequence[bytes]) -> bytes:
        """
        @return: the reply to a command.
        """
        cost = self.cost
        cost.commands += 1
        if words[0] != b"EVAL":
            cost.pings += words[0] == b"PING"
            if words[0] == b"SUBSCRIBE":
                return b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"
            return b"+OK\r\n"
        # EVAL, the script, the number of keys, and four keys precede the script's arguments.
        arguments = words[7:]
        count = int(arguments[8])
        changed, ended = arguments[9 : 9 + 2 * count : 2], arguments[9 + 2 * count :]
        cost.scripts += 1
        cost.commands += _FIXED + count + len(ended) + (arguments[6] != b"")
        self.clients.update(changed)
        self.clients.difference_update(ended)
        return b"+written 1 %d\r\n" % len(self.clients)


class _Transport:
    """
    The node's end of a connection to L{_CountingRedis}.
    """

    disconnected = disconnecting = False

    def __init__(self, redis: _CountingRedis, protocol: IProtocol) -> None:
        self._redis = redis
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        """
        Run a command.
        """
        begun = time.process_time()
        redis = self._redis
        redis.cost.sent += len(data)
        # Values have no line ends, so every second line is a word.
        reply = redis.run(data.split(b"\r\n")[2::2])
        redis.clock.callLater(0, self._protocol.dataReceived, reply)
        redis.own += time.process_time() - begun

    def pauseProducing(self) -> None:
        """
        Do nothing: txredisapi pauses only for a moment.
        """

    resumeProducing = pauseProducing

    def abortConnection(self) -> None:
        """
        End the connection.
        """
        self.disconnected = True


class _Node:
    """
    A server whose clients stay for ten minutes on average.
    """

    def __init__(
        self, clients: int, sample: ServerConnection, server: KeepAliveServerFactory
    ) -> None:
        self._sample, self._server = sample, server
        self.present = dict.fromkeys(range(1, clients + 1))
        self._next = clients + 1
        self._changed: Callable[[int], object]

    def follow(self, changed: Callable[[int], object]) -> None:
        """
        Set the function to call when a client changes.
        """
        self._changed = changed

    def replaceOne(self, random: Random) -> None:
        """
        A client leaves, and another one connects, logs in and opens.
        """
        gone = random.randrange(self._next)
        while gone not in self.present:
            gone = random.randrange(self._next)
        del self.present[gone]
        self._changed(gone)
        self.present[self._next] = None
        for _event in ("connected", "known", "opened"):
            self._changed(self._next)
        self._next += 1

    def numbers(self) -> Collection[int]:
        """
        @return: the numbers of all clients.
        """
        return self.present.keys()

    def client(self, number: int) -> Mapping[str, object] | None:
        """
        @return: the listed data of a client.
        """
        if number not in self.present:
            return None
        shown = listedObject(self._sample, self._server.journal.wallClock)
        shown["id"] = number
        return shown

    def about(self) -> Mapping[str, object]:
        """
        @return: the listed data of the server.
        """
        return {"state": "serving", "clients": len(self.present), "policy": "optional"}

    def refused(self) -> Sequence[Mapping[str, object]]:
        """
        @return: an empty list.
        """
        return []

    def disconnect(self, number: int, reason: str | None) -> bool:
        """
        Not called in this benchmark.
        """
        return False

    def drain(self) -> None:
        """
        Not called in this benchmark.
        """


def _sample() -> tuple[ServerConnection, KeepAliveServerFactory]:
    clock = Clock()
    server = KeepAliveServerFactory(Optional(KeepAlive(5, 5)), clock=clock)
    pair = connectedPair(server, KeepAliveClientFactory("qemu:///system", clock=clock))
    pair.flush()
    (connection,) = server.clients
    return connection, server


def measure(clients: int, seed: int, stay: float) -> tuple[Cost, Cost]:
    """
    Run one node.

    @param clients: the node's number of clients.
    @param stay: seconds that each client stays, on average.
    @return: the cost of listing all clients, and the cost of the L{SECONDS} after that.
    """
    clock, random = Clock(), Random(seed)
    redis = _CountingRedis(clock)
    factory = RedisFactory(Location("redis.example"), Password(None), clock)
    node = _Node(clients, *_sample())
    registry = RedisRegistry(f"host{seed}", "redis", redis, factory, clock, wall=lambda: 1.0)
    began = time.process_time()
    registry.start(node)
    for _turn in range(round(WARM * 100)):
        clock.advance(0.01)
    redis.cost.seconds = time.process_time() - began - redis.own
    assert registry.status().problem is None
    assert len(redis.clients) == clients
    first = attrs.evolve(redis.cost)
    perTick = clients / stay / 10
    owed = 0.0
    for _tick in range(round(SECONDS * 10)):
        owed += perTick
        while owed >= 1:
            node.replaceOne(random)
            owed -= 1
        clock.pump([0.03, 0.03, 0.04])
    redis.cost.seconds = time.process_time() - began - redis.own
    assert registry.status().problem is None
    return first, redis.cost - first


def table(sizes: Sequence[tuple[int, int]], stay: float) -> Iterator[str]:
    """
    @param sizes: pairs of a number of nodes and the number of clients of each.
    @param stay: seconds that each client stays, on average.
    @return: the lines of a table in reStructuredText.
    """
    yield ".. list-table::\n   :header-rows: 1\n"
    yield "   * - nodes\n     - clients of each\n     - requests/s\n     - commands/s"
    yield "     - KB/s\n     - processor time, of one core\n     - per client and second"
    yield "     - writing the whole list"
    for nodes, clients in sizes:
        first, total = Cost(), Counter[str]()
        for seed in range(nodes):
            first, cost = measure(clients, seed, stay)
            for name in ("scripts", "pings", "commands", "sent", "seconds"):
                total[name] += getattr(cost, name)
        share = total["seconds"] / nodes / SECONDS
        yield f"   * - {nodes}\n     - {clients:,}"
        yield f"     - {(total['scripts'] + total['pings']) / SECONDS:,.0f}"
        yield f"     - {total['commands'] / SECONDS:,.0f}"
        yield f"     - {total['sent'] / SECONDS / 1000:,.0f}"
        yield f"     - {share:.2%}"
        yield f"     - {share / clients * 1e6:.2f} us"
        yield f"     - {nodes * first.sent / 1e6:,.1f} MB, {first.seconds:.2f} s of each node"


def main() -> None:
    """
    Print the table.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet")
    parser.add_argument("--stay", type=float, default=600, help="seconds that a client stays")
    parser.add_argument("--nodes", type=int, default=100, help="the most nodes")
    options = parser.parse_args()
    sizes = [(1, 1_000), (1, 10_000), (10, 10_000), (options.nodes, 10_000)]
    print("\n".join(table(sizes, options.stay)))


if __name__ == "__main__":
    main()
