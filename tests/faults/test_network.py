"""
The network fails: who is dead is found out in time, and nobody else is killed.
"""

from __future__ import annotations

from tests.faults import network
from tests.faults.bench import Bench
from tests.faults.verdicts import problems
from tests.interop.support import InteropTestCase, together


class NetworkTests(InteropTestCase):
    """
    Real processes over links that are made bad.
    """

    tools = ("virsh", "nsenter")

    async def test_faults(self) -> None:
        """
        When nothing arrives in one direction, or in both, each side that hears nothing finds out
        within half a second of C{interval * (count + 1)} after the last byte.  Nobody dies while
        bytes get through: with three packets in ten lost, with half a second of delay, with
        packets out of order, and when the link comes back before the time is up; the same
        connections go on and work.
        """
        bench = await Bench.make(self, network.LINKS)
        brisk, patient = await together(
            bench.kaserver(*network.BRISK), bench.kaserver(*network.PATIENT)
        )
        records = await network.run(bench, {network.BRISK: brisk, network.PATIENT: patient})
        self.assertEqual(problems(records), [])
