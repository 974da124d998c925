"""
Tests for network failures and stalled processes: dead peers are detected in time, and live ones are
kept.
"""

from __future__ import annotations

import os
import sys
import time

from tests.harness.faults import network, stalls, unasked
from tests.harness.faults.bench import Bench
from tests.harness.faults.ends import Server
from tests.harness.faults.link import clientAddress, serverAddress
from tests.harness.faults.namespaces import CUT, TimedProgram
from tests.harness.faults.verdicts import Record, problems
from tests.interop.support import InteropTestCase, pause, together, waitUntil

_INTERVAL = 1
_COUNT = 2
_DEATH = _INTERVAL * (_COUNT + 1)


class FaultTests(InteropTestCase):
    """
    Real processes on bad links, and real processes that are stopped (C{SIGSTOP}) and continued, or
    blocked.
    """

    tools = ("virsh", "libvirtd", "nsenter", "unshare")

    async def test_faults(self) -> None:
        """
        When nothing arrives in one direction or both, each side that hears nothing closes within
        half a second of C{interval * (count + 1)} after the last byte.  While bytes get through no
        connection is closed: with three packets in ten lost, with half a second of delay, with
        packets out of order, and when the link is back in time.  The connections stay usable.

        A server that was stopped, or blocked by its application, for twice the timeout disconnects
        no live client in any state, and detects clients that died meanwhile within the timeout.
        Likewise a gateway does not declare its libvirtd dead, nor a client its server.

        Dead clients that do not ask for keepalive are detected by the kernel.
        """
        # They run together, since all mostly wait.
        for records in await together(self._network(), self._stalls(), self._kernel()):
            self.assertEqual(problems(records), [])

    async def _network(self) -> list[Record]:
        bench = await Bench.make(self, network.LINKS)
        brisk, patient = await together(
            bench.kaserver(*network.BRISK), bench.kaserver(*network.PATIENT)
        )
        return await network.run(bench, {network.BRISK: brisk, network.PATIENT: patient})

    async def _stalls(self) -> list[Record]:
        bench = await Bench.make(self, stalls.LINKS)
        return await stalls.run(bench)

    async def _unasked(self, bench: Bench, server: Server, link: int, what: str) -> str:
        """
        Start a client that does not ask for keepalive.

        @param what: what it does once it is open, see L{unasked}.
        @return: its address.
        """
        command = [sys.executable, unasked.__file__, serverAddress(link), str(server.port), what]
        program = TimedProgram.start(
            self, [*bench.namespaces.inClients(), *command], os.environ, self.privateDirectory()
        )
        match = await program.waitOutput(r"open (\d+)")
        return f"{clientAddress(link)}:{match[1]}"

    async def _kernel(self) -> list[Record]:
        """
        When the link is cut, an idle client is detected by the kernel's probes, and one in a
        download by its missing acknowledgements.  One that does not read stays connected on a good
        link; on a cut link its death is not detected soon, since its window is full.
        """
        bench = await Bench.make(self, 4)
        server = await bench.kaserver(_INTERVAL, _COUNT, "--except=network=10.77.0.0/16")
        idle, download, stuck, lost = [
            await self._unasked(bench, server, link, what)
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
        return []
