"""
Tests for L{kaproto.admin.disconnecting}.
"""

from __future__ import annotations

from kaproto.admin.disconnecting import disconnectClient
from kaproto.errors import RemoteError
from tests.support import Probe
from tests.support_admin import AdminTestCase


class DisconnectTests(AdminTestCase):
    """
    Tests for disconnecting a client.
    """

    def test_callsUnderWay(self) -> None:
        """
        A client's pending calls fail with the reason for the disconnection; disconnecting it again
        changes nothing.
        """
        self.server.programs[Probe.number] = Probe()
        client = self.openClient()
        pair = self._pairs[0]
        waiting = [pair.client.call(Probe.number, Probe.LATER) for _ in range(2)]
        pair.flush()
        disconnectClient(client, "main\ntenance")
        disconnectClient(client, "again")
        pair.flush()
        for each in waiting:
            error = self.failureResultOf(each, RemoteError).value
            self.assertEqual(
                (error.code, error.message),
                (
                    9,
                    "operation failed: an administrator disconnected this client: main\\ntenance",
                ),
            )
        self.assertIn("end of file", str(self.successResultOf(pair.client.whenClosed())))
