"""
Three kaservers that share a registry: a real Redis behind a forwarder that can be cut.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.protocols import portforward
from twisted.python.failure import Failure

from kaproto.admin.client import ControlClient
from kaproto.client import Connection, connect
from kaproto.keepalive.liveness import KeepAlive
from kaproto.registry.link import RedisError, RedisFactory, RedisLink, connectLink
from kaproto.registry.location import Location, Password
from kaproto.registry.view import FleetView, NodeView
from tests.interop.programs import Program, Result
from tests.interop.servers import KaServer, reservePort
from tests.interop.support import REDIS_SERVER, InteropTestCase, pause, reactor, together

__all__ = ["NAMES", "PASSWORD", "Fleet", "Outcome", "Redis"]

NAMES: Final = ("host1", "host2", "host3")
PASSWORD: Final = "correct horse"


@attrs.frozen
class Outcome:
    """
    The effects of a fault.

    @ivar fault: its name.
    @ivar slowest: the most seconds that a new client needed to connect, open and be pinged, during
        the fault and after it.
    @ivar lost: how many client connections had ended after it.
    @ivar stale: seconds from the end of the fault until the registry was correct.
    @ivar log: what the first node logged, without the parts that vary.
    """

    fault: str
    lost: int
    slowest: float
    stale: float
    log: list[str]


class _Cable(portforward.ProxyFactory):
    """
    Forwards to Redis.  While it is cut it accepts connections and bytes, and forwards none.
    """

    noisy = False
    isCut = False

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.ends: set[portforward.Proxy] = set()

    def buildProtocol(self, addr: object) -> portforward.ProxyServer:
        """
        @return: the client's end of a forwarded connection.
        """
        end: _CableEnd = _CableEnd()
        end.factory = self
        return end

    def set(self, *, cut: bool) -> None:
        """
        Cut or restore the connections.
        """
        self.isCut = cut
        for each in list(self.ends):
            if each.peer is None and each.transport is not None:
                # It was accepted while the cable was cut.
                cast(ITCPTransport, each.transport).abortConnection()
                continue
            for end in (each, each.peer):
                if end is not None and end.transport is not None:
                    producer = cast(IPushProducer, end.transport)
                    (producer.pauseProducing if cut else producer.resumeProducing)()


class _CableEnd(portforward.ProxyServer):
    factory: _Cable

    def connectionMade(self) -> None:
        """
        Connect to Redis, unless the cable is cut.
        """
        self.factory.ends.add(self)
        if self.factory.isCut:
            cast(IPushProducer, self.transport).pauseProducing()
            self.peer = None
        else:
            super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget the connection, and close the other end.
        """
        self.factory.ends.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class Redis:
    """
    A real Redis server.

    @ivar port: the TCP port it listens on.
    @ivar file: a file with its password.
    """

    def __init__(self, case: InteropTestCase) -> None:
        self._case = case
        self._folder = case.privateDirectory()
        self.port = reservePort(case)
        self.file = Path(self._folder, "password")
        self.file.write_text(PASSWORD, "utf-8")

    def url(self, port: int | None = None) -> str:
        """
        @param port: the port of a relay in front of it, if there is one.
        @return: the URL for C{--registry}.
        """
        return f"redis://127.0.0.1:{port or self.port}?password-file={self.file}"

    async def kaproto(self, *arguments: str) -> Result:
        """
        Run C{kaproto} with this registry.
        """
        command = [sys.executable, "-m", "kaproto", f"--registry={self.url()}", *arguments]
        return await Program.start(self._case, command, os.environ).finish(timeout=60)

    async def command(self, *words: str, password: str = PASSWORD) -> Any:
        """
        Send a command to Redis.

        @return: its reply.
        """
        link = await self.connect(password)
        try:
            return await link.command(*words)
        finally:
            link.abort("done")
            await link.whenEnded()

    async def start(self, *arguments: str) -> None:
        """
        Start it with an empty database.
        """
        command = [REDIS_SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--requirepass", PASSWORD, "--dir", self._folder, *arguments]
        self._program = Program.start(self._case, command, os.environ, self._folder)
        await self._program.waitOutput("Ready to accept connections", timeout=20)

    async def connect(self, password: str = PASSWORD, user: str | None = None) -> RedisLink:
        """
        @return: a connection to Redis that bypasses the cable.
        """
        known = Password(None)
        known.text = password
        return await connectLink(
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.port),
            RedisFactory(Location("127.0.0.1", user=user), known, reactor),
        )

    def signal(self, number: signal.Signals) -> None:
        """
        Send a signal to the process.
        """
        self._program.signal(number)

    async def stop(self) -> None:
        """
        Kill the process, and wait for its end.
        """
        self._program.signal(signal.SIGKILL)
        await self._program.finish()


class Fleet:
    """
    Three kaservers with their clients.

    @ivar redis: the Redis server that has the registry.
    @ivar cable: the forwarder between the kaservers and Redis.
    @ivar servers: the kaservers, by node name.
    @ivar clients: the clients of each kaserver, by node name.
    @ivar sockets: the paths of the administration sockets, by node name.
    """

    def __init__(self, case: InteropTestCase, clients: int) -> None:
        """
        @param clients: the number of clients of each kaserver.
        """
        self._case = case
        self._number = clients
        self.redis = Redis(case)
        self.servers: dict[str, KaServer] = {}
        self.clients: dict[str, list[Connection]] = {}

    async def start(self) -> None:
        """
        Start Redis, the cable, the kaservers and the clients.
        """
        await self.redis.start()
        self.cable = _Cable(self.redis.port)
        listening = reactor.listenTCP(0, cast(ServerFactory, self.cable), interface="127.0.0.1")
        self._case.addCleanup(self.unplug)
        self._case.addCleanup(listening.stopListening)
        url = self.redis.url(cast(IPv4Address, listening.getHost()).port)
        folder = self._case.privateDirectory()
        started = [
            KaServer.start(
                self._case,
                "--mode=2",
                f"--registry={url}",
                f"--node={name}",
                f"--admin={folder}/{name}",
                f"--status=unix:{folder}/{name}-status",
            )
            for name in NAMES
        ]
        self.sockets = {name: f"{folder}/{name}" for name in NAMES}
        for name, server in zip(NAMES, await together(*started), strict=True):
            self.servers[name] = server
            connecting = [self.connect(name) for _client in range(self._number)]
            self.clients[name] = list(await together(*connecting))

    def unplug(self) -> None:
        """
        Abort all connections to Redis.
        """
        for each in list(self.cable.ends):
            if each.transport is not None:
                cast(ITCPTransport, each.transport).abortConnection()

    async def stop(self) -> None:
        """
        Close all clients.
        """
        await DeferredList([each.close() for name in NAMES for each in self.clients[name]])

    async def connect(self, name: str) -> Connection:
        """
        @return: a new client of a kaserver.
        """
        uri = f"test+tcp://127.0.0.1:{self.servers[name].port}/default"
        return await connect(reactor, uri, keepAlive=KeepAlive(5, 5))

    @property
    def lost(self) -> int:
        """
        How many client connections have ended.
        """
        return sum(len(self.clients[name]) - self.present(name) for name in NAMES)

    def present(self, name: str) -> int:
        """
        @return: how many clients of a kaserver are connected.
        """
        return sum(each.isAlive() for each in self.clients[name])

    async def view(self, look: Callable[[FleetView], Awaitable[object]]) -> object:
        """
        Read the registry over connections that bypass the cable.

        @return: what C{look} returns; C{None} if Redis fails or cannot be reached.
        """
        links: list[RedisLink] = []

        async def another() -> RedisLink:
            links.append(link := await self.redis.connect())
            return link

        try:
            return await look(FleetView(await another(), another))
        except (RedisError, OSError):
            return None
        finally:
            for each in links:
                each.abort("seen")
                await each.whenEnded()

    async def nodes(self) -> list[NodeView]:
        """
        @return: the nodes in the registry, with their clients.
        """
        found = await self.view(lambda fleet: fleet.nodes(clients=True))
        return cast(list[NodeView], found or [])

    async def isRight(self) -> bool:
        """
        @return: whether the registry lists all nodes, each with the clients that it has.
        """
        nodes = {each.name: each for each in await self.nodes()}
        return set(nodes) == set(NAMES) and all(
            each.present and each.complete and len(each.clients) == self.present(name)
            for name, each in nodes.items()
        )

    async def untilRight(self, timeout: float = 30) -> float:
        """
        @return: the seconds until the registry was correct.
        @raise AssertionError: when it is not correct within C{timeout} seconds.
        """
        begun = time.monotonic()
        while not await self.isRight():
            if time.monotonic() > begun + timeout:
                raise AssertionError(f"the registry is not right: {await self.nodes()}")
            await pause(0.1)
        return time.monotonic() - begun

    async def up(self) -> list[bool]:
        """
        @return: whether each kaserver reports the registry as up.
        """
        found = []
        for name in NAMES:
            client = await ControlClient.connect(reactor, self.sockets[name])
            found += [bool(each["registry"]["up"]) for each in await client.status()]
            await client.close()
        return found

    def logs(self) -> Mapping[str, list[str]]:
        """
        @return: the lines about the registry in each kaserver's log.
        """
        return {
            name: [
                line.partition("] ")[2] for line in server.log.splitlines() if "registry" in line
            ]
            for name, server in self.servers.items()
        }

    async def probe(self) -> float:
        """
        Connect another client to each kaserver.

        @return: the seconds the slowest of them needed to connect, open and be pinged.
        """
        slowest = 0.0
        for name in NAMES:
            begun = time.monotonic()
            client = await self.connect(name)
            await client.ping()
            slowest = max(slowest, time.monotonic() - begun)
            self.clients[name].append(client)
        return slowest
