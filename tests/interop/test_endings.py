"""
Tests for the error that virsh prints after each kind of disconnection.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Awaitable, Callable
from typing import cast

from twisted.internet.protocol import ServerFactory

from kaproto.backends.host import EmbeddedHost
from kaproto.errors import Disconnected
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Optional
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.programs import CloseReason
from tests.interop.gateway import GatewayTestCase
from tests.interop.programs import Program, Result, startPythonLibvirt, startVirsh
from tests.interop.servers import KaServer, LibvirtDaemon
from tests.interop.support import InteropTestCase, pause, reactor, together

_WATCH = ("--upstream-interval=0.5", "--upstream-count=2")
_EOF = "error: Disconnected from {uri} due to end of file"
_KEEPALIVE = "error: Disconnected from {uri} due to keepalive timeout"


class EndingsTests(GatewayTestCase):
    """
    Tests for a virsh that is idle at its prompt, and one in a call that blocks.
    """

    async def prompt(self, server: KaServer, *arguments: str) -> Program:
        """
        Start a virsh that stays connected.
        """
        virsh = startVirsh(self, *arguments, "-c", server.uri)
        await virsh.ask("hostname", r"hostname\n\S+\n")
        return virsh

    async def calling(self, server: KaServer, *arguments: str) -> Program:
        """
        Start a virsh with a call in progress that blocks.
        """
        virsh = await self.prompt(server, *arguments)
        fifo = os.path.join(self.privateDirectory(), "fifo")
        os.chmod(os.path.dirname(fifo), 0o711)
        os.mkfifo(fifo, 0o666)
        os.chmod(fifo, 0o666)
        virsh.send(f"restore {fifo}")
        await pause(1)
        return virsh

    async def assertSays(self, virsh: Program, server: KaServer, text: str) -> None:
        """
        Check that virsh prints C{text}.
        """
        await virsh.waitOutput(re.escape(text.format(uri=server.uri)))

    async def both(
        self, *arguments: str, mode: int = 2
    ) -> tuple[LibvirtDaemon, KaServer, Program, Program]:
        """
        Start libvirtd and a gateway, with one virsh at its prompt and one in a call.
        """
        daemon, server = await self.start(*_WATCH, *arguments, mode=mode)
        idle, calling = await together(self.prompt(server), self.calling(server))
        return daemon, server, idle, calling

    async def test_endings(self) -> None:
        """
        However a connection ends, virsh prints that it has ended and, where it can know, why.
        """
        await together(
            self._upstreamLost(),
            self._upstreamHangs(),
            self._stopped(),
            self._killed(),
            self._clientStopped(),
            self._serverStopped(),
            self._refused(),
        )

    async def _upstreamLost(self) -> None:
        """
        When libvirtd is killed, both print end of file, and the call fails with the reason.
        """
        daemon, server, idle, calling = await self.both()
        await daemon.kill()
        for virsh in (idle, calling):
            await self.assertSays(virsh, server, _EOF)
        await calling.waitOutput(
            r"error: internal error: libvirtd behind this gateway \(unix:\S+\): "
            "(the peer closed the connection|Connection to the other side was lost)"
        )

    async def _upstreamHangs(self) -> None:
        """
        When libvirtd hangs, both print end of file, and the call fails with the reason.
        """
        daemon, server, idle, calling = await self.both()
        daemon.freeze()
        for virsh in (idle, calling):
            await self.assertSays(virsh, server, _EOF)
        await calling.waitOutput(
            r"error: internal error: libvirtd behind this gateway \S+: it hangs"
        )
        daemon.thaw()

    async def _stopped(self) -> None:
        """
        When kaserver is stopped, both print end of file, and the call in progress fails with the
        reason after C{--grace} seconds.
        """
        _daemon, server, idle, calling = await self.both("--grace=1")
        server.program.signal(signal.SIGTERM)
        for virsh in (idle, calling):
            await self.assertSays(virsh, server, _EOF)
        await calling.waitOutput("error: operation failed: the server is shutting down")

    async def _killed(self) -> None:
        """
        When kaserver is killed, the error that virsh prints depends on whether kaserver had unread
        bytes from it.
        """
        _daemon, server, idle, calling = await self.both()
        server.program.signal(signal.SIGKILL)
        await idle.waitOutput(r"error: Disconnected from \S+ due to (end of file|I/O error)")
        await calling.waitOutput(
            "error: (End of file while reading data: Input/output error|"
            "Cannot recv data: Connection reset by peer)"
        )

    async def _clientStopped(self) -> None:
        """
        A client that continues after kaserver has declared it dead prints keepalive timeout.
        """
        _daemon, server = await self.start("--interval=0.5", "--count=1")
        virsh = await self.prompt(server)
        virsh.signal(signal.SIGSTOP)
        await server.program.waitOutput("is dead: ")
        virsh.signal(signal.SIGCONT)
        await self.assertSays(virsh, server, _KEEPALIVE)

    async def _serverStopped(self) -> None:
        """
        When kaserver hangs, virsh's own keepalive closes the connection, and the call in progress
        fails.
        """
        _daemon, server = await self.start()
        arguments = ("-k", "1", "-K", "1")
        idle, calling = await together(
            self.prompt(server, *arguments), self.calling(server, *arguments)
        )
        server.program.signal(signal.SIGSTOP)
        await self.assertSays(idle, server, _KEEPALIVE)
        await calling.waitOutput(
            "error: internal error: connection closed due to keepalive timeout"
        )
        server.program.signal(signal.SIGCONT)

    async def _refused(self) -> None:
        """
        Mode 2 refuses a client that does not ask for keepalive.
        """
        _daemon, server = await self.start()
        program = startPythonLibvirt(self, "libvirt.open(sys.argv[1])", server.uri)
        result: Result = await program.finish(15)
        self.assertIn("operation failed: this server requires keepalive", result.errors)


class WritingTests(InteropTestCase):
    """
    Tests for a virsh that calls without a pause over a UNIX socket, where the first write after the
    server has closed raises C{SIGPIPE}.
    """

    tools = ("virsh",)

    async def _closed(self, close: Callable[[KeepAliveServerFactory], Awaitable[object]]) -> None:
        """
        Check that the end of the server kills no virsh, and that each prints the reason.
        """
        server = KeepAliveServerFactory(Optional(KeepAlive(1, 5)), EmbeddedHost(), clock=reactor)
        path = os.path.join(self.privateDirectory(), "socket")
        port = reactor.listenUNIX(path, cast(ServerFactory, server))
        calls = "hostname; " * 10_000
        running = [
            startVirsh(self, "-c", f"test+unix:///default?socket={path}", calls) for _ in range(6)
        ]
        await together(*(virsh.waitOutput(r"\S+\n") for virsh in running))
        await port.stopListening()  # type: ignore[misc]
        await close(server)
        for virsh in running:
            result = await virsh.finish()
            self.assertEqual(result.signal, None, virsh.errors)
            self.assertRegex(result.errors, "^error: Disconnected from .* due to end of file")

    async def test_closed(self) -> None:
        """
        No virsh is killed when an administrator disconnects one client after the other, or when the
        server stops.
        """

        async def expel(server: KeepAliveServerFactory) -> None:
            for each in list(server.clients):
                each.expel(Disconnected("maintenance", CloseReason.EOF))
                await pause(0.01)

        await together(self._closed(expel), self._closed(KeepAliveServerFactory.drain))
