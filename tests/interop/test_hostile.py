"""
Tests that compare kaserver's answers to unusual input with those of a real libvirtd.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.interop import oddities, wire
from tests.interop.oddities import Row
from tests.interop.outcomes import Outcome, agree, meets, observe
from tests.interop.rawclient import RawClient
from tests.interop.servers import LibvirtDaemon
from tests.interop.shared import SharedServer
from tests.interop.support import InteropTestCase, pause, together


class OddInputTests(InteropTestCase):
    """
    Tests for the rows of L{oddities}.
    """

    tools = ("libvirtd",)

    async def _observeAll(self, port: int, rows: Sequence[Row]) -> list[Outcome]:
        return await together(*(observe(self, port, row) for row in rows))

    async def _compare(self, rows: Sequence[Row]) -> None:
        """
        Send every row to both servers.  libvirtd must do what the row expects, and kaserver the
        same.
        """
        daemon = await LibvirtDaemon.start(self)
        server = await SharedServer.get("--mode=1")
        theirs, ours = await together(
            self._observeAll(daemon.port, rows), self._observeAll(server.port, rows)
        )
        wrong = [
            f"{row.name}: expected {row.expected}\n  libvirtd {their}\n  kaserver {our}"
            for row, their, our in zip(rows, theirs, ours, strict=True)
            if not (meets(their, row) and agree(their, our))
        ]
        if wrong:
            self.fail("\n".join(["these differ", *wrong]))
        self.assertNotIn("Traceback", server.log)

    async def test_framing(self) -> None:
        """
        An impossible length closes the connection; for the rest of an incomplete message the server
        waits.
        """
        await self._compare(oddities.FRAMING)

    async def test_programs(self) -> None:
        """
        Unknown programs, versions, procedures, types and statuses get the same error or are
        ignored, and the connection stays usable.
        """
        await self._compare(oddities.PROGRAMS)

    async def test_beforeOpen(self) -> None:
        """
        Calls in the wrong order get the same error, and the connection stays usable.
        """
        await self._compare(oddities.BEFORE_OPEN)

    async def test_arguments(self) -> None:
        """
        Undecodable arguments get the same error, and both accept the same unusual ones.
        """
        await self._compare(oddities.ARGUMENTS)

    async def test_keepAlive(self) -> None:
        """
        Pings are answered at any time, and unusual keepalive messages are ignored.
        """
        await self._compare(oddities.KEEPALIVE)


class OddSequenceTests(InteropTestCase):
    """
    Tests for sequences of messages that libvirtd accepts.
    """

    tools = ("libvirtd",)

    async def _servers(self) -> list[tuple[str, int]]:
        daemon = await LibvirtDaemon.start(self)
        server = await SharedServer.get("--mode=1")
        return [("libvirtd", daemon.port), ("kaserver", server.port)]

    async def test_openAgainAfterRefusal(self) -> None:
        """
        After an open fails for lack of a driver, another name can be opened.
        """
        for server, port in await self._servers():
            client = await RawClient.connect(self, port)
            refused = await client.call(1, wire.optionalString("foo:///x") + b"\0\0\0\0")
            self.assertEqual(refused.status, 1, server)
            await client.succeed(1, wire.OPEN_ARGUMENTS)
            self.assertNotEqual(await client.succeed(wire.GET_HOSTNAME), b"", server)

    async def test_secondOpenHarmless(self) -> None:
        """
        A second open is refused, and the connection stays usable.

        libvirtd 9.0 refuses it too, but then treats the connection as not open.
        """
        server = await SharedServer.get("--mode=1")
        client = await RawClient.connect(self, server.port)
        await client.open()
        refused = await client.call(1, wire.OPEN_ARGUMENTS)
        self.assertEqual(refused.status, 1)
        self.assertNotEqual(await client.succeed(wire.GET_HOSTNAME), b"")

    async def test_lateRest(self) -> None:
        """
        A message that arrives in two halves, with a pause in between, is answered.
        """
        for server, port in await self._servers():
            client = await RawClient.connect(self, port)
            await client.open()
            serial = 77
            message = wire.encode(wire.SUPPORTS_FEATURE, struct.pack(">i", 10), serial=serial)
            client.write(message[:30])
            await pause(0.2)
            self.assertIsNone(client.replyTo(serial), server)
            client.write(message[30:])
            self.assertEqual((await client.reply(serial)).payload, b"\0\0\0\1", server)

    async def test_byteByByte(self) -> None:
        """
        Messages that arrive byte by byte are answered.
        """
        conversation = [
            wire.encode(wire.AUTH_LIST, serial=0),
            wire.encode(wire.SUPPORTS_FEATURE, struct.pack(">i", 10), serial=1),
            wire.encode(1, wire.OPEN_ARGUMENTS, serial=2),
            wire.encode(wire.GET_HOSTNAME, serial=3),
        ]
        for server, port in await self._servers():
            client = await RawClient.connect(self, port)
            for serial, message in enumerate(conversation):
                for index in range(len(message)):
                    client.write(message[index : index + 1])
                    await pause(0)
                self.assertEqual((await client.reply(serial)).status, 0, server)

    async def test_manyAtOnce(self) -> None:
        """
        Two hundred calls in one write are answered once each, in any order.
        """
        for server, port in await self._servers():
            client = await RawClient.connect(self, port)
            await client.open()
            serials = range(1000, 1200)
            client.write(
                b"".join(wire.encode(wire.GET_HOSTNAME, serial=serial) for serial in serials)
            )
            for serial in serials:
                await client.reply(serial)
            answered = sorted(frame.serial for frame in client.frames if frame.serial >= 1000)
            self.assertEqual(answered, list(serials), server)
