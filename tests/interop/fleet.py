"""
Three kaservers that share a registry: a real Redis behind a cable that can be cut.
"""

from __future__ import annotations

import os
import signal
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
from tests.interop.programs import Program
from tests.interop.servers import KaServer, reservePort
from tests.interop.support import REDIS_SERVER, InteropTestCase, pause, reactor, together

__all__ = ["NAMES", "PASSWORD", "Fleet", "Outcome", "Redis"]

NAMES: Final = ("host1", "host2", "host3")
PASSWORD: Final = "correct horse"


@attrs.frozen
class Outcome:
    """
    What a fault did.

    @ivar fault: what it was.
    @ivar slowest: seconds that the slowest of new clients needed to connect, open and be pinged,
        meanwhile and afterwards.
    @ivar lost: how many clients' connections had ended afterwards.
    @ivar stale: seconds from the end of the fault until the list was right.
    @ivar log: what the first node logged, without what differs each time.
    """

    fault: str
    lost: int
    slowest: float
    stale: float
    log: list[str]


class _Cable(portforward.ProxyFactory):
    """
    Forwards to Redis, until it is cut: then it takes connections and bytes, and passes on none.
    """

    noisy = False
    isCut = False

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.ends: set[portforward.Proxy] = set()

    def buildProtocol(self, addr: object) -> portforward.ProxyServer:
        """
        @return: one end of a connection.
        """
        end: _CableEnd = _CableEnd()
        end.factory = self
        return end

    def set(self, *, cut: bool) -> None:
        """
        Cut or mend it.
        """
        self.isCut = cut
        for each in list(self.ends):
            if each.peer is None and each.transport is not None:
                # It was made while the cable was cut.
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
        Forward, unless the cable is cut.
        """
        self.factory.ends.add(self)
        if self.factory.isCut:
            cast(IPushProducer, self.transport).pauseProducing()
            self.peer = None
        else:
            super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forward the end, too.
        """
        self.factory.ends.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class Redis:
    """
    A real Redis.

    @ivar port: the port that it listens on.
    """

    def __init__(self, case: InteropTestCase) -> None:
        self._case = case
        self._folder = case.privateDirectory()
        self.port = reservePort(case)

    async def start(self, *arguments: str) -> None:
        """
        Start it, without anything that it had before.
        """
        command = [REDIS_SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--requirepass", PASSWORD, "--dir", self._folder, *arguments]
        self._program = Program.start(self._case, command, os.environ, self._folder)
        await self._program.waitOutput("Ready to accept connections", timeout=20)

    async def connect(self, password: str = PASSWORD, user: str | None = None) -> RedisLink:
        """
        @return: a connection to it, past the cable.
        """
        known = Password(None)
        known.text = password
        return await connectLink(
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.port),
            RedisFactory(Location("127.0.0.1", user=user), known, reactor),
        )

    def signal(self, number: signal.Signals) -> None:
        """
        Send it a signal.
        """
        self._program.signal(number)

    async def stop(self) -> None:
        """
        Kill it.
        """
        self._program.signal(signal.SIGKILL)
        await self._program.finish()


class Fleet:
    """
    Three kaservers and their clients.

    @ivar redis: the registry.
    @ivar cable: how the kaservers reach it.
    @ivar servers: the kaservers, by name.
    @ivar clients: their clients.
    @ivar sockets: where they are administered.
    """

    def __init__(self, case: InteropTestCase, clients: int) -> None:
        """
        @param clients: how many there are of each kaserver.
        """
        self._case = case
        self._number = clients
        self.redis = Redis(case)
        self.servers: dict[str, KaServer] = {}
        self.clients: dict[str, list[Connection]] = {}
        self.file = Path(case.privateDirectory(), "password")

    async def start(self) -> None:
        """
        Start all.
        """
        await self.redis.start()
        self.cable = _Cable(self.redis.port)
        listening = reactor.listenTCP(0, cast(ServerFactory, self.cable), interface="127.0.0.1")
        self._case.addCleanup(self.unplug)
        self._case.addCleanup(listening.stopListening)
        self.file.write_text(PASSWORD, "utf-8")
        port = cast(IPv4Address, listening.getHost()).port
        url = f"redis://127.0.0.1:{port}?password-file={self.file}"
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
        End all connections to Redis.
        """
        for each in list(self.cable.ends):
            if each.transport is not None:
                cast(ITCPTransport, each.transport).abortConnection()

    async def stop(self) -> None:
        """
        Have all clients leave.
        """
        await DeferredList([each.close() for name in NAMES for each in self.clients[name]])

    async def connect(self, name: str) -> Connection:
        """
        @return: one more client of a kaserver.
        """
        uri = f"test+tcp://127.0.0.1:{self.servers[name].port}/default"
        return await connect(reactor, uri, keepAlive=KeepAlive(5, 5))

    @property
    def lost(self) -> int:
        """
        How many clients' connections have ended.
        """
        return sum(len(self.clients[name]) - self.present(name) for name in NAMES)

    def present(self, name: str) -> int:
        """
        @return: how many clients of a kaserver are still connected.
        """
        return sum(each.isAlive() for each in self.clients[name])

    async def command(self, *words: str, password: str = PASSWORD) -> Any:
        """
        @return: what Redis replies.
        """
        link = await self.redis.connect(password)
        try:
            return await link.command(*words)
        finally:
            link.abort("done")
            await link.whenEnded()

    async def view(self, look: Callable[[FleetView], Awaitable[object]]) -> object:
        """
        Look at the registry, by a way of its own.

        @return: what was seen; C{None} if Redis cannot be asked.
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
        @return: what is listed.
        """
        found = await self.view(lambda fleet: fleet.nodes(clients=True))
        return cast(list[NodeView], found or [])

    async def isRight(self) -> bool:
        """
        @return: whether the registry lists the clients that there are.
        """
        nodes = {each.name: each for each in await self.nodes()}
        return set(nodes) == set(NAMES) and all(
            each.present and each.complete and len(each.clients) == self.present(name)
            for name, each in nodes.items()
        )

    async def untilRight(self, timeout: float = 30) -> float:
        """
        @return: the seconds until the registry is right.
        @raise AssertionError: when it is not in time.
        """
        begun = time.monotonic()
        while not await self.isRight():
            if time.monotonic() > begun + timeout:
                raise AssertionError(f"the registry is not right: {await self.nodes()}")
            await pause(0.1)
        return time.monotonic() - begun

    async def up(self) -> list[bool]:
        """
        @return: whether each kaserver says that the registry is up.
        """
        found = []
        for name in NAMES:
            client = await ControlClient.connect(reactor, self.sockets[name])
            found += [bool(each["registry"]["up"]) for each in await client.status()]
            await client.close()
        return found

    def logs(self) -> Mapping[str, list[str]]:
        """
        @return: what each kaserver has logged about the registry.
        """
        return {
            name: [
                line.partition("] ")[2] for line in server.log.splitlines() if "registry" in line
            ]
            for name, server in self.servers.items()
        }

    async def probe(self) -> float:
        """
        Have one more client of each kaserver.

        @return: the seconds that the slowest of them needs to connect, open and be pinged.
        """
        slowest = 0.0
        for name in NAMES:
            begun = time.monotonic()
            client = await self.connect(name)
            await client.ping()
            slowest = max(slowest, time.monotonic() - begun)
            self.clients[name].append(client)
        return slowest
