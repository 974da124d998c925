"""
Tests for clients that cannot be pinged: the kernel's probes and acknowledgements show that they are
dead.
"""

from __future__ import annotations

import os
import sys
import time

from tests.harness.faults import unasked
from tests.harness.faults.bench import Bench
from tests.harness.faults.ends import Server
from tests.harness.faults.link import clientAddress, serverAddress
from tests.harness.faults.namespaces import CUT, TimedProgram
from tests.interop.support import InteropTestCase, pause, requireInterop, waitUntil

_INTERVAL = 1
_COUNT = 2
_DEATH = _INTERVAL * (_COUNT + 1)


class KernelTests(InteropTestCase):
    """
    Tests for clients that do not ask for keepalive, on links that are cut.
    """

    def setUp(self) -> None:
        """
        Skip the test, or fail it, if a tool is missing.
        """
        requireInterop("nsenter", "unshare")
        super().setUp()

    async def client(self, bench: Bench, server: Server, link: int, what: str) -> str:
        """
        Start a client.

        @param what: what it does once it is open, see L{unasked}.
        @return: its address.
        """
        command = [sys.executable, unasked.__file__, serverAddress(link), str(server.port), what]
        program = TimedProgram.start(
            self, [*bench.namespaces.inClients(), *command], os.environ, self.privateDirectory()
        )
        match = await program.waitOutput(r"open (\d+)")
        return f"{clientAddress(link)}:{match[1]}"

    async def test_cut(self) -> None:
        """
        When the link is cut, an idle client is detected by the kernel's probes, and one in a
        download by its missing acknowledgements.  One that does not read stays connected on a good
        link; on a cut link its death is not detected soon, since its window is full.
        """
        bench = await Bench.make(self, 4)
        server = await bench.kaserver(_INTERVAL, _COUNT, "--except=network=10.77.0.0/16")
        idle, download, stuck, lost = [
            await self.client(bench, server, link, what)
            for link, what in enumerate(("idle", "download", "stuck", "stuck"))
        ]
        await pause(_DEATH + 2 * _INTERVAL)
        self.assertEqual(server.present, {idle, download, stuck, lost}, server.program.describe())
        cuts = {}
        for link, address in ((0, idle), (1, download), (3, lost)):
            cuts[address] = await bench.namespaces.set(link, CUT, CUT)
        await waitUntil(lambda: idle in server.lost and download in server.lost, "deaths", 20)
        took = {each: server.lost[each] - cuts[each] for each in (idle, download)}
        # The last probe before the cut may be up to an interval old.
        self.assertTrue(_DEATH - _INTERVAL < took[idle] < _DEATH + 0.5, took)
        self.assertTrue(_DEATH - 0.1 < took[download] < _DEATH + _INTERVAL + 0.5, took)
        await waitUntil(lambda: bool(server.deaths(download)), "a death in the log", 2)
        self.assertEqual(len(server.deaths(download)), 1)
        self.assertIn("the host acknowledged nothing", server.deaths(download)[0][1])
        await pause(max(0, cuts[lost] + 3 * _DEATH - time.monotonic()))
        self.assertEqual(server.present, {stuck, lost})
