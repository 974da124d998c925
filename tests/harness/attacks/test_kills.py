"""
Short forms of the attacks by SIGKILL.
"""

from __future__ import annotations

import os
import random
import time

from twisted.trial.unittest import TestCase

from kaproto.client import connect
from tests.harness.attacks.case import AttackTestCase
from tests.harness.attacks.kills import Kill, killOnce
from tests.harness.attacks.scene import Virsh
from tests.harness.attacks.targets import KaTarget
from tests.interop.support import reactor, requireInterop

CLIENTS = 50


class KillTests(AttackTestCase):
    """
    Tests for a kaserver that is killed.
    """

    def assertOver(self, kill: Kill) -> None:
        """
        Check that all clients saw the end at once, and that the next kaserver serves at once.
        """
        self.assertEqual(kill.told, kill.clients)
        self.assertGreater(kill.clients, CLIENTS)
        self.assertLess(kill.seen, 1)
        self.assertLess(kill.served, 1)

    def test_host(self) -> None:
        """
        Clients in every state see the end, and the next kaserver serves on the same port.
        """
        target = self.kaserver("--mode=2")
        self.assertOver(killOnce(target, CLIENTS, random.Random(1)))
        target.check()

    def test_unix(self) -> None:
        """
        On a UNIX socket, clients in every state see the end, and the next kaserver replaces the
        stale file.  There is no lock file, which could name a reused process id.
        """
        target = KaTarget("--mode=2", unix=True)
        self.target(target)
        self.assertOver(killOnce(target, CLIENTS, random.Random(2)))
        self.assertIn("left by a server that was killed", target.log)
        self.assertEqual(set(os.listdir(target.directory)), {"log", "socket"})
        target.check()

    def test_gateway(self) -> None:
        """
        Clients of a gateway see the end, libvirtd closes all of its connections, and the next
        gateway serves.
        """
        target, upstream = self.gateway("--mode=2", settings="max_anonymous_clients = 0\n")
        kill = killOnce(target, CLIENTS, random.Random(3), upstream)
        self.assertOver(kill)
        self.assertLess(kill.released, 1)
        target.check()

    def test_virsh(self) -> None:
        """
        virsh's next command fails, since there is no server.
        """
        requireInterop("virsh")
        target = self.kaserver("--mode=2")
        with Virsh(target) as virsh:
            virsh.waitConnected()
            target.kill()
            said = virsh.end()
        self.assertIn("Disconnected from", said)
        self.assertRegex(said, "no valid connection|Connection refused")


class ClientTests(TestCase):
    """
    Tests for kaproto's own client when kaserver is killed.
    """

    timeout = 30

    async def test_whenClosed(self) -> None:
        """
        C{whenClosed} fires at once.
        """
        target = self.enterContext(KaTarget("--mode=2"))
        client = await connect(reactor, f"test+tcp://127.0.0.1:{target.address}/default")
        killed = time.monotonic()
        target.kill()
        await client.whenClosed()
        self.assertLess(time.monotonic() - killed, 1)
