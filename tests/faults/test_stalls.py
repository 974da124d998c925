"""
Processes stall: nobody who is alive is taken for dead, and who is dead is found all the same.
"""

from __future__ import annotations

from tests.faults import stalls
from tests.faults.bench import Bench
from tests.faults.verdicts import problems
from tests.interop.support import InteropTestCase


class StallTests(InteropTestCase):
    """
    Real processes that are stopped (C{SIGSTOP}) and continued, or blocked.
    """

    tools = ("virsh", "libvirtd", "nsenter")

    async def test_stalls(self) -> None:
        """
        A server that was stopped, or blocked in somebody's code, for twice the death time drops
        nobody who is alive, in whatever state, and finds those who died meanwhile within the
        death time.  A gateway does not take its libvirtd for dead then, nor a client its server.
        """
        bench = await Bench.make(self, stalls.LINKS)
        self.assertEqual(problems(await stalls.run(bench)), [])
