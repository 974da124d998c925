"""
Short forms of the attacks on servers at their limits.
"""

from __future__ import annotations

from functools import partial

from tests.harness.attacks import limits, slow
from tests.harness.attacks.case import AttackTestCase
from tests.harness.attacks.honest import enter
from tests.harness.attacks.measure import fileCount
from tests.harness.attacks.rawsocket import RawPeer
from tests.harness.attacks.targets import KaTarget, until
from tests.interop import wire

FILES = 60


class LimitTests(AttackTestCase):
    """
    Tests for servers at their limits.
    """

    def test_files(self) -> None:
        """
        With no file descriptor left kaserver does not spin, still serves and pings its clients, and
        accepts others as soon as descriptors are free.
        """
        target = KaTarget(
            "--mode=2", "--interval=0.3", "--count=2", "--max-clients=1000", files=FILES
        )
        self.target(target)
        result = self.attack(
            target, partial(slow.idle, target.address, 3 * FILES, 1), newcomers=False
        )
        self.assertEqual(result.meter.filesMax, FILES)
        self.assertGreater(result.outcomes[0].ends["closed"], FILES)
        self.assertLess(result.meter.share, 0.4)
        self.assertIn("EMFILE", result.log)
        enter(target.address, None, 5).socket.close()

    def test_ownLimit(self) -> None:
        """
        By default kaserver accepts no more clients than it has file descriptors for, whether they
        connect one by one or all at once.
        """
        target = KaTarget("--mode=2", files=100)
        self.target(target)
        result = self.attack(
            target, partial(limits.crowd, target.address, 60, 0.1), newcomers=False
        )
        self.assertEqual(result.outcomes[0].ends["let in"], 100 - 64 - 1)
        limits.exhaust(target.address, 300, 0.5)
        self.assertIn("the oldest unopened connection was closed", target.log)
        self.assertNotIn("EMFILE", target.log)

    def test_gatewayFiles(self) -> None:
        """
        A gateway that has a file descriptor for a client, but none for its connection to libvirtd,
        refuses the client with advice.
        """
        upstream = self.gateway()[1]
        target = KaTarget("--max-clients=1000", upstream=upstream, files=FILES)
        self.target(target)
        idle = []
        while fileCount(target.pid) < FILES - 1:
            idle.append(RawPeer(target.address))
            last = idle[-1]
            last.call(wire.AUTH_LIST)
        last = RawPeer(target.address)
        with self.assertRaises(ConnectionError) as caught:
            last.open()
        self.assertIn("raise that limit (LimitNOFILE=, ulimit -n)", str(caught.exception))
        idle.pop().reset()
        until(lambda: fileCount(target.pid) < FILES, "a file to be free")
        last.open()
        target.check()

    def test_maxClients(self) -> None:
        """
        A client beyond C{--max-clients} is refused with one line in the log.  When another leaves,
        it can connect.
        """
        target = self.kaserver("--mode=2", "--max-clients=10")
        inside = [enter(target.address, None, 5) for _ in range(10)]
        for _ in range(3):
            with self.assertRaises(ConnectionError) as caught:
                enter(target.address, None, 5)
            self.assertIn("reached its limit of 10 clients (--max-clients)", str(caught.exception))
        until(lambda: target.log.count("the limit of 10 clients is reached") == 3, "three lines")
        full = fileCount(target.pid)
        inside.pop().reset()
        until(lambda: fileCount(target.pid) < full, "it to be gone")
        inside.append(enter(target.address, None, 5))
        target.check()
