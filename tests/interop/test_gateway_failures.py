"""
Tests for a hanging or dying peer at either end of the gateway: what the other end sees, how soon,
and that everything is freed.
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
    Makes connections, and checks messages on them.
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
        Check that a disconnected virsh reconnects at its next command.
        """
        await virsh.ask("hostname", r"hostname\n\S+\n")
        await virsh.waitOutput("error: Reconnected to the hypervisor")

    def assertTold(self, client: RawClient) -> None:
        """
        Check that the client got a close event with the reason "end of file".
        """
        (told,) = [frame for frame in client.frames if frame.procedure == wire.CONNECTION_CLOSED]
        self.assertEqual((told.kind, told.serial), (wire.MESSAGE, 1))
        self.assertEqual(told.payload, struct.pack(">i", 1))

    async def ask(self, client: RawClient) -> int:
        """
        Make a call, and wait until kaserver has forwarded it, as a pong for a later ping shows.

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
        @return: the error message of a call.
        """
        answer = await client.reply(serial)
        assert answer.error is not None
        return answer.error.message


class UpstreamTests(FailureTestCase):
    """
    Tests for a libvirtd that hangs, dies or does not run.
    """

    async def test_upstream(self) -> None:
        """
        Clients see that libvirtd hangs, dies, does not run or refuses, and why.
        """
        await together(
            self._frozen(),
            self._killed(),
            self._missing(),
            self._ownError(),
        )

    async def _frozen(self) -> None:
        """
        When libvirtd hangs, with C{--upstream-interval=0.5 --upstream-count=2}, an idle virsh is
        disconnected within 1.5 s.  A call in progress fails within 2.5 s with an error that says
        which side is dead, and the log says so too.  When libvirtd continues, the same virsh can
        reconnect.
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

    async def _killed(self) -> None:
        """
        When libvirtd is killed with a hundred clients connected, all get a close event and are
        disconnected at once, and calls in progress fail.  New clients are refused with the reason
        until libvirtd runs again.  After two such outages kaserver has no connection left.
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

    async def _missing(self) -> None:
        """
        When the upstream socket does not exist, the error at open says so.
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

    async def _ownError(self) -> None:
        """
        libvirtd's own error at open is relayed unchanged.
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
    Tests for a virsh that hangs or dies.
    """

    async def ends(self, number: int, seconds: float, *arguments: str) -> str:
        """
        Send a signal to a connected virsh, and check that kaserver and libvirtd close its sockets
        within C{seconds}.

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

    async def test_client(self) -> None:
        """
        A virsh that is killed or stopped is removed in time.
        """
        await together(
            self._killed(),
            self._frozen(),
        )

    async def _killed(self) -> None:
        """
        A killed virsh is removed at once, and not logged as dead.
        """
        log = await self.ends(signal.SIGKILL, 1)
        self.assertNotIn("dead", log)

    async def _frozen(self) -> None:
        """
        A stopped virsh is removed after 1.5 s with C{--interval=0.5 --count=2}, and logged as dead
        once.
        """
        log = await self.ends(signal.SIGSTOP, 2.5, "--interval=0.5", "--count=2")
        self.assertEqual(log.count("is dead: "), 1)
