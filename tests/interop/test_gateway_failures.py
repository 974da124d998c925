"""
Either end of the gateway hangs or dies: what the other end sees, how soon, and what is left.
"""

from __future__ import annotations

import re
import signal
import struct
import time

from tests.interop import wire
from tests.interop.gateway import GatewayTestCase, openSockets
from tests.interop.programs import Program, runVirsh, startVirsh
from tests.interop.rawclient import RawClient
from tests.interop.servers import KaServer
from tests.interop.support import together, waitUntil

_CLIENTS = 100


class FailureTestCase(GatewayTestCase):
    """
    Makes connections, and looks at what is said on them.
    """

    async def interactive(self, server: KaServer) -> Program:
        """
        Start a virsh that stays connected.
        """
        virsh = startVirsh(self, "-c", server.uri)
        await virsh.ask("hostname", r"hostname\n\S+\n")
        return virsh

    async def reconnects(self, virsh: Program) -> None:
        """
        A virsh that was disconnected connects again at its next command.
        """
        await virsh.ask("hostname", r"hostname\n\S+\n")
        await virsh.waitOutput("error: Reconnected to the hypervisor")

    def assertTold(self, client: RawClient) -> None:
        """
        A client was told that the connection was closed from the other side.
        """
        (told,) = [frame for frame in client.frames if frame.procedure == wire.CONNECTION_CLOSED]
        self.assertEqual((told.kind, told.serial), (wire.MESSAGE, 1))
        self.assertEqual(told.payload, struct.pack(">i", 1))

    async def ask(self, client: RawClient) -> int:
        """
        Make a call, and wait until kaserver has seen it, as its answer to a ping tells.

        @return: the serial of the call.
        """
        serial = client.sendCall(wire.GET_HOSTNAME)
        client.write(wire.PING)
        pong = (wire.KEEPALIVE, 2)
        await waitUntil(
            lambda: any((frame.program, frame.procedure) == pong for frame in client.frames),
            "the answer to a ping",
        )
        return serial

    async def error(self, client: RawClient, serial: int) -> str:
        """
        @return: the text of the error that a call was answered with.
        """
        answer = await client.reply(serial)
        assert answer.error is not None
        return answer.error.message


class UpstreamTests(FailureTestCase):
    """
    libvirtd hangs, dies, is not there.
    """

    async def test_frozen(self) -> None:
        """
        When libvirtd hangs, with C{--upstream-interval=0.5 --upstream-count=2}, virsh, with nothing
        under way, says within 1.5 s that it was disconnected.  A call under way is answered within
        2.5 s with an error that says which side is dead, and so does the log.  When libvirtd goes
        on, the same virsh can connect again.
        """
        daemon, server = await self.start("--upstream-interval=0.5", "--upstream-count=2")
        sockets = openSockets(server.program.pid)
        virsh = await self.interactive(server)
        client = await self.client(server.port)
        daemon.freeze()
        frozen = time.monotonic()
        serial = client.sendCall(wire.GET_HOSTNAME)
        await virsh.waitOutput(f"Disconnected from {re.escape(server.uri)} due to end of file")
        self.assertTrue(0.9 < time.monotonic() - frozen < 2)
        said = await self.error(client, serial)
        self.assertTrue(1.9 < time.monotonic() - frozen < 3)
        self.assertIn(f"libvirtd behind this gateway (unix:{daemon.socketPath}): it hangs", said)
        self.assertIn("(--upstream-interval 0.5 s, --upstream-count 2)", said)
        await client.waitLost(1)
        self.assertTold(client)
        line = f"closing tcp {re.escape(client.address)}: libvirtd behind this gateway .*hangs"
        self.assertEqual(len(re.findall(line, server.log)), 1)
        await self.settled(server, sockets)
        daemon.thaw()
        await self.reconnects(virsh)

    async def test_killed(self) -> None:
        """
        When libvirtd is killed while a hundred clients are connected and is started again, all
        are told and disconnected at once, the calls under way are answered, newcomers are told
        what is the matter as long as it lasts, and can open as soon as it is over, as often as
        that happens. kaserver has no connection left then.
        """
        daemon, server = await self.start()
        pid = server.program.pid
        sockets = openSockets(pid)
        virsh = await self.interactive(server)
        for _time in range(2):
            clients = await self.clients(server.port, _CLIENTS)
            self.assertGreaterEqual(openSockets(pid), sockets + 2 * _CLIENTS)
            daemon.freeze()
            serials = await together(*map(self.ask, clients))
            await daemon.kill()
            said = await together(*map(self.error, clients, serials))
            self.assertEqual(len(set(said)), 1)
            self.assertIn(f"libvirtd behind this gateway (unix:{daemon.socketPath}): ", said[0])
            await together(*(client.waitLost(2) for client in clients))
            for client in clients:
                self.assertTold(client)
            await self.settled(server, sockets)
            refused = await runVirsh(self, "-c", server.uri, "hostname")
            self.assertEqual(refused.exitCode, 1)
            self.assertIn(
                f"unable to connect to libvirtd behind this gateway (unix:{daemon.socketPath}): "
                "Connection was refused",
                refused.errors,
            )
            await daemon.restart()
        await self.reconnects(virsh)
        self.assertNotIn("Traceback", server.log)

    async def test_missing(self) -> None:
        """
        When there is no such socket at all, the error at open says so.
        """
        server = await KaServer.start(
            self, "--upstream=unix:/nonexistent/libvirt-sock", "--insecure"
        )
        result = await runVirsh(self, "-c", server.uri, "hostname")
        self.assertEqual(result.exitCode, 1)
        self.assertIn(
            "libvirtd behind this gateway (unix:/nonexistent/libvirt-sock)", result.errors
        )
        self.assertIn("No such file or directory", result.errors)

    async def test_ownError(self) -> None:
        """
        libvirtd's own error at open comes through word for word, and the same virsh can open
        something else.
        """
        daemon, server = await self.start()
        errors = []
        for each in (daemon, server):
            uri = each.uri.replace("test+tcp", "nosuch+tcp")
            result = await runVirsh(self, "-c", uri, "hostname")
            errors.append(result.errors)
        self.assertEqual(errors[0], errors[1])
        self.assertIn("no connection driver available for nosuch:///default", errors[0])


class ClientTests(FailureTestCase):
    """
    virsh hangs or dies.
    """

    async def ends(self, number: int, seconds: float, *arguments: str) -> str:
        """
        Send a signal to a virsh that is connected: within so many seconds kaserver and libvirtd
        are rid of it.

        @return: kaserver's log.
        """
        daemon, server = await self.start(*arguments)
        sockets = openSockets(server.program.pid)
        daemonSockets = openSockets(daemon.program.pid)
        virsh = await self.interactive(server)
        self.assertGreater(openSockets(server.program.pid), sockets + 1)
        self.assertGreater(openSockets(daemon.program.pid), daemonSockets)
        virsh.signal(number)
        signalled = time.monotonic()
        await self.settled(server, sockets)
        await waitUntil(
            lambda: openSockets(daemon.program.pid) <= daemonSockets, "libvirtd to be rid of virsh"
        )
        self.assertLess(time.monotonic() - signalled, seconds)
        return server.log

    async def test_killed(self) -> None:
        """
        A virsh that is killed has gone at once, and there is nothing to say about it.
        """
        log = await self.ends(signal.SIGKILL, 1)
        self.assertNotIn("dead", log)

    async def test_frozen(self) -> None:
        """
        A virsh that hangs has gone, with C{--interval=0.5 --count=2}, after 1.5 s.
        """
        log = await self.ends(signal.SIGSTOP, 2.5, "--interval=0.5", "--count=2")
        self.assertEqual(log.count("is dead: "), 1)
