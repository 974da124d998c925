"""
Tests for kaserver with two workers: clients are spread over both, and administered as one server's;
a worker can be killed, hang or be replaced.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from kaproto.admin.client import ControlClient
from kaproto.errors import RemoteError
from tests.harness.attacks.guessing import SASL_INIT, SASL_START
from tests.harness.attacks.honest import characters
from tests.interop import wire
from tests.interop.programs import Program
from tests.interop.rawclient import RawClient
from tests.interop.secure import SecureServer
from tests.interop.servers import KaServer, twistdCommand
from tests.interop.support import (
    VIRT_ADMIN,
    InteropTestCase,
    pause,
    privateEnvironment,
    reactor,
    together,
    waitUntil,
)

CLIENTS = 300
ALLOWED = 310
BURST = 2000


def get(path: str, what: str) -> str:
    """
    @return: the status page's response on a UNIX socket.
    """
    with socket.socket(socket.AF_UNIX) as http:
        http.settimeout(10)
        http.connect(path)
        http.sendall(f"GET {what} HTTP/1.0\r\nAccept: text/plain\r\n\r\n".encode())
        with http.makefile("rb") as answer:
            return answer.read().decode()


class WorkersTestCase(InteropTestCase):
    """
    A test with a server that has two workers.
    """

    async def start(self, *arguments: str, backlog: int = 1024) -> KaServer:
        """
        Start the server, and wait until both workers serve.
        """
        self.socket = str(Path(self.privateDirectory()) / "admin")
        server = await KaServer.start(
            self,
            "--workers=2",
            f"--admin={self.socket}",
            "--mode=1",
            *arguments,
            listen=f"tcp:0:interface=127.0.0.1:backlog={backlog}",
        )
        await self.serves(server, 2)
        self.control = await ControlClient.connect(reactor, self.socket)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.control.close()))
        return server

    async def serves(self, server: KaServer, times: int) -> None:
        """
        Wait until the log says C{times} times that a worker serves.
        """
        await waitUntil(
            lambda: (
                not server.program.running
                or len(re.findall(r"worker \d \(pid \d+\) serves", server.log)) >= times
            ),
            server.program.describe,
            20,
        )

    async def status(self) -> dict[str, Any]:
        """
        @return: the object that C{kaproto status --json} prints.
        """
        (status,) = await self.control.status()
        return status

    async def workers(self) -> list[dict[str, Any]]:
        """
        @return: the status of each worker.
        """
        found: list[dict[str, Any]] = (await self.status())["workers"]
        return found

    async def connect(self, server: KaServer, count: int) -> list[RawClient]:
        """
        Connect clients, a hundred at a time.
        """
        clients: list[RawClient] = []
        while len(clients) < count:
            some = range(min(100, count - len(clients)))
            clients += await together(*(RawClient.connect(self, server.port) for _ in some))
        return clients

    async def eventually(self, condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        """
        Repeat until the condition is true, or the test's timeout ends it.
        """
        while not await condition():
            await pause(0.05)


class OneServerTests(WorkersTestCase):
    """
    Tests for two workers as one server.
    """

    tools = ("virt-admin",)

    async def test_life(self) -> None:
        """
        Clients are spread over the workers, and listed, counted, limited and disconnected as one
        server's.  A worker that is killed or hangs loses only its own clients and is replaced, and
        the parent closes its files.
        """
        status = str(Path(self.privateDirectory()) / "status")
        server = await self.start(
            "--interval=0.5", "--count=3", f"--max-clients={ALLOWED}", f"--status=unix:{status}"
        )
        await self.status()  # count its connection among the files
        files = self.files(server)
        clients = await self.connect(server, CLIENTS)
        await together(*(each.open() for each in clients))
        first, second = await self.workers()
        self.assertEqual(first["clients"] + second["clients"], CLIENTS)
        self.assertGreater(min(first["clients"], second["clients"]), CLIENTS // 3)
        await self.listed(clients)
        await self.metrics(status)
        await self.allowed(server, clients[1:])
        await self.killed(server, clients[1:])
        await self.hangs(server)
        await waitUntil(
            lambda: len(self.files(server)) == len(files),
            lambda: f"the files that were open, {files}, and not {self.files(server)}",
        )
        server.program.signal(signal.SIGTERM)
        await server.program.finish()
        self.assertNotIn("Traceback", server.log)

    async def listed(self, clients: Sequence[RawClient]) -> None:
        """
        Check that administrators see all clients, and can show, disconnect and trace each.
        """
        listed = {each["address"]: each["id"] for each in await self.control.clients()}
        self.assertEqual(set(listed), {each.address for each in clients})
        self.assertEqual(len(set(listed.values())), CLIENTS)
        printed = await self.virtAdmin("client-list", "kaserver")
        ids = re.findall(r"^ (\d+) ", printed, re.MULTILINE)
        self.assertEqual({int(each) for each in ids}, set(listed.values()))
        printed = await self.virtAdmin("server-clients-info", "kaserver")
        self.assertRegex(printed, rf"nclients +: {CLIENTS}\n")
        gone, shown, traced = (listed[each.address] for each in clients[:3])
        printed = await self.virtAdmin("client-info", "kaserver", str(shown))
        self.assertIn(clients[1].address, printed)
        await self.control.disconnect(gone, "a test")
        await clients[0].waitLost()
        (ended,) = await self.control.ended()
        self.assertEqual((ended["id"], ended["reason"]), (gone, "disconnected"))
        events: list[dict[str, Any]] = []
        watching = Deferred.fromCoroutine(self.control.trace(traced, 1, events.append))
        other = await ControlClient.connect(reactor, self.socket)
        with self.assertRaisesRegex(RemoteError, "is being traced by another administrator"):
            await other.trace(traced, 1, events.append)
        self.assertEqual(await watching, "the time is over")
        self.assertIn("PONG", [each["name"] for each in events])
        end = await other.trace(traced, 1, events.append)
        self.assertEqual(end, "the time is over")
        await other.close()

    def files(self, server: KaServer) -> list[str]:
        """
        @return: the open files of the parent.
        """
        found = []
        for each in Path(f"/proc/{server.program.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(each))
        return sorted(found)

    async def virtAdmin(self, *arguments: str) -> str:
        """
        Run C{virt-admin}.
        """
        environment = privateEnvironment(self.privateDirectory())
        command = [VIRT_ADMIN, "-c", f"kaserver:///?socket={self.socket}", *arguments]
        result = await Program.start(self, command, environment, "/").finish()
        self.assertEqual(result.exitCode, 0, result)
        return result.output

    async def allowed(self, server: KaServer, clients: Sequence[RawClient]) -> None:
        """
        Check that C{--max-clients} limits the clients of all workers together.
        """
        answers = []
        more = []
        for _ in range(ALLOWED - len(clients) + 10):
            more += await self.connect(server, 1)
            answers.append((await more[-1].call(wire.OPEN, wire.OPEN_ARGUMENTS)).status)
        self.assertEqual(answers, [0] * (ALLOWED - len(clients)) + [1] * 10)
        for each in more:
            await each.disconnect()

        async def left() -> bool:
            return bool((await self.status())["clients"] == len(clients))

        await self.eventually(left)

    async def metrics(self, path: str) -> None:
        """
        Check that the metrics and the page cover all workers.
        """
        status = await self.status()
        text = await deferToThread(get, path, "/metrics")
        for name, value in (
            ("kaproto_connections_accepted_total", status["accepted"]),
            ("kaproto_connections_opened_total", CLIENTS),
            ('kaproto_connections_closed_total{reason="disconnected"}', 1),
        ):
            self.assertIn(f"\n{name} {value}.0\n", text)
        shown = re.findall(r'^kaproto_connections{.*state="open"} ([\d.]+)$', text, re.MULTILINE)
        self.assertEqual([float(each) for each in shown], [CLIENTS - 1])
        self.assertIn(f"{CLIENTS - 1} clients", await deferToThread(get, path, "/"))

    async def killed(self, server: KaServer, clients: Sequence[RawClient]) -> None:
        """
        Kill a worker with C{kill -9}, and check that only its clients end.
        """
        first, second = await self.workers()
        accepted = (await self.status())["accepted"]
        os.kill(first["pid"], signal.SIGKILL)
        await self.serves(server, 3)
        await waitUntil(
            lambda: sum(each.lostAt is None for each in clients) <= second["clients"],
            "the killed worker's clients to end",
        )
        self.assertEqual(sum(each.lostAt is None for each in clients), second["clients"])
        self.assertIn(f"killed by SIGKILL; it had {first['clients']} clients", server.log)
        await together(*(each.open() for each in await self.connect(server, 20)))
        listed = await self.control.clients()
        self.assertEqual(len({each["id"] for each in listed}), second["clients"] + 20)
        after = await self.status()
        self.assertEqual(after["clients"], second["clients"] + 20)
        self.assertGreaterEqual(after["accepted"], accepted)

    async def hangs(self, server: KaServer) -> None:
        """
        Stop a worker with C{SIGSTOP}, and check that it is replaced.
        """
        _first, second = await self.workers()
        os.kill(second["pid"], signal.SIGSTOP)
        await self.serves(server, 4)
        self.assertRegex(server.log, rf"pid {second['pid']}\) has ended: it did not answer")
        pids = {each["pid"] for each in await self.workers()}
        self.assertNotIn(second["pid"], pids)
        self.assertEqual(len(pids), 2)

    async def test_burst(self) -> None:
        """
        Two thousand clients connect while one worker hangs and is then killed.  None is lost: the
        new worker accepts the waiting ones.
        """
        # About 1,000 clients wait for the worker that hangs, give or take 50.
        server = await self.start(backlog=BURST)
        first, _second = await self.workers()
        os.kill(first["pid"], signal.SIGSTOP)
        clients = await self.connect(server, BURST)
        calls = [each.sendCall(wire.AUTH_LIST) for each in clients]
        os.kill(first["pid"], signal.SIGKILL)
        await waitUntil(
            lambda: all(each.replyTo(call) for each, call in zip(clients, calls, strict=True)),
            "an answer for each",
            30,
        )


class LocalClient(RawClient):
    """
    A client on a UNIX socket.
    """

    def connectionMade(self) -> None:
        """
        Override: a UNIX socket has no port, and no Nagle's algorithm.
        """

    async def logIn(self, user: str, password: str) -> int:
        """
        Send a user name and password.

        @return: the serial of the call.
        """
        await self.succeed(SASL_INIT)
        secret = characters(f"\0{user}\0{password}".encode())
        return self.sendCall(SASL_START, wire.string("PLAIN") + secret)


class GuessingTests(WorkersTestCase):
    """
    Tests for passwords guessed at both workers.
    """

    tools = ()

    async def clients(self, other: int) -> list[LocalClient]:
        """
        Connect to one worker, while the other is stopped.

        @param other: the process id of the other.
        """
        os.kill(other, signal.SIGSTOP)
        found = []
        endpoint = UNIXClientEndpoint(reactor, self.path)
        for _ in range(7):
            client = cast(LocalClient, await endpoint.connect(Factory.forProtocol(LocalClient)))
            self.addCleanup(client.disconnect)
            await client.succeed(wire.AUTH_LIST)
            found.append(client)
        os.kill(other, signal.SIGCONT)
        return found

    async def test_together(self) -> None:
        """
        Five failures at each worker count as ten: a stranger then waits at either, and a user who
        has logged in at one waits at neither.
        """
        directory = Path(self.privateDirectory())
        self.path, self.socket = str(directory / "clients"), str(directory / "admin")
        users = directory / "users"
        users.write_text("alice:secret\n")
        users.chmod(0o600)
        server = await SecureServer.start(
            self,
            "--workers=2",
            f"--listen=unix:{self.path}",
            f"--admin={self.socket}",
            f"--auth=file:{users}",
            "--auth-delay=60",
        )
        await server.program.waitOutput(r"worker \d \(pid \d+\) serves[^$]*\) serves", 20)
        self.control = await ControlClient.connect(reactor, self.socket)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.control.close()))
        first, second = [each["pid"] for each in await self.workers()]
        one, two = await self.clients(second), await self.clients(first)
        self.assertEqual([each["clients"] for each in await self.workers()], [7, 7])
        known = one.pop()
        self.assertEqual((await known.reply(await known.logIn("alice", "secret"))).status, 0)
        for guesser in one[:5] + two[:5]:
            await guesser.logIn("bob", "wrong")
        await waitUntil(lambda: server.log.count("failed to log in as 'bob'") == 10, "ten failures")
        waiting = [(each, await each.logIn("carol", "wrong")) for each in (one[5], two[5])]
        known = two[6]
        self.assertEqual((await known.reply(await known.logIn("alice", "secret"))).status, 0)
        self.assertEqual([client.replyTo(call) for client, call in waiting], [None, None])
        self.assertEqual(server.log.count(": 10 logins failed within 60 s"), 1)


class OrderTests(WorkersTestCase):
    """
    Tests for reloading, replacing and stopping workers.
    """

    tools = ()

    async def test_replaceAndDrain(self) -> None:
        """
        All workers reload.  All are replaced while clients connect without a failure, and connected
        clients stay.  A drained server stops when its clients have left.
        """
        rules = Path(self.privateDirectory()) / "rules.toml"
        rules.write_text("[default]\nmode = 1\n")
        server = await self.start(f"--mode=rules:{rules}")
        server.program.signal(signal.SIGHUP)
        for worker in (1, 2):
            await server.program.waitOutput(rf"worker {worker} \(pid \d+\) has reloaded")
        rules.write_text("[default]\nmode = 9\n")
        (problem,) = await self.control.reload()
        self.assertIn("mode", problem)
        rules.write_text("[default]\nmode = 1\n")

        stays = await self.connect(server, 20)
        await together(*(each.open() for each in stays))
        before = {each["pid"] for each in await self.workers()}
        replacing = Deferred.fromCoroutine(self.control.replace())
        while not replacing.called:
            for each in await self.connect(server, 5):
                await each.open()
                await each.disconnect()
        self.assertEqual(await replacing, 2)
        workers = await self.workers()
        self.assertEqual({each["pid"] for each in workers if each["leaving"]}, before)
        self.assertEqual([each.lostAt for each in stays], [None] * 20)
        self.assertEqual(len(await self.control.clients()), 20)
        for each in stays[1:]:
            await each.disconnect()
        server.program.signal(signal.SIGUSR2)
        await server.program.waitOutput("draining: no new clients")

        async def refused() -> bool:
            try:
                await (await RawClient.connect(self, server.port)).disconnect()
            except ConnectError:
                return True
            return False

        await self.eventually(refused)
        self.assertIsNone(stays[0].lostAt)
        await stays[0].disconnect()
        result = await server.program.finish()
        self.assertEqual(result.exitCode, 0, server.log)
        self.assertNotIn("Traceback", server.log)

    async def test_start(self) -> None:
        """
        C{SIGTERM} stops the server while its workers start.  It runs with C{twist} too.
        """
        directory = self.privateDirectory()
        arguments = ["kaserver", "--listen=tcp:0:interface=127.0.0.1", "--workers=2"]
        twistd = [*twistdCommand(), "-n", "--pidfile="]
        twist = [str(Path(twistd[0]).with_name("twist"))]
        for command, waits in ((twistd, "listening on"), (twist, "worker 2 .* serves")):
            program = Program.start(self, [*command, *arguments], os.environ, directory)
            await program.waitOutput(waits, 20)
            program.signal(signal.SIGTERM)
            await program.finish()
            self.assertNotIn("Traceback", program.output + program.errors)
