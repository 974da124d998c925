"""
Tests for a gateway in the tests' process, which can be inspected, and configured as no option
allows.
"""

from __future__ import annotations

import gc
from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import ServerFactory

from kaproto.backends.gateway import Gateway
from kaproto.backends.relay import Relay
from kaproto.client import KeepAliveClientProtocol
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from tests.interop.gateway import GatewayTestCase
from tests.interop.programs import runVirsh
from tests.interop.servers import LibvirtDaemon
from tests.interop.support import reactor, together, waitUntil


class InProcessTests(GatewayTestCase):
    """
    Tests for the gateway with a libvirtd and virshes in their own processes.
    """

    def listen(self, daemon: LibvirtDaemon, openTimeout: float = 10) -> int:
        """
        Start a gateway.

        @return: its port.
        """
        endpoint = UNIXClientEndpoint(reactor, daemon.socketPath)
        gateway = Gateway(endpoint, "socket", KeepAlive(0.25, 2), reactor)
        gateway.limits = Limits(openTimeout=openTimeout)
        factory = KeepAliveServerFactory(Mandatory(KeepAlive(0.25, 2)), gateway, clock=reactor)
        port = reactor.listenTCP(0, cast(ServerFactory, factory), interface="127.0.0.1")
        self.addCleanup(factory.drain)
        self.addCleanup(factory.abort)
        self.addCleanup(maybeDeferred, port.stopListening)
        return cast(IPv4Address, port.getHost()).port

    async def test_hangsInOpen(self) -> None:
        """
        When libvirtd hangs at open, virsh gets an error after C{openTimeout} seconds.  The next
        virsh can open as soon as libvirtd continues.
        """
        daemon = await LibvirtDaemon.start(self)
        uri = f"test+tcp://127.0.0.1:{self.listen(daemon, 0.7)}/default"
        daemon.freeze()
        result = await runVirsh(self, "-c", uri, "hostname", timeout=3)
        self.assertEqual(result.exitCode, 1)
        self.assertIn(
            "libvirtd behind this gateway (socket) did not open within 0.7 s", result.errors
        )
        daemon.thaw()
        result = await runVirsh(self, "-c", uri, "hostname")
        self.assertEqual((result.exitCode, result.errors), (0, ""))

    def left(self) -> list[object]:
        """
        @return: the live objects that represent connections.
        """
        gc.collect()
        kinds = (KeepAliveServerProtocol, KeepAliveClientProtocol, Relay)
        return [each for each in gc.get_objects() if isinstance(each, kinds)]

    async def waitLeft(self, number: int) -> None:
        """
        Wait until there are C{number} objects for connections.  A closed connection stays for a
        moment, see L{kaproto.rpc.closing.Closing.disconnect}.
        """
        await waitUntil(
            lambda: len(self.left()) == number,
            lambda: f"{number} objects instead of {self.left()}",
            2,
        )

    async def test_nothingLeft(self) -> None:
        """
        No object is left of clients that disconnect, hang, or lose a libvirtd that hangs or dies.
        """
        daemon = await LibvirtDaemon.start(self)
        port = self.listen(daemon)
        before = len(self.left())
        groups = [await self.clients(port, 10) for _group in range(3)]
        self.assertEqual(len(self.left()) - before, 3 * 30)
        for client in groups[0]:
            client.transport.abortConnection()
        for client in groups[1]:
            client.answering = False
        await together(*(client.waitLost(3) for client in groups[0] + groups[1]))
        await self.waitLeft(before + 30)
        daemon.freeze()
        await together(*(client.waitLost(3) for client in groups[2]))
        daemon.thaw()
        clients = await self.clients(port, 10)
        await daemon.kill()
        await together(*(client.waitLost(3) for client in clients))
        await self.waitLeft(before)
