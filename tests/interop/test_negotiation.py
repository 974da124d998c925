"""
Tests for a client that does not ask for keepalive, in each mode, on a real socket.
"""

from __future__ import annotations

import struct

from tests.interop import wire
from tests.interop.rawclient import RawClient
from tests.interop.shared import SharedServer
from tests.interop.support import InteropTestCase, pause, together, waitUntil

_INTERVAL = 0.3
_COUNT = 2
_DEATH = _INTERVAL * (_COUNT + 1)


class SkippedCheckTests(InteropTestCase):
    """
    Tests with an interval of 0.3 s and a count of 2.
    """

    tools = ()

    async def _server(self, mode: int) -> SharedServer:
        return await SharedServer.get(
            f"--mode={mode}", f"--interval={_INTERVAL}", f"--count={_COUNT}"
        )

    async def test_modes(self) -> None:
        """
        Each mode applies to clients that ask for keepalive, and to those that do not.
        """
        await together(
            self._notAsking(),
            self._refused(),
            self._refusedWithoutReading(),
            self._askedInTime(),
            self._disabledStillAnswers(),
            self._tooLate(),
        )

    async def _leftAlone(self, mode: int) -> SharedServer:
        """
        Check that a client that did not ask can open, is neither pinged nor disconnected, and can
        make calls.
        """
        server = await self._server(mode)
        client = await RawClient.connect(self, server.port)
        await client.open(ask=False)
        hostname = await client.succeed(wire.GET_HOSTNAME)
        await pause(_DEATH + 2 * _INTERVAL)
        self.assertIsNone(client.lostAt)
        self.assertEqual(client.pings, [])
        self.assertEqual(await client.succeed(wire.GET_HOSTNAME), hostname)
        return server

    async def _notAsking(self) -> None:
        """
        In modes 0 and 1 a client that did not ask for keepalive can open, and stays connected
        without pings.  In mode 1 the log says that mode 2 would refuse it.
        """
        optional, disabled = await together(self._leftAlone(1), self._leftAlone(0))
        self.assertIn("mode 2 would refuse", optional.log)
        self.assertNotIn("would refuse", disabled.log)

    async def _refused(self) -> None:
        """
        In mode 2 the open of a client that did not ask for keepalive fails with an error that says
        what to do, and the client is disconnected.  The log names it once.
        """
        server = await self._server(2)
        client = await RawClient.connect(self, server.port)
        await client.succeed(wire.AUTH_LIST)
        reply = await client.call(1, wire.OPEN_ARGUMENTS)
        assert reply.error is not None
        self.assertEqual(reply.error[:3], (9, 7, 2))
        self.assertIn("keepalive", reply.error.message)
        self.assertIn("virEventRegisterDefaultImpl", reply.error.message)
        self.assertLess(await client.waitLost() - reply.at, 1.0)
        self.assertEqual(client.pings, [])
        await waitUntil(lambda: client.address in server.log, "the peer in the log")
        self.assertEqual(server.log.count(client.address), 1, server.log)

    async def _refusedWithoutReading(self) -> None:
        """
        In mode 2 a client that did not ask for keepalive is disconnected even if it does not read
        the error.
        """
        server = await self._server(2)
        client = await RawClient.connect(self, server.port)
        client.transport.pauseProducing()
        client.write(wire.encode(1, wire.OPEN_ARGUMENTS))
        await waitUntil(lambda: client.address in server.log, "the peer in the log")
        client.transport.resumeProducing()
        await client.waitLost()

    async def _askedInTime(self) -> None:
        """
        In mode 2 a client that asked for keepalive can open.  If it is silent, it is pinged twice
        and disconnected C{interval * (count + 1)} seconds after its last message.
        """
        server = await self._server(2)
        client = await RawClient.connect(self, server.port)
        client.answering = False
        await client.open()
        silent = client.frames[-1].at
        self.assertApproximates(await client.waitLost() - silent, _DEATH, 0.25)
        self.assertEqual(len(client.pings), _COUNT)

    async def _disabledStillAnswers(self) -> None:
        """
        In mode 0 the keepalive feature is advertised and the client's pings are answered, but the
        server never pings.
        """
        server = await self._server(0)
        client = await RawClient.connect(self, server.port)
        client.answering = False
        await client.open()
        client.write(wire.PING)
        await waitUntil(lambda: client.frames[-1].program == wire.KEEPALIVE, "a pong")
        self.assertEqual(client.frames[-1].procedure, 2)
        await pause(_DEATH + _INTERVAL)
        self.assertIsNone(client.lostAt)
        self.assertEqual(client.pings, [])

    async def _tooLate(self) -> None:
        """
        Asking for keepalive after a refused open has no effect: the connection is closed.
        """
        server = await self._server(2)
        client = await RawClient.connect(self, server.port)
        client.write(
            wire.encode(1, wire.OPEN_ARGUMENTS, serial=0)
            + wire.encode(wire.SUPPORTS_FEATURE, struct.pack(">i", 10), serial=1)
            + wire.encode(1, wire.OPEN_ARGUMENTS, serial=2)
        )
        await client.waitLost()
        self.assertEqual([(frame.serial, frame.status) for frame in client.frames], [(0, 1)])
