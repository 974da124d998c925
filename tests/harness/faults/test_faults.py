"""
The network fails, and processes stall: whoever is dead is found in time, and nobody else is killed.
"""

from __future__ import annotations

from tests.harness.faults import network, stalls
from tests.harness.faults.bench import Bench
from tests.harness.faults.verdicts import Record, problems
from tests.interop.support import InteropTestCase, together


class FaultTests(InteropTestCase):
    """
    Real processes over links that are made bad, and real processes that are stopped (C{SIGSTOP})
    and continued, or blocked.
    """

    tools = ("virsh", "libvirtd", "nsenter")

    async def test_faults(self) -> None:
        """
        When nothing arrives in one direction, or in both, each side that hears nothing finds out
        within half a second of C{interval * (count + 1)} after the last byte.  Nobody dies while
        bytes get through: with three packets in ten lost, with half a second of delay, with
        packets out of order, and when the link comes back before the time is up; the same
        connections go on and work.

        A server that was stopped, or blocked in somebody's code, for twice the death time drops
        nobody who is alive, in whatever state, and finds those who died meanwhile within the
        death time.  A gateway does not take its libvirtd for dead then, nor a client its server.
        """
        # Both are mostly waiting.
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
