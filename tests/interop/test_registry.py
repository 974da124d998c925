"""
Tests for three kaservers that share a real Redis, and for its failures.

C{python -m tests.harness.registry} runs them with more clients, and for longer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import attrs
from twisted.internet.protocol import Protocol

from kaproto.registry.link import RedisError, RedisFactory, RedisLink, connectLink
from kaproto.registry.location import Location, Password
from kaproto.registry.schema import WRITE, keysOf
from kaproto.registry.view import FleetView
from kaproto.workers.crew import ROWS_EACH
from tests.interop.fleet import NAMES, PASSWORD, Fleet, Outcome, Redis
from tests.interop.rawclient import RawClient
from tests.interop.servers import reservePort
from tests.interop.support import InteropTestCase, pause, reactor, together, waitUntil
from tests.interop.test_workers import WorkersTestCase
from tests.pki import Authority, distinguished
from tests.support_redis import ModelRedis, ModelTransport

CLIENTS: Final = int(os.environ.get("KAPROTO_FLEET_CLIENTS", "100"))
"""
The number of clients of each kaserver.
"""

STALL: Final = float(os.environ.get("KAPROTO_FLEET_STALL", "7"))
"""
Seconds for which Redis is stopped, or the network is cut.
"""

SECONDS: Final = float(os.environ.get("KAPROTO_FLEET_SECONDS", "0"))
"""
Seconds for which all faults are repeated.
"""

REPORT: Final = os.environ.get("KAPROTO_FLEET_REPORT", os.devnull)
"""
A file to which a line of JSON is added for each fault.
"""

FLEETS: Final = 1 if "KAPROTO_FLEET_CLIENTS" in os.environ else 3
"""
The number of fleets that share the faults.  In a trial at length a single one has them all.
"""

GUIDE: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "howto" / "fleet.rst"

Fault = Callable[[Fleet], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def flushed(fleet: Fleet) -> AsyncIterator[None]:
    """
    Redis is emptied.
    """
    await fleet.redis.command("FLUSHALL")
    yield


@asynccontextmanager
async def restarted(fleet: Fleet) -> AsyncIterator[None]:
    """
    Redis is killed, and started with an empty database.
    """
    await fleet.redis.stop()
    yield
    await fleet.redis.start()


@asynccontextmanager
async def full(fleet: Fleet) -> AsyncIterator[None]:
    """
    Redis has no memory left.
    """
    await fleet.redis.command("CONFIG", "SET", "maxmemory", "1")
    yield
    await fleet.redis.command("CONFIG", "SET", "maxmemory", "0")


@asynccontextmanager
async def locked(fleet: Fleet) -> AsyncIterator[None]:
    """
    The password is changed, and all connections are closed.
    """
    await fleet.redis.command("CONFIG", "SET", "requirepass", "another")
    fleet.unplug()
    yield
    await fleet.redis.command("CONFIG", "SET", "requirepass", PASSWORD, password="another")


@asynccontextmanager
async def stopped(fleet: Fleet) -> AsyncIterator[None]:
    """
    Redis is stopped for L{STALL} seconds.
    """
    fleet.redis.signal(signal.SIGSTOP)
    begun = time.monotonic()
    yield
    await pause(max(0.0, begun + STALL - time.monotonic()))
    fleet.redis.signal(signal.SIGCONT)


@asynccontextmanager
async def cut(fleet: Fleet) -> AsyncIterator[None]:
    """
    The network is cut for L{STALL} seconds.
    """
    fleet.cable.set(cut=True)
    begun = time.monotonic()
    yield
    await pause(max(0.0, begun + STALL - time.monotonic()))
    fleet.cable.set(cut=False)


FAULTS: Final[dict[str, Fault]] = {
    "``FLUSHALL``": flushed,
    "restarted, empty": restarted,
    "full": full,
    "wrong password": locked,
    "``SIGSTOP``": stopped,
    "network cut": cut,
}


class RegistryTests(InteropTestCase):
    """
    Tests for a fleet of kaservers.
    """

    timeout = int(300 + 2 * SECONDS)
    tools = ("redis-server",)

    async def test_fleet(self) -> None:
        """
        All clients are listed, and one is disconnected through the registry.  No fault of Redis
        disconnects, refuses or delays a client; each is logged in two or three lines, and the list
        becomes correct by itself.
        """
        names = list(FAULTS)
        await together(*(self._survives(names[each::FLEETS]) for each in range(FLEETS)))

    async def _survives(self, faults: Sequence[str]) -> None:
        """
        Have some of the faults, one after the other.
        """
        fleet = Fleet(self, CLIENTS)
        await fleet.start()
        await fleet.untilRight()
        await self.disconnected(fleet)
        until = time.monotonic() + SECONDS
        while True:
            for fault in faults:
                outcome = await self.outcome(fleet, fault)
                with open(REPORT, "a", encoding="utf-8") as report:
                    report.write(json.dumps(attrs.asdict(outcome)) + "\n")
                self.assertEqual(outcome.lost, 0, outcome)
                self.assertLess(outcome.slowest, 5, outcome)
            if time.monotonic() > until:
                break
        await fleet.stop()

    async def disconnected(self, fleet: Fleet) -> None:
        """
        List the clients, and disconnect one.
        """
        listed = json.loads((await fleet.redis.kaproto("list", "--json")).output)
        self.assertEqual(len(listed), len(NAMES) * CLIENTS)
        self.assertEqual({each["node"] for each in listed}, set(NAMES))
        result = await fleet.redis.kaproto("disconnect", "host2/1", "--reason=updates")
        self.assertEqual((result.exitCode, result.errors), (0, ""))
        gone = [each for each in fleet.clients["host2"] if not each.isAlive()]
        self.assertEqual(len(gone), 1)
        fleet.clients["host2"].remove(gone[0])
        fleet.clients["host2"].append(await fleet.connect("host2"))
        again = await fleet.redis.kaproto("disconnect", "host2/1")
        self.assertEqual(again.exitCode, 1)
        self.assertIn("node host2 has no client 1", again.errors)

    async def outcome(self, fleet: Fleet, fault: str) -> Outcome:
        """
        Apply a fault, and measure its effects.

        @return: the effects.
        """
        await fleet.untilRight()
        before = {name: len(lines) for name, lines in fleet.logs().items()}

        def news() -> list[list[str]]:
            return [lines[before[name] :] for name, lines in fleet.logs().items()]

        async with FAULTS[fault](fleet):
            slowest = await fleet.probe()
            await waitUntil(lambda: all(news()), "all nodes to notice", timeout=15)
            slowest = max(slowest, await fleet.probe())
            if FAULTS[fault] is not flushed:  # which is repaired at once
                self.assertEqual(await fleet.up(), [False] * len(NAMES), fault)
        stale = await fleet.untilRight()
        slowest = max(slowest, await fleet.probe())
        await waitUntil(
            lambda: all("is up to date" in lines[-1] for lines in news()), "all nodes to say so"
        )
        self.assertEqual(await fleet.up(), [True] * len(NAMES))
        for lines in news():
            self.assertIn("No client is affected", lines[0])
            self.assertLessEqual(len(lines), 3, lines)
        log = [re.sub(r"redis://[^ ]+|\d+\.\d+ s", "...", line) for line in news()[0]]
        return Outcome(fault, fleet.lost, slowest, stale, log)


class WorkersNodeTests(WorkersTestCase):
    """
    Tests for a kaserver with two workers, which is one node of the registry.
    """

    tools = ("redis-server",)

    async def test_node(self) -> None:
        """
        The registry lists the clients of both workers, without those of one that is killed and
        with those of its replacement; C{kaproto --registry} disconnects clients of either, and
        drains both.
        """
        self.redis = Redis(self)
        await self.redis.start()
        server = await self.start(f"--registry={self.redis.url()}", "--node=host1")
        clients = await self.connect(server, 20)
        await together(*(each.open() for each in clients))
        await self.untilListed(clients)
        printed = json.loads((await self.redis.kaproto("list", "--json")).output)
        found = {each["address"]: each["id"] for each in printed}
        self.assertEqual({(each["node"], each["phase"]) for each in printed}, {("host1", "open")})
        rows = {each.address: found[each.address] % (2 * ROWS_EACH) for each in clients}
        self.assertEqual(set(rows.values()), {0, 1})
        for row in (0, 1):
            client = next(each for each in clients if rows[each.address] == row)
            which = f"host1/{found[client.address]}"
            result = await self.redis.kaproto("disconnect", which, "--reason=updates")
            self.assertEqual((result.exitCode, result.errors), (0, ""))
            await client.waitLost()
            clients.remove(client)
        again = await self.redis.kaproto("disconnect", which)
        self.assertIn(f"node host1 has no client {which.partition('/')[2]}", again.errors)
        first = re.search(r"worker 1 \(pid (\d+)\) serves", server.log)
        assert first is not None, server.log
        os.kill(int(first[1]), signal.SIGKILL)
        await self.serves(server, 3)
        clients = [each for each in clients if rows[each.address] == 1]
        more = await self.connect(server, 20)
        await together(*(each.open() for each in more))
        await self.untilListed(clients + more)
        result = await self.redis.kaproto("drain", "host1")
        self.assertIn(f"{len(clients + more)} were listed there", result.output)
        await server.program.waitOutput("draining: no new clients")
        nodes = json.loads((await self.redis.kaproto("nodes", "--json")).output)
        self.assertEqual(
            [(each["node"], each["clients"]) for each in nodes], [("host1", len(clients + more))]
        )
        await together(*(each.disconnect() for each in clients + more))
        await server.program.finish()
        self.assertNotIn("Traceback", server.log)
        self.assertEqual(await self.redis.command("KEYS", "kaproto:*"), [])

    async def untilListed(self, clients: Sequence[RawClient]) -> None:
        """
        Wait until the registry lists these clients, as open, and no others.
        """
        expected = {(each.address, "open") for each in clients}

        async def isListed() -> bool:
            listed = map(json.loads, await self.redis.command("HVALS", "kaproto:clients:host1"))
            return {(each["address"], each["phase"]) for each in listed} == expected

        await self.eventually(isListed)


class ScriptTests(InteropTestCase):
    """
    Tests for the script that Redis runs, and for the model of it in the unit tests.
    """

    tools = ("redis-server",)

    async def test_users(self) -> None:
        """
        The users in the guide can do what they need, and no more.
        """
        fleet = Fleet(self, 0)
        await fleet.redis.start()
        users = re.findall(r"^   (ACL SETUSER .*)$", GUIDE.read_text("utf-8"), re.MULTILINE)
        self.assertEqual(len(users), 2)
        for user in users:
            words = user.split(" ")
            words[words.index(">PASSWORD")] = f">{PASSWORD}"
            await fleet.redis.command(*words)
        keys = keysOf("host1")
        listed = ["0", "1000", "1", "{}", "[]", "1", "1", "1", "{}", "2"]
        writer = await fleet.redis.connect(user="kaserver")
        for words, reply in (
            (["EVAL", WRITE, "4", *keys, "host1", "begin", *listed], "written 1000 1"),
            (["PUBLISH", "kaproto:answer:0f", "{}"], 0),
            (["PING"], "PONG"),
        ):
            self.assertEqual(await writer.command(*words), reply)
        await self.denied(writer, "SET", "another", "x")
        await self.denied(writer, "KEYS", "*")
        viewer = await fleet.redis.connect(user="viewer")
        (node,) = await FleetView(viewer, fleet.redis.connect).nodes(clients=True)
        self.assertEqual((node.name, node.size), ("host1", 1))
        await self.denied(viewer, "EVAL", WRITE, "4", *keys, "host1", "begin", *listed)
        await self.denied(viewer, "PUBLISH", "kaproto:order:host1", "{}")
        await writer.command("EVAL", WRITE, "4", *keys, "host1", "leave", "0", "1", "9")
        writer.message = viewer.message = lambda _message: None
        await writer.command("SUBSCRIBE", "kaproto:order:host1")
        await self.denied(viewer, "SUBSCRIBE", "kaproto:order:host1")
        for each in (writer, viewer):
            each.abort("done")
            await each.whenEnded()

    async def test_tls(self) -> None:
        """
        Redis can be reached over TLS with certificates on both sides.  A certificate of another
        authority is refused.
        """
        folder = Path(self.privateDirectory())
        authority, other = Authority(), Authority()
        for name, identity in (
            ("redis", authority.issue(distinguished("redis"), hosts=["localhost"])),
            ("own", authority.issue(distinguished("kaserver"))),
        ):
            (folder / f"{name}.pem").write_bytes(identity.certificatePEM)
            (folder / f"{name}.key").write_bytes(identity.keyPEM)
        (folder / "ca.pem").write_bytes(authority.certificatePEM)
        (folder / "other.pem").write_bytes(other.certificatePEM)
        redis = Redis(self)
        port = reservePort(self)
        await redis.start(
            *("--tls-port", str(port), "--tls-ca-cert-file", str(folder / "ca.pem")),
            *("--tls-cert-file", str(folder / "redis.pem")),
            *("--tls-key-file", str(folder / "redis.key")),
        )
        own = f"cert={folder}/own.pem&key={folder}/own.key"
        url = f"rediss://localhost:{port}?ca={folder}"
        self.assertEqual(await self.ping(f"{url}/ca.pem&{own}"), "PONG")
        for bad in (f"{url}/other.pem&{own}", f"{url}/ca.pem"):
            with self.assertRaisesRegex(RedisError, "TLS failed: .*certificate"):
                await self.ping(bad)

    async def ping(self, url: str) -> object:
        """
        @return: Redis's answer to a ping.
        """
        location, password = Location.parse(url), Password(None)
        password.text = PASSWORD
        factory = RedisFactory(location, password, reactor)
        link = await connectLink(location.endpoint(reactor), factory)
        try:
            return await link.command("PING")
        finally:
            link.abort("done")
            await link.whenEnded()

    async def denied(self, link: RedisLink, *words: str) -> None:
        """
        Check that Redis denies a command.
        """
        with self.assertRaisesRegex(RedisError, "NOPERM|can't run this command|permissions"):
            await link.command(*words)

    async def test_write(self) -> None:
        """
        Redis and the model give the same replies to random commands, and store the same clients.
        """
        fleet = Fleet(self, 0)
        await fleet.redis.start()
        model = ModelRedis(reactor)
        asker = ModelTransport(model, Protocol())
        random = Random(17)
        head = ["EVAL", WRITE, "4", *keysOf("host1"), "host1"]
        told = set()
        for step in range(400):
            numbers = [str(number) for number in range(1, 9)]
            changed = random.sample(numbers, random.randrange(4))
            rest = [
                random.choice(["begin", "write", "write", "leave" if step % 9 == 0 else "write"]),
                random.choice(["0", "1000", "1000", "1001"]),
                random.choice(["1000.5", "1000.5", "1000.7"]),
                random.choice("1223"),
                '{"state": "serving"}',
                random.choice(["", "[]"]),
                random.choice("01"),
                str(len(changed)),
                *(each for number in changed for each in (number, f"client {step}")),
                *random.sample(numbers, random.randrange(4)),
            ]
            expected = str(model.run(asker, [*head, *rest])).removeprefix("+")
            self.assertEqual(await fleet.redis.command(*head, *rest), expected, (step, rest))
            told.add(expected.split()[0])
            stored = await fleet.redis.command("HGETALL", "kaproto:clients:host1")
            pairs = dict(zip(stored[::2], stored[1::2], strict=True))
            self.assertEqual(pairs, model.clients("host1"), (step, rest))
        self.assertEqual(told, {"written", "left", "unknown", "superseded"})
