"""
Tests for the detection of a virsh that stops answering.
"""

from __future__ import annotations

import re
import signal

from tests.interop.forwarder import Forwarder
from tests.interop.programs import startVirsh
from tests.interop.servers import KaServer
from tests.interop.support import InteropTestCase, pause, together, waitUntil

_INTERVAL = 1
_COUNT = 2
_DEATH = _INTERVAL * (_COUNT + 1)


class StoppedVirshTests(InteropTestCase):
    """
    C{SIGSTOP} keeps the sockets of a process open and stops its answers, like a hung host.  A
    forwarder records when virsh last sent a byte, and when the server closed.
    """

    async def _server(self, mode: int, interval: float = _INTERVAL) -> tuple[KaServer, Forwarder]:
        server = await KaServer.start(
            self, f"--mode={mode}", f"--interval={interval}", f"--count={_COUNT}"
        )
        return server, Forwarder(self, server.port)

    async def _dropped(self, mode: int) -> None:
        """
        Check that a virsh stopped after it has answered a ping is disconnected in time.
        """
        server, forwarder = await self._server(mode)
        virsh = startVirsh(self, "-c", forwarder.uri)
        await virsh.waitOutput("virsh # ")
        (link,) = forwarder.links
        await waitUntil(lambda: link.client.pongs, "virsh to answer a ping")
        virsh.signal(signal.SIGSTOP)
        lost = await waitUntil(lambda: link.server.lostAt, "the server to drop virsh")
        assert link.client.lastByte is not None
        self.assertApproximates(lost - link.client.lastByte, _DEATH, 0.3)
        unanswered = [at for at in link.server.pings if at > link.client.lastByte]
        self.assertEqual(len(unanswered), _COUNT)
        dead = " is dead: connection closed due to keepalive timeout"
        await waitUntil(lambda: dead in server.log, "the death in the log")
        self.assertEqual(server.log.count(dead), 1)

    async def _kept(self) -> None:
        """
        Check that mode 0 keeps a stopped virsh, and that it works when it continues.
        """
        _server, forwarder = await self._server(0)
        virsh = startVirsh(self, "-c", forwarder.uri)
        await virsh.waitOutput("virsh # ")
        (link,) = forwarder.links
        virsh.signal(signal.SIGSTOP)
        await pause(_DEATH + 1)
        self.assertIsNone(link.server.lostAt)
        self.assertEqual(link.server.pings, [])
        virsh.signal(signal.SIGCONT)
        await virsh.ask("uri", r"uri\ntest\+tcp")
        await virsh.ask("hostname", r"hostname\n\S+\n")
        self.assertEqual(len(forwarder.links), 1, "virsh had to connect again")

    async def _answering(self, mode: int) -> None:
        """
        Check that a virsh that never pings itself (C{-k 0}) but answers stays connected for almost
        twice the timeout, with at most one ping per interval.
        """
        server, forwarder = await self._server(mode, interval=0.5)
        virsh = startVirsh(self, "-k", "0", "-c", forwarder.uri)
        await virsh.waitOutput("virsh # ")
        (link,) = forwarder.links
        await pause(2.8)
        self.assertIsNone(link.server.lostAt)
        # Five on an idle machine; a busy one may send some late.
        self.assertIn(len(link.server.pings), range(2, 6))
        self.assertEqual(len(link.client.pongs), len(link.server.pings))
        self.assertNotIn("timeout", server.log)

    async def test_stopped(self) -> None:
        """
        With interval 1 and count 2, modes 1 and 2 disconnect a stopped virsh 3 s after its last
        byte, and log it once.  Mode 0 keeps it.  All modes keep a virsh that answers.
        """
        await together(
            self._dropped(1),
            self._dropped(2),
            self._kept(),
            self._answering(1),
            self._answering(2),
        )

    async def test_told(self) -> None:
        """
        A virsh that was stopped for too long prints, when it continues, that the connection was
        closed because of a keepalive timeout.
        """
        # After one ping virsh has one answer to send when it continues. A second answer would be
        # written to a closed connection and end virsh by SIGPIPE, as it does with libvirtd.
        server = await KaServer.start(self, "--mode=2", "--interval=0.5", "--count=1")
        virsh = startVirsh(self, "-c", server.uri)
        await virsh.waitOutput("virsh # ")
        virsh.signal(signal.SIGSTOP)
        await waitUntil(lambda: "keepalive timeout" in server.log, "the death in the log")
        virsh.signal(signal.SIGCONT)
        await virsh.waitOutput(
            f"Disconnected from {re.escape(server.uri)} due to keepalive timeout"
        )
