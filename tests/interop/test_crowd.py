"""
Tests for an honest client among many that connect without opening.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterable

from tests.interop.secure import SecureDaemon, SecureServer, SecureTestCase
from tests.interop.support import pause, waitUntil

HELLO_SIZE = 65536


class CrowdTests(SecureTestCase):
    """
    Tests for kaserver with many clients that do not open.
    """

    alone = True
    timeout = 120

    async def crowd(self, port: int, count: int, hello: bytes = b"") -> list[socket.socket]:
        """
        Connect C{count} times, and let the reactor read the server's log meanwhile.

        @param hello: what each connection sends.
        """
        sockets = []
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", port), timeout=60)
            self.addCleanup(one.close)
            if hello:
                one.sendall(hello)
            sockets.append(one)
            if len(sockets) % 20 == 0:
                await pause(0)
        return sockets

    def clientHello(self) -> bytes:
        """
        @return: the first message of a TLS handshake.
        """
        outgoing = ssl.MemoryBIO()
        context = ssl.create_default_context()
        half = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with self.assertRaises(ssl.SSLWantReadError):
            half.do_handshake()
        return outgoing.read()

    async def quickly(self, uri: str, seconds: float = 2.0) -> None:
        """
        Check that virsh connects within C{seconds}.  It has three tries, since other tests may have
        the processor during one; a server that accepts no clients fails them all.
        """
        taken = []
        for _ in range(3):
            begun = time.monotonic()
            await self.letIn(uri)
            taken.append(time.monotonic() - begun)
            if taken[-1] < seconds:
                return
        self.fail(f"virsh took {taken} seconds, each more than {seconds}")

    def left(self, sockets: Iterable[socket.socket]) -> int:
        """
        @return: how many connections the server has not closed.
        """
        count = 0
        for one in sockets:
            one.setblocking(False)
            try:
                while one.recv(HELLO_SIZE):
                    pass
            except BlockingIOError:
                count += 1
            except ConnectionResetError:
                pass
        return count

    async def test_idle(self) -> None:
        """
        With 20 silent anonymous clients, as many as are allowed, libvirtd would accept no other
        client.  Here the oldest is disconnected, and virsh connects.
        """
        server = await SecureServer.start(self, self.listener(), "--max-anonymous-clients=20")
        crowd = await self.crowd(int(server.ports[0]), 20)
        await self.quickly(server.tls(self.alice))
        self.assertEqual(self.left(crowd), 19)
        self.assertIn("too many clients: the oldest unopened connection was closed", server.log)

    async def test_two(self) -> None:
        """
        With two silent anonymous clients, as many as are allowed, virsh connects too.
        """
        server = await SecureServer.start(self, self.listener(), "--max-anonymous-clients=2")
        await self.crowd(int(server.ports[0]), 2)
        await self.quickly(server.tls(self.alice))

    async def test_full(self) -> None:
        """
        With C{--max-clients} connected, the oldest that has not opened is disconnected.
        """
        server = await SecureServer.start(
            self, "--listen=tcp:0:interface=127.0.0.1", "--max-clients=20"
        )
        port = int(server.ports[0])
        crowd = await self.crowd(port, 20)
        await self.quickly(f"test+tcp://127.0.0.1:{port}/default")
        self.assertEqual(self.left(crowd), 19)

    async def test_handshakes(self) -> None:
        """
        5,000 handshakes that stop after their first message do not keep a client out.
        """
        server = await SecureServer.start(self, self.listener())
        crowd = await self.crowd(int(server.ports[0]), 5000, self.clientHello())
        await self.quickly(server.tls(self.alice))
        self.assertLessEqual(self.left(crowd), 1024)

    async def test_late(self) -> None:
        """
        Clients that do not complete the handshake in time are disconnected.
        """
        server = await SecureServer.start(self, self.listener(), "--handshake-timeout=0.5")
        crowd = await self.crowd(int(server.ports[0]), 20)
        await waitUntil(lambda: self.left(crowd) == 0, "the end of all connections")
        self.assertIn("it did not complete the TLS handshake within 0.5 s", server.log)


class DeafTests(SecureTestCase):
    """
    libvirtd's behavior, for comparison.
    """

    alone = True

    tools = ("virsh", "libvirtd", "python3-libvirt")

    async def test_deaf(self) -> None:
        """
        libvirtd accepts no other client while C{max_anonymous_clients} anonymous clients are
        connected.
        """
        daemon = await SecureDaemon.start(self, settings="max_anonymous_clients = 2\n")
        uri = f"test+unix:///default?socket={daemon.socketPath}{self.authFile()}"
        await self.letIn(uri)
        crowd = []
        for _ in range(2):
            one = socket.socket(socket.AF_UNIX)
            self.addCleanup(one.close)
            one.connect(daemon.socketPath)
            crowd.append(one)
        virsh = self.startHostname(uri)
        with self.assertRaises(AssertionError):
            await virsh.finish(1)
        for one in crowd:
            one.close()
        result = await virsh.finish(5)
        self.assertEqual(result.output.strip(), os.uname().nodename)
