"""
Tests for L{kaproto.admin.client} that need a socket.  The others are in L{test_control}.
"""

from __future__ import annotations

from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime, IReactorUNIX
from twisted.trial.unittest import TestCase

from kaproto.admin.client import ControlClient
from kaproto.admin.factory import adminFactory
from kaproto.server import KeepAliveServerFactory
from tests.support_daemon import FakeDaemon


class ConnectTests(TestCase):
    """
    Tests for connecting to the socket of C{--admin}.
    """

    async def test_connect(self) -> None:
        """
        The connection is open at once: the first call is answered.
        """
        path = self.mktemp()
        daemon = FakeDaemon(KeepAliveServerFactory())
        port = cast(IReactorUNIX, reactor).listenUNIX(path, adminFactory(daemon))
        client = await ControlClient.connect(cast(IReactorTime, reactor), path)
        try:
            self.assertEqual(await client.clients(), [])
        finally:
            await client.close()
            await maybeDeferred(port.stopListening)
