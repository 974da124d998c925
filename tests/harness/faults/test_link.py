"""
Tests for the links: they have the quality they are set to, and report what arrives.
"""

from __future__ import annotations

import os
import sys
import time

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.harness.faults import link, namespaces
from tests.harness.faults.link import Quality, Stream
from tests.harness.faults.namespaces import CUT, GOOD, Namespaces
from tests.interop.support import REQUIRE_VARIABLE, InteropTestCase

_ECHO = """
import socket
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("0.0.0.0", 7))
print("ready", flush=True)
while True:
    data, peer = link.recvfrom(100)
    link.sendto(data, peer)
"""

_ASK = """
import socket, struct, time
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.connect(("10.77.0.1", 7))
link.settimeout(0.6)
for number in range(100):
    link.send(struct.pack(">I", number))
answers = []
try:
    while True:
        answers.append(struct.unpack(">I", link.recv(100))[0])
        if len(answers) == 100:
            break
except TimeoutError:
    pass
print("answers", *answers, flush=True)
"""


class StreamTests(SynchronousTestCase):
    """
    Tests for L{Stream}.
    """

    def setUp(self) -> None:
        """
        Open a connection whose sequence numbers are about to wrap around.
        """
        self.stream = Stream()
        self.stream.arrived(2**32 - 11, 0, syn=True, now=0)

    def arrive(self, now: float, start: int, length: int) -> None:
        """
        Deliver a segment.

        @param start: the offset of its first byte in the stream.
        """
        self.stream.arrived((2**32 - 10 + start) % 2**32, length, syn=False, now=now)

    def test_inOrder(self) -> None:
        """
        Segments with new bytes count as heard; acknowledgements and retransmissions do not.
        """
        self.arrive(1, 0, 5)
        self.arrive(2, 5, 0)
        self.arrive(3, 5, 28)
        self.arrive(4, 0, 5)
        self.arrive(5, 5, 28)
        self.arrive(6, 33, 1)
        self.assertEqual(self.stream.heard, [1, 3, 6])

    def test_gap(self) -> None:
        """
        Bytes behind a gap count as heard when the gap is filled.
        """
        self.arrive(1, 5, 5)
        self.arrive(2, 10, 90)
        self.assertEqual(self.stream.heard, [])
        self.arrive(3, 0, 5)
        self.arrive(4, 98, 4)
        self.arrive(5, 100, 2)
        self.assertEqual(self.stream.heard, [3, 4])

    def test_unknown(self) -> None:
        """
        Segments of a connection whose SYN was not seen are ignored.
        """
        stream = Stream()
        stream.arrived(100, 5, syn=False, now=1)
        self.assertEqual(stream.heard, [])


class NamespaceTests(InteropTestCase):
    """
    Tests for L{Namespaces}.
    """

    tools = ("nsenter",)

    async def echoes(
        self, where: Namespaces, toServer: Quality = GOOD, toClient: Quality = GOOD
    ) -> tuple[list[int], float]:
        """
        Send a hundred numbered packets over link 0 and back.

        @return: the numbers that came back, in order of arrival, and the seconds that took.
        """
        await where.set(0, toServer, toClient)
        start = time.monotonic()
        asking = namespaces.TimedProgram.start(
            self, [*where.inClients(), sys.executable, "-c", _ASK], os.environ
        )
        match = await asking.waitOutput(r"answers(.*)\n", 15)
        return [int(number) for number in match[1].split()], time.monotonic() - start

    async def test_qualities(self) -> None:
        """
        A good link delivers all packets in order.  Others lose, delay and reorder packets in the
        direction they are set to.
        """
        where = await Namespaces.make(self, 1)
        echo = namespaces.TimedProgram.start(
            self, [*where.inServers(), sys.executable, "-c", _ECHO], os.environ
        )
        await echo.waitOutput("ready")
        everything = list(range(100))
        answers, good = await self.echoes(where)
        self.assertEqual(answers, everything)
        answers, slow = await self.echoes(where, Quality(delay=0.1, jitter=0.1), Quality(0, 0.15))
        self.assertEqual(answers, everything)
        self.assertTrue(slow > good + 0.1, (good, slow))
        answers, _seconds = await self.echoes(where, Quality(reorder=0.5, held=0.1))
        self.assertEqual(sorted(answers), everything)
        self.assertNotEqual(answers, everything)
        answers, _seconds = await self.echoes(where, toClient=Quality(loss=0.3))
        self.assertIn(len(answers), range(45, 95))
        before = await where.report(0)
        answers, _seconds = await self.echoes(where, toServer=CUT)
        after = await where.report(0)
        self.assertEqual(answers, [])
        self.assertEqual(after.toServer["lost"] - before.toServer["lost"], 100)
        self.assertEqual(after.toClient["packets"], before.toClient["packets"])

    async def test_notAllowed(self) -> None:
        """
        Where namespaces are not permitted, a test is skipped with the reason, or fails if interop
        tests are required.
        """
        script = os.path.join(self.privateDirectory(), "link.py")
        with open(script, "w", encoding="ascii") as file:
            file.write(
                "import sys; sys.exit('no network namespaces with TUN devices: not allowed')"
            )
        self.patch(link, "__file__", script)
        for required, expected in (("0", SkipTest), ("1", AssertionError)):
            self.patch(os, "environ", {**os.environ, REQUIRE_VARIABLE: required})
            with self.assertRaises(expected) as raised:
                await Namespaces.make(self, 1)
            self.assertIn("not allowed", str(raised.exception))
