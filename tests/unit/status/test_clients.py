"""
Tests for L{kaproto.status.clients}.
"""

from __future__ import annotations

from kaproto.keepalive.kernel import Delivery
from kaproto.status import clients
from kaproto.status.clients import clientsOf, clientStatus, findClient
from kaproto.wire.message import packMessage
from tests.support import OPEN, Probe
from tests.support_admin import AdminTestCase


class ClientsTests(AdminTestCase):
    """
    Tests for clients as operators see them.
    """

    def test_find(self) -> None:
        """
        Clients are listed in the order of their connection, and found by id.
        """
        wires = [self.client() for _ in range(5)]
        wires[2].lose()
        self.assertEqual([each.peer.id for each in clientsOf(self.server)], [1, 2, 4, 5])
        self.assertIs(findClient(self.server, 4), self.connectionOf(wires[3]))
        self.assertIsNone(findClient(self.server, 3))

    def test_kernel(self) -> None:
        """
        Bytes and silence are taken from the kernel's counters.
        """
        client = self.openClient()
        self.patch(clients, "delivery", lambda _: Delivery(0, 20, 0, 30, 1.5))
        status = clientStatus(self.server, client)
        self.assertEqual((status.received, status.sent, status.silence), (30, 20, 1.5))

    def test_unknown(self) -> None:
        """
        Without the kernel's counters the bytes of messages are counted, and the silence is known
        only of clients that are pinged.
        """
        wire = self.client()
        status = clientStatus(self.server, clientsOf(self.server)[0])
        self.assertEqual((status.received, status.sent, status.silence), (0, 0, None))
        wire.feed(OPEN)
        status = clientStatus(self.server, clientsOf(self.server)[0])
        self.assertEqual((status.received, status.sent), (len(packMessage(OPEN)), 28))
        client = self.openClient()
        self.assertIsNotNone(clientStatus(self.server, client).silence)

    def test_calls(self) -> None:
        """
        Pending calls are counted.
        """
        probe = Probe()
        self.server.programs[Probe.number] = probe
        client = self.openClient()
        calls = [self._pairs[0].client.call(Probe.number, Probe.LATER) for _ in range(22)]
        self._pairs[0].flush()
        self.assertEqual(clientStatus(self.server, client).calls, 22)
        for each in calls:
            each.addErrback(lambda _: None)
