"""
Tests for a libvirtd that does not read a connection because it has five of its messages in
progress: it stays connected, and one that hangs is still detected in time.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import time
from typing import NamedTuple

from tests.interop import wire
from tests.interop.gateway import GatewayTestCase, openSockets
from tests.interop.programs import startPythonLibvirt
from tests.interop.rawclient import RawClient
from tests.interop.servers import KaServer, LibvirtDaemon
from tests.interop.support import pause, together, unavailable, waitUntil

_RESTORE = 54
_SAVE = 55

_INTERVAL = 0.5
_COUNT = 2
_IDLE_DEATH = _INTERVAL * (_COUNT + 1)
_BUSY_DEATH = _INTERVAL * (_COUNT + 3)
_LONG = 6.0
"""
Twice the time after which libvirtd drops a client that does not answer pings, and longer than
kaserver's timeout.
"""
_WATCH = (f"--upstream-interval={_INTERVAL}", f"--upstream-count={_COUNT}")

_DOMAIN = (
    wire.string("test")
    + bytes.fromhex("6695eb01f6a48304 79aa97f2502e193f".replace(" ", ""))
    + struct.pack(">i", 1)
)
"""
The test driver's domain: its name, UUID and id.
"""


_CONSOLE = """
import os
libvirt.registerErrorHandler(lambda *_: None, None)
libvirt.virEventRegisterDefaultImpl()
def loop():
    while True:
        libvirt.virEventRunDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
connection = libvirt.open(sys.argv[1])
connection.registerCloseCallback(lambda *_: print("closed", flush=True), None)
XML = '''<domain type="qemu"><name>paused</name><memory>65536</memory>
<os><type arch="x86_64">hvm</type></os>
<devices><serial type="pty"/><console type="pty"/></devices></domain>'''
domain = connection.createXML(XML, libvirt.VIR_DOMAIN_START_PAUSED)
stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
domain.openConsole(None, stream)
sent = 0
while sent < 65536:
    done = stream.send(b"x" * 4096)
    if done > 0:
        sent += done
print("pasted", sent, flush=True)
time.sleep(float(sys.argv[2]))
print("alive", connection.isAlive(), flush=True)
other = libvirt.open(sys.argv[1])
other.lookupByName("paused").destroy()
print("hostname", connection.getHostname(), flush=True)
"""


class Blocked(NamedTuple):
    """
    A client whose calls block: each restores a domain from a FIFO that has no writer.

    @ivar calls: their serials.
    @ivar fifo: its path.
    """

    client: RawClient
    calls: list[int]
    fifo: str


class BusyTests(GatewayTestCase):
    """
    Tests for a libvirtd that does not read a connection, because it is busy or because it hangs.
    """

    tools = ("virsh", "libvirtd", "python3-libvirt")

    async def startAll(
        self, number: int, *arguments: str, settings: str = ""
    ) -> tuple[LibvirtDaemon, list[KaServer]]:
        """
        Start a libvirtd that drops silent clients after three seconds, and several gateways in
        front of it.  A gateway for each client, so that no client's traffic proves to another's
        gateway that libvirtd is alive.
        """
        daemon = await LibvirtDaemon.start(self, 1, 2, settings)
        servers = await together(
            *(self.startGateway(daemon, *_WATCH, *arguments, mode=1) for _ in range(number))
        )
        return daemon, servers

    async def blocked(self, server: KaServer, number: int) -> Blocked:
        """
        Connect a client, and have it make C{number} calls that block.
        """
        fifo = os.path.join(self.privateDirectory(), "fifo")
        os.chmod(os.path.dirname(fifo), 0o711)
        os.mkfifo(fifo, 0o666)
        os.chmod(fifo, 0o666)
        client = await self.client(server.port)
        calls = [client.sendCall(_RESTORE, wire.string(fifo)) for _ in range(number)]
        await pause(0.2)
        return Blocked(client, calls, fifo)

    async def unblock(self, blocked: Blocked) -> None:
        """
        Unblock the calls, and wait until all are answered.
        """
        client, calls, fifo = blocked
        deadline = time.monotonic() + 20
        while any(client.replyTo(serial) is None for serial in calls):
            self.assertLess(time.monotonic(), deadline, "calls were left unanswered")
            self.assertIsNone(client.lostAt)
            descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
            await pause(0.1)
            os.close(descriptor)

    async def test_busy(self) -> None:
        """
        Clients of a busy libvirtd stay connected, however many calls they have under way, and
        whether or not libvirtd accepts a connection for a probe.  A libvirtd that hangs is found
        all the same.
        """
        # All are mostly waiting.
        await together(
            self._blocked(),
            self._fifthCall(),
            self._maxClients(),
            self._twoGateways(),
            self._stopped(),
            self._paste(),
        )

    async def _blocked(self) -> None:
        """
        Clients with 4, 5, 8 and 50 blocked calls stay connected for longer than kaserver or
        libvirtd needs to declare the other dead.  A libvirtd that does not read is logged once.
        Finally all calls are answered, and the probe connection is closed.
        """
        numbers = (4, 5, 8, 50)
        _daemon, servers = await self.startAll(len(numbers))
        before = [openSockets(server.program.pid) for server in servers]
        clients = [
            await self.blocked(server, number)
            for server, number in zip(servers, numbers, strict=True)
        ]
        await pause(_LONG)
        for (client, calls, _), server, number in zip(clients, servers, numbers, strict=True):
            self.assertIsNone(client.lostAt, f"{number} blocked calls")
            self.assertEqual(server.log.count("is busy"), number >= 5)
            self.assertEqual(server.log.count("over a new connection, because"), number >= 5)
            self.assertEqual([client.replyTo(serial) for serial in calls], [None] * number)
        for each in clients:
            await self.unblock(each)
            await each.client.succeed(wire.GET_HOSTNAME)
        # Each client has two sockets: its own, and the one to libvirtd.
        await together(
            *(
                self.settled(server, count + 2)
                for server, count in zip(servers, before, strict=True)
            )
        )

    async def _fifthCall(self) -> None:
        """
        A fifth call reaches libvirtd: saving a domain to the FIFO unblocks the four calls that
        restore from it.
        """
        _daemon, (server,) = await self.startAll(1)
        client, calls, fifo = await self.blocked(server, 4)
        await pause(2 * _BUSY_DEATH)
        calls.append(client.sendCall(_SAVE, _DOMAIN + wire.string(fifo)))
        for serial in calls:
            await client.reply(serial, 5)
        self.assertNotIn("is busy", server.log)

    async def _maxClients(self) -> None:
        """
        A libvirtd with C{max_clients} clients counts as alive as long as another connection is
        answered, whether or not it accepts the probe connection.
        """
        _daemon, (server,) = await self.startAll(
            1, settings="max_clients = 2\nmax_anonymous_clients = 0\n"
        )
        other = await self.client(server.port)
        busy = await self.blocked(server, 8)
        await pause(_LONG)
        self.assertIsNone(busy.client.lostAt)
        self.assertEqual(server.log.count("is busy"), 1)
        # Now libvirtd accepts the probe connection.
        await other.disconnect()
        await pause(_LONG)
        self.assertIsNone(busy.client.lostAt)
        self.assertIn("over a new connection, because", server.log)
        await self.unblock(busy)

    async def _twoGateways(self) -> None:
        """
        With two kaservers in a row, the second in mode 2, the first needs C{--upstream-ask=yes},
        and its log says so.  Neither disconnects a busy libvirtd.
        """
        daemon, _ = await self.startAll(0)
        path = os.path.join(self.privateDirectory(), "second")
        second = await self.startGateway(daemon, *_WATCH, f"--listen=unix:{path}", mode=2)
        chained = [
            await KaServer.start(
                self, "--mode=1", "--insecure", f"--upstream=unix:{path}", *_WATCH, *ask
            )
            for ask in ((), ("--upstream-ask=yes",))
        ]
        refused = await RawClient.connect(self, chained[0].port)
        answer = await refused.call(wire.OPEN, wire.OPEN_ARGUMENTS)
        assert answer.error is not None
        self.assertIn("keepalive", answer.error.message)
        await waitUntil(lambda: "pass --upstream-ask=yes" in chained[0].log, "what to do")
        busy = await self.blocked(chained[1], 8)
        await pause(_LONG)
        self.assertIsNone(busy.client.lostAt)
        self.assertEqual(second.log.count("is busy"), 1)
        self.assertNotIn("is busy", chained[1].log)
        await self.unblock(busy)

    async def _stopped(self) -> None:
        """
        A libvirtd stopped with 0, 4 and 8 calls in progress is declared dead: without calls after
        C{interval * (count + 1)} seconds, else after C{interval * (count + 3)}.  The calls fail
        with an error that says so.
        """
        numbers = (0, 4, 8)
        daemon, servers = await self.startAll(len(numbers))
        clients = [
            await self.blocked(server, number)
            for server, number in zip(servers, numbers, strict=True)
        ]
        await pause(2 * _BUSY_DEATH)
        daemon.freeze()
        stopped = time.monotonic()
        for (client, calls, _), number in zip(clients, numbers, strict=True):
            took = await client.waitLost() - stopped
            # The last pong may be up to an interval old; with 8 calls it is the probe's.
            latest = _BUSY_DEATH if number else _IDLE_DEATH
            earliest = (_IDLE_DEATH if number != 4 else _BUSY_DEATH) - 1.5 * _INTERVAL
            self.assertTrue(earliest < took < latest + 0.2, f"{number} calls: {took} s")
            for serial in calls:
                answer = client.replyTo(serial)
                assert answer is not None and answer.error is not None
                self.assertIn("it hangs, or waits for storage", answer.error.message)
        for server in servers[1:]:
            await server.program.waitOutput("it hangs")
        daemon.thaw()

    async def _paste(self) -> None:
        """
        The connection stays open while 64 KiB pasted into the console of a paused guest wait, and
        is usable after the guest is destroyed.
        """
        if shutil.which("qemu-system-x86_64") is None:
            unavailable("no qemu-system-x86_64, and the console of a guest needs one")
        _daemon, (server,) = await self.startAll(1)
        uri = f"qemu+tcp://127.0.0.1:{server.port}/session"
        program = startPythonLibvirt(self, _CONSOLE, uri, str(_LONG))
        await program.waitOutput("pasted 65536", 30)
        result = await program.finish(30)
        self.assertIn("alive 1", result.output, program.describe())
        self.assertIsNotNone(re.search(r"hostname \S+", result.output))
        self.assertNotIn("closed", result.output)
        self.assertEqual(server.log.count("is busy"), 1)
