"""
Tests for an unmodified C{virt-admin}, and for C{kaproto}, administering a server with real clients.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol, ServerFactory
from zope.interface import implementer

from kaproto.admin import client
from kaproto.admin.factory import adminFactory
from kaproto.backends.host import EmbeddedHost
from kaproto.cli.command import CommandFailed
from kaproto.cli.main import Options
from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import Optional
from kaproto.rpc.remote import RemoteProgram
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.programs import REMOTE_PROGRAM, Procedure
from tests.interop.programs import Program, Result, startPythonLibvirt, startVirsh
from tests.interop.support import (
    VIRT_ADMIN,
    InteropTestCase,
    pause,
    privateEnvironment,
    reactor,
    unavailable,
    waitUntil,
)
from tests.support_daemon import FakeDaemon

NOBODY = 65534


class AdministeredTestCase(InteropTestCase):
    """
    A test with a server in this process, administered from other processes.
    """

    tools = ("virsh", "virt-admin", "python3-libvirt")

    def setUp(self) -> None:
        """
        Listen for clients and for administrators.
        """
        super().setUp()
        self.server = KeepAliveServerFactory(
            Optional(KeepAlive(1, 5)), EmbeddedHost(), clock=reactor
        )
        self.daemon = FakeDaemon(self.server)
        self.factory = adminFactory(self.daemon)
        self.directory = self.privateDirectory()
        self.socket = os.path.join(self.directory, "admin")
        port: IListeningPort = reactor.listenTCP(
            0, cast(ServerFactory, self.server), interface="127.0.0.1"
        )
        self.uri = f"test+tcp://127.0.0.1:{port.getHost().port}/default"  # type: ignore[attr-defined]
        self.addCleanup(self.end, port, reactor.listenUNIX(self.socket, self.factory, mode=0o600))

    async def end(self, *ports: IListeningPort) -> None:
        """
        Stop listening, and abort all connections.
        """
        for port in ports:
            await port.stopListening()  # type: ignore[misc]
        for factory in (self.server, self.factory):
            factory.abort()
            await waitUntil(lambda each=factory: not each.connections, "no connection")  # type: ignore[misc]

    async def virsh(self) -> Program:
        """
        Start a virsh that stays connected.
        """
        before = self.server.counters.opened
        virsh = startVirsh(self, "-c", self.uri)
        await virsh.ask("hostname", r"\S+")
        await waitUntil(lambda: self.server.counters.opened > before, "virsh is connected")
        return virsh


class VirtAdminTests(AdministeredTestCase):
    """
    Tests for C{virt-admin}.
    """

    async def admin(self, *arguments: str, uid: int | None = None) -> Result:
        """
        Run C{virt-admin}.

        @param uid: the id of the user to run it as.
        """
        environment = privateEnvironment(self.directory) | {"TZ": "UTC"}
        command = [VIRT_ADMIN, "-c", f"kaserver:///?socket={self.socket}", *arguments]
        program = Program.start(self, command, environment, "/", uid=uid, gid=uid)
        return await program.finish()

    async def works(self, *arguments: str) -> str:
        """
        Run C{virt-admin}, and check that it succeeds.

        @return: its output.
        """
        result = await self.admin(*arguments)
        self.assertEqual((result.exitCode, result.errors), (0, ""), arguments)
        return result.output

    async def fails(self, *arguments: str, words: str) -> None:
        """
        Run C{virt-admin}, and check that it fails.

        @param words: part of its error.
        """
        result = await self.admin(*arguments)
        self.assertEqual(result.exitCode, 1)
        self.assertIn(words, result.errors)

    async def test_servers(self) -> None:
        """
        C{virt-admin} shows the daemon's version, its servers and their parameters.
        """
        self.assertIn("Running against daemon: 0.", await self.works("version"))
        listed = await self.works("server-list")
        self.assertRegex(listed, r"(?s)0 +kaserver\n.*1 +admin\n")
        self.assertRegex(await self.works("server-threadpool-info", "kaserver"), r"maxWorkers +: 1")
        self.assertIn("Logging outputs: 2:twistd", await self.works("daemon-log-outputs"))
        self.assertIn("Logging filters:", await self.works("daemon-log-filters"))
        self.assertIn("succeed", await self.works("server-update-tls", "kaserver"))
        self.assertEqual(self.daemon.calls, [("reload",)])

    async def test_unsupported(self) -> None:
        """
        An unsupported operation fails with an explanation.
        """
        for arguments, words in [
            (["daemon-log-outputs", "3:stderr"], "kaserver's log is configured with --logfile"),
            (["daemon-log-filters", "3:qemu"], "kaserver's log is configured with --logfile"),
            (["daemon-timeout", "--timeout", "5"], "kaserver does not stop by itself"),
            (["server-threadpool-set", "kaserver", "--max-workers", "9"], "no pool of workers"),
            (["client-list", "nope"], "Server not found: No server named 'nope'"),
            (["client-info", "kaserver", "7"], "No client with matching ID '7'"),
            (["server-clients-set", "kaserver", "--max-clients", "0"], "let nobody connect"),
        ]:
            await self.fails(*arguments, words=words)

    async def test_limits(self) -> None:
        """
        Limits can be read, and changed while the server runs.
        """
        await self.works("server-clients-set", "kaserver", "--max-clients", "5")
        self.assertEqual(self.server.limits.maxClients, 5)
        shown = await self.works("server-clients-info", "kaserver")
        self.assertEqual(
            dict(re.findall(r"(\w+) *: (\d+)", shown)),
            {
                "nclients_max": "5",
                "nclients": "0",
                "nclients_unauth_max": "5",
                "nclients_unauth": "0",
            },
        )

    async def test_clients(self) -> None:
        """
        A virsh can be listed, inspected and disconnected, and prints that it was; another stays
        connected.
        """
        first, second = await self.virsh(), await self.virsh()
        listed = await self.works("client-list", "kaserver")
        self.assertEqual(
            [line.split()[:2] for line in listed.splitlines()[2:] if line],
            [["1", "tcp"], ["2", "tcp"]],
        )
        await waitUntil(
            lambda: all(each.latency for each in self.server.connections), "an answer to a ping"
        )
        info = dict(re.findall(r"(\w+) *: (.*)", await self.works("client-info", "kaserver", "1")))
        for name, value in {
            "id": "1",
            "transport": "tcp",
            "readonly": "no",
            "phase": "open",
            "keepalive_asked": "yes",
            "policy": "optional",
            "keepalive_interval": "1",
            "keepalive_count": "5",
            "opened": "test:///default",
            "calls": "0",
        }.items():
            self.assertEqual(info[name], value, name)
        self.assertRegex(info["connection_time"], r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\+0000$")
        self.assertRegex(info["sock_addr"], r"^127\.0\.0\.1:\d+$")
        for name in ("last_heard_ms", "latency_us", "bytes_received", "bytes_sent"):
            self.assertRegex(info[name], r"^\d+$", name)
        self.assertGreater(int(info["bytes_received"]), 200)
        self.assertIn(
            "Client '1' disconnected", await self.works("client-disconnect", "kaserver", "1")
        )
        await first.waitOutput("Disconnected from .* due to end of file")
        await second.ask("hostname", r"\S+")
        (ending,) = self.server.journal.endings
        self.assertEqual((ending.who.id, ending.kind), (1, "disconnected"))

    async def test_strangers(self) -> None:
        """
        Another user of this machine is refused with a message that says who may administer.
        """
        if os.geteuid() != 0:
            unavailable("only root can run virt-admin as another user")
        os.chmod(self.directory, 0o755)
        os.chmod(self.socket, 0o666)
        result = await self.admin("server-list", uid=NOBODY)
        self.assertEqual(result.exitCode, 1, result)
        self.assertIn("operation forbidden: kaserver is administered by root", result.errors)
        self.assertIn("you are nobody (uid 65534); try sudo", result.errors)
        self.assertEqual(self.factory.counters.refused, 1)

    async def test_idle(self) -> None:
        """
        An idle administrator stays connected, and is not pinged.
        """
        environment = privateEnvironment(self.directory)
        program = Program.start(
            self, [VIRT_ADMIN, "-c", f"kaserver:///?socket={self.socket}"], environment, "/"
        )
        await program.ask("server-list", "kaserver")
        await pause(2.5)
        await program.ask("version", "Running against daemon")
        program.send("quit")
        result = await program.finish()
        self.assertEqual((result.exitCode, self.factory.counters.accepted), (0, 1))
        self.assertNotIn("Disconnected", result.output + result.errors)


@implementer(ISession)
class SlowSession:
    """
    Never answers a call.
    """

    idle = True

    def opened(self, connection: object) -> None:
        """
        Do nothing when the connection is open.
        """

    def callReceived(self, procedure: int, payload: bytes) -> Deferred[bytes]:
        """
        @return: a L{Deferred} that never fires.
        """
        return Deferred()

    def closed(self, reason: Exception) -> None:
        """
        Do nothing when the connection has ended.
        """


@implementer(IBackend)
class Slow:
    """
    A host that never answers C{CONNECT_GET_HOSTNAME}.
    """

    features: frozenset[int] = frozenset()

    def knows(self, procedure: int) -> bool:
        """
        @return: whether it is C{CONNECT_GET_HOSTNAME}.
        """
        return procedure == Procedure.CONNECT_GET_HOSTNAME

    def open(self, peer: Peer, request: OpenRequest) -> ISession:
        """
        @return: a session that never answers.
        """
        return ISession(SlowSession())


class Mute(Protocol):
    """
    A server that never answers.  It disconnects after half a second, since the client waits for
    that when it closes.
    """

    def connectionMade(self) -> None:
        """
        Disconnect after half a second.
        """
        assert self.transport is not None
        reactor.callLater(0.5, self.transport.loseConnection)


class KaprotoTests(AdministeredTestCase):
    """
    Tests for C{kaproto}.
    """

    async def kaproto(self, *arguments: str, uid: int | None = None) -> Result:
        """
        Run C{kaproto}.
        """
        command = [sys.executable, "-m", "kaproto", f"--socket={self.socket}", *arguments]
        environment = dict(os.environ)
        return await Program.start(self, command, environment, uid=uid, gid=uid).finish()

    async def test_clients(self) -> None:
        """
        A virsh is listed, and disconnected with a reason.  A client that did not ask for keepalive
        is counted as one that mode 2 would refuse.
        """
        virsh = await self.virsh()
        await startPythonLibvirt(self, "libvirt.open(sys.argv[1])", self.uri).finish()
        result = await self.kaproto("list", "--json")
        (client,) = json.loads(result.output)
        self.assertEqual((client["id"], client["phase"]), (1, "open"))
        result = await self.kaproto("refused")
        self.assertRegex(result.output, r"127\.0\.0\.1 +- +0 +1 ")
        result = await self.kaproto("disconnect", "1", "--reason=maintenance")
        self.assertEqual((result.exitCode, result.output), (0, "client 1 is disconnected\n"))
        await virsh.waitOutput("Disconnected from .* due to end of file")
        result = await self.kaproto("ended")
        self.assertIn("an administrator disconnected this client: maintenance", result.output)
        result = await self.kaproto("show", "1")
        self.assertEqual(
            (result.exitCode, result.errors),
            (
                1,
                "kaproto: Client not found: No client with matching ID '1'; kaproto list shows who "
                "is connected, kaproto ended who was\n",
            ),
        )

    async def test_reason(self) -> None:
        """
        A virsh with a call in progress prints that an administrator disconnected it, and why.
        """
        self.server.programs[REMOTE_PROGRAM] = RemoteProgram(Slow())
        virsh = startVirsh(self, "-c", self.uri, "hostname")
        await waitUntil(
            lambda: any(each.callsUnderWay for each in self.server.clients), "virsh waits"
        )
        (client,) = self.server.clients
        await self.kaproto("disconnect", str(client.peer.id), "--reason=kernel update at 12")
        result = await virsh.finish()
        self.assertEqual(result.exitCode, 1)
        self.assertIn(
            "error: operation failed: an administrator disconnected this client: kernel update "
            "at 12",
            result.errors,
        )

    async def test_unreachable(self) -> None:
        """
        Without a server the exit code is 3.
        """
        self.socket += "x"
        result = await self.kaproto("status")
        self.assertEqual(result.exitCode, 3)
        self.assertIn("No such file", result.errors)

    async def test_silent(self) -> None:
        """
        A command fails when the server does not answer in time.
        """
        path = os.path.join(self.directory, "mute")
        port = reactor.listenUNIX(path, Factory.forProtocol(Mute))
        self.addCleanup(port.stopListening)
        self.patch(client, "_TIMEOUT", 0.1)
        options = Options()  # type: ignore[no-untyped-call]
        options.parseOptions([f"--socket={path}", "list"])
        running = Deferred.fromCoroutine(options.subOptions.run(reactor))
        error = await self.assertFailure(running, CommandFailed)
        self.assertEqual(getattr(error, "exitCode", None), 3)
        self.assertIn(f"kaserver does not answer at {path}", str(error))
