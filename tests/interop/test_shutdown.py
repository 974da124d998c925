"""
Tests for how kaserver stops, and what its clients see.
"""

from __future__ import annotations

import fcntl
import signal
import socket
import struct
import termios
import time

from tests.interop import wire
from tests.interop.forwarder import Forwarder
from tests.interop.programs import startVirsh
from tests.interop.rawclient import RawClient
from tests.interop.servers import KaServer
from tests.interop.support import InteropTestCase, pause, together, waitUntil


class ShutdownTests(InteropTestCase):
    """
    Tests for signals to a C{twistd kaserver} with clients.
    """

    async def test_signals(self) -> None:
        """
        kaserver ends on C{SIGTERM} and when it is drained, in time, and tells its clients.
        """
        await together(
            self._idle(),
            self._clientTold(),
            self._stopsListening(),
            self._graceEnds(),
            self._twice(),
            self._drain(),
            self._drainBound(),
        )

    async def _idle(self) -> None:
        """
        Without clients C{SIGTERM} ends kaserver at once, by that signal, even with a long
        C{--grace}.
        """
        server = await KaServer.start(self, "--grace=30")
        server.program.signal(signal.SIGTERM)
        result = await server.program.finish(3)
        self.assertEqual((result.exitCode, result.signal), (None, signal.SIGTERM))
        self.assertNotIn("Traceback", server.log)

    async def _clientTold(self) -> None:
        """
        An idle virsh gets a close event, and kaserver ends without waiting for C{--grace} seconds.
        """
        server = await KaServer.start(self, "--mode=2", "--grace=30")
        forwarder = Forwarder(self, server.port)
        virsh = startVirsh(self, "-c", forwarder.uri)
        await virsh.ask("hostname", r"hostname\n\S+\n")
        server.program.signal(signal.SIGTERM)
        result = await server.program.finish(3)
        self.assertEqual((result.exitCode, result.signal), (None, signal.SIGTERM))
        await virsh.waitOutput("Disconnected from ")
        (link,) = forwarder.links
        told = [frame for frame in link.server.frames if frame.procedure == wire.CONNECTION_CLOSED]
        self.assertEqual([(frame.kind, frame.serial) for frame in told], [(wire.MESSAGE, 1)])
        self.assertNotIn("Traceback", server.log)

    async def _stopsListening(self) -> None:
        """
        While a client delays the end, the kernel refuses new connections.
        """
        server, _client = await self._heldUp(grace=30)
        server.program.signal(signal.SIGTERM)

        await waitUntil(lambda: self._refused(server), "the port to be closed")
        self.assertTrue(server.program.running)

    async def _graceEnds(self) -> None:
        """
        A client that does not read its replies delays the end by C{--grace} seconds at most.
        """
        server, _client = await self._heldUp(grace=0.8)
        told = time.monotonic()
        server.program.signal(signal.SIGTERM)
        result = await server.program.finish()
        self.assertEqual((result.exitCode, result.signal), (None, signal.SIGTERM))
        assert server.program.endedAt is not None
        lasted = server.program.endedAt - told
        self.assertGreater(lasted, 0.7)
        self.assertLess(lasted, 2.3)

    async def _twice(self) -> None:
        """
        A second C{SIGTERM} ends kaserver at once, even if a client delays it.
        """
        server, _client = await self._heldUp(grace=30)
        server.program.signal(signal.SIGTERM)
        await pause(0.3)
        self.assertTrue(server.program.running, "the client did not hold it up")
        server.program.signal(signal.SIGTERM)
        result = await server.program.finish(2)
        self.assertEqual((result.exitCode, result.signal), (None, signal.SIGTERM))

    async def _drain(self) -> None:
        """
        C{SIGUSR2} refuses new clients and keeps the others.  When the last has left, kaserver exits
        with code 0.
        """
        server = await KaServer.start(self, "--mode=2")
        virsh = startVirsh(self, "-c", server.uri)
        await virsh.ask("hostname", r"hostname\n\S+\n")
        server.program.signal(signal.SIGUSR2)
        await server.program.waitOutput("draining: no new clients; 1 connections have up to 300 s")
        await waitUntil(lambda: self._refused(server), "the port to be closed")
        await virsh.ask("hostname", r"hostname\n\S+\n")
        self.assertTrue(server.program.running)
        virsh.send("quit")
        result = await server.program.finish()
        self.assertEqual((result.exitCode, result.signal), (0, None))
        self.assertNotIn("Traceback", server.log)

    async def _drainBound(self) -> None:
        """
        Clients that do not leave are disconnected after C{--drain-timeout} seconds.
        """
        server = await KaServer.start(self, "--mode=2", "--drain-timeout=0.5")
        client = await RawClient.connect(self, server.port)
        await client.open()
        server.program.signal(signal.SIGUSR2)
        result = await server.program.finish(5)
        self.assertEqual((result.exitCode, result.signal), (0, None))

    @staticmethod
    def _refused(server: KaServer) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", server.port)) != 0

    async def _heldUp(self, grace: float) -> tuple[KaServer, RawClient]:
        """
        @return: a kaserver, and a client that has requested more than the kernel buffers, and reads
            none of it.
        """
        server = await KaServer.start(self, f"--grace={grace:g}")
        client = await RawClient.connect(self, server.port)
        await client.open()
        client.transport.pauseProducing()
        client.write(wire.encode(wire.GET_CAPABILITIES, serial=77) * 200_000)
        waiting = -1
        while waiting != (waiting := _unsent(client)) or not waiting:
            await pause(0.4)
        return server, client


def _unsent(client: RawClient) -> int:
    """
    @return: the bytes of its calls that the server has not read, since the client does not read its
        replies.
    """
    answer = fcntl.ioctl(client.transport.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    queued: int = struct.unpack("=i", answer)[0]
    return queued + len(client.transport.dataBuffer) + client.transport._tempDataLen
