"""
Tests for network failures and stalled processes: dead peers are detected in time, and live ones are
kept.
"""

from __future__ import annotations

from tests.harness.faults import network, stalls
from tests.harness.faults.bench import Bench
from tests.harness.faults.verdicts import Record, problems
from tests.interop.support import InteropTestCase, together


class FaultTests(InteropTestCase):
    """
    Real processes on bad links, and real processes that are stopped (C{SIGSTOP}) and continued, or
    blocked.
    """

    tools = ("virsh", "libvirtd", "nsenter")

    async def test_faults(self) -> None:
        """
        When nothing arrives in one direction or both, each side that hears nothing closes within
        half a second of C{interval * (count + 1)} after the last byte.  While bytes get through no
        connection is closed: with three packets in ten lost, with half a second of delay, with
        packets out of order, and when the link is back in time.  The connections stay usable.

        A server that was stopped, or blocked by its application, for twice the timeout disconnects
        no live client in any state, and detects clients that died meanwhile within the timeout.
        Likewise a gateway does not declare its libvirtd dead, nor a client its server.
        """
        # They run together, since both mostly wait.
        ofNetwork, ofStalls = await together(self._network(), self._stalls())
        self.assertEqual(problems(ofNetwork), [])
        self.assertEqual(problems(ofStalls), [])

    async def _network(self) -> list[Record]:
        bench = await Bench.make(self, network.LINKS)
        brisk, patient = await together(
            bench.kaserver(*network.BRISK), bench.kaserver(*network.PATIENT)
        )
        return await network.run(bench, {network.BRISK: brisk, network.PATIENT: patient})

    async def _stalls(self) -> list[Record]:
        bench = await Bench.make(self, stalls.LINKS)
        return await stalls.run(bench)
