"""
Tests for L{kaproto.keepalive.tcpkeepalive} and its Twisted plugin.
"""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto.keepalive.tcpkeepalive import NotTCP


def options(handle: socket.socket) -> tuple[int, ...]:
    """
    @return: the socket's keepalive, idle, interval, count and user timeout.
    """
    return (
        handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    )


class Fixed:
    """
    An endpoint with a given result.
    """

    def __init__(self, result: object) -> None:
        self.result = result

    def listen(self, factory: object) -> Deferred[object]:
        """
        Return the result.
        """
        return succeed(self.result)

    connect = listen


class TCPKeepAliveTests(SynchronousTestCase):
    """
    Tests for the C{tcpkeepalive:} endpoint string.
    """

    def listener(self) -> socket.socket:
        """
        @return: a listening socket.
        """
        handle = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(handle.close)
        return handle

    def test_server(self) -> None:
        """
        Accepted connections have the options.
        """
        listener = self.listener()
        endpoint: Any = serverFromString(
            MemoryReactorClock(), "tcpkeepalive:tcp:0:interval=7:count=3:user-timeout=9"
        )
        verifyObject(IStreamServerEndpoint, endpoint)
        endpoint._wrapped = Fixed(SimpleNamespace(socket=listener))
        self.successResultOf(endpoint.listen(Factory()))
        client = socket.create_connection(listener.getsockname())
        self.addCleanup(client.close)
        accepted, _ = listener.accept()
        self.addCleanup(accepted.close)
        self.assertEqual(options(accepted), (1, 7, 7, 3, 9000))

    def test_client(self) -> None:
        """
        A client's connection has the options: by default 5 s, 5 probes and no user timeout.
        """
        client = socket.create_connection(self.listener().getsockname())
        self.addCleanup(client.close)
        transport = tcp.Connection(client, Protocol(), MemoryReactorClock())
        transport.connected = True
        protocol = SimpleNamespace(transport=transport)
        endpoint: Any = clientFromString(
            MemoryReactorClock(), "tcpkeepalive:tcp:host=127.0.0.1:port=1"
        )
        verifyObject(IStreamClientEndpoint, endpoint)
        endpoint._wrapped = Fixed(protocol)
        self.assertIs(self.successResultOf(endpoint.connect(Factory())), protocol)
        self.assertEqual(options(client), (1, 5, 5, 5, 0))

    def test_notTCP(self) -> None:
        """
        If the options cannot be set, the port or connection is closed, and the error says where.
        """
        stopped: list[bool] = []
        for handle in (None, socket.socket(socket.AF_UNIX)):
            if handle is not None:
                self.addCleanup(handle.close)
            port = SimpleNamespace(
                socket=handle, stopListening=lambda: stopped.append(True), getHost=lambda: "here"
            )
            server: Any = serverFromString(MemoryReactorClock(), "tcpkeepalive:unix:x")
            server._wrapped = Fixed(port)
            error = self.failureResultOf(server.listen(Factory()), NotTCP)
            self.assertIn("cannot set the kernel's keepalive on here", str(error.value))
        self.assertEqual(stopped, [True, True])
        transport = StringTransport()
        client: Any = clientFromString(MemoryReactorClock(), "tcpkeepalive:unix:x")
        client._wrapped = Fixed(SimpleNamespace(transport=transport))
        self.failureResultOf(client.connect(Factory()), NotTCP)
        self.assertTrue(transport.disconnecting)

    def test_inner(self) -> None:
        """
        The inner endpoint gets its own arguments, with their quoting.
        """
        server: Any = serverFromString(
            MemoryReactorClock(), "tcpkeepalive:tcp:40:count=2:interface=\\:\\:1"
        )
        self.assertIsInstance(server._wrapped, TCP4ServerEndpoint)
        self.assertEqual((server._wrapped._port, server._wrapped._interface), (40, "::1"))
        client: Any = clientFromString(MemoryReactorClock(), "tcpkeepalive:tcp:192.0.2.1:40")
        self.assertIsInstance(client._wrapped, TCP4ClientEndpoint)

    def test_mistakes(self) -> None:
        """
        Errors name the argument that is wrong and what is allowed.
        """
        for rest, reason in {
            "": "not before ''",
            ":tcpkeepalive:tcp:1": "not before 'tcpkeepalive'",
            ":keepalive:tcp:1": "not before 'keepalive'",
            ":tcp:1:interval=0": "interval= is a whole number from 1 to 32767, not '0'",
            ":tcp:1:interval=1.5": "not '1.5'",
            ":tcp:1:interval=32768": "not '32768'",
            ":tcp:1:count=128": "count= is a whole number from 1 to 127",
            ":tcp:1:user-timeout=-1": "user-timeout= is a whole number",
        }.items():
            for parse in (serverFromString, clientFromString):
                error = self.assertRaises(
                    ValueError, parse, MemoryReactorClock(), f"tcpkeepalive{rest}"
                )
                self.assertIn(reason, str(error))

    def test_plugin(self) -> None:
        """
        Twisted finds the plugin for servers and clients.
        """
        for interface in (
            IStreamServerEndpointStringParser,
            IStreamClientEndpointStringParserWithReactor,
        ):
            plugins: Any = getPlugins(interface)
            found = [each for each in plugins if each.prefix == "tcpkeepalive"]
            self.assertEqual(len(found), 1)
            verifyObject(interface, found[0])
