"""
Tests for L{kaproto.workers.sockets}.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto.app.listeners import serverEndpoint
from kaproto.workers.sockets import BindingReactor, BoundPort, HandedReactor


class SocketsTestCase(SynchronousTestCase):
    """
    A test case with a parent of two workers.
    """

    def setUp(self) -> None:
        """
        Create a reactor that binds sockets for workers.
        """
        self.reactor: Any = MemoryReactorClock()
        self.binding = BindingReactor(self.reactor, 2, {"LISTEN_FDNAMES": "a:b"})

    def bind(self, description: str) -> BoundPort:
        """
        Listen as the parent does.
        """
        port = self.successResultOf(serverEndpoint(self.binding, description).listen(Factory()))
        assert isinstance(port, BoundPort)
        self.addCleanup(port.stopListening)
        return port


class BindingTests(SocketsTestCase):
    """
    Tests for the parent's sockets.
    """

    def test_tcp(self) -> None:
        """
        With TCP each worker has its own socket at the same address, over IPv4 and IPv6, also below
        TLS, PROXY headers and keepalive tunnels.
        """
        for description, kind in (
            ("tcp:0:interface=127.0.0.1", IPv4Address),
            ("tcp:0:interface=\\:\\:1", IPv6Address),
            ("proxy:tcp:0:interface=127.0.0.1:from=192.0.2.0/24", IPv4Address),
            ("keepalive:tcp:0:interface=127.0.0.1:policy=2:interval=5:count=5", IPv4Address),
        ):
            port = self.bind(description)
            verifyObject(IListeningPort, port)
            port.startListening()
            self.assertEqual(len({each.getsockname() for each in port.sockets}), 1)
            self.assertEqual(len({each.fileno() for each in port.sockets}), 2)
            self.assertIsInstance(port.getHost(), kind)
            self.assertIsNot(port.socketFor(0), port.socketFor(1))
            for each in port.sockets:
                self.assertTrue(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        self.assertEqual(self.reactor.tcpServers, [])
        self.assertEqual(len(self.binding.ports), 4)

    def test_inUse(self) -> None:
        """
        A port that another server uses is refused, although C{SO_REUSEPORT} would allow it.
        """
        port = self.bind("tcp:0:interface=127.0.0.1").getHost().port  # type: ignore[attr-defined]
        endpoint = serverEndpoint(self.binding, f"tcp:{port}:interface=127.0.0.1")
        failure = self.failureResultOf(endpoint.listen(Factory()), CannotListenError)
        self.assertIn("in use", str(failure.value))

    def test_noSuchAddress(self) -> None:
        """
        A socket that cannot be bound is closed.
        """
        made: list[socket.socket] = []

        class Recorder(socket.socket):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                made.append(self)

        self.patch(socket, "socket", Recorder)
        endpoint = serverEndpoint(self.binding, "tcp:1:interface=192.0.2.1")
        self.failureResultOf(endpoint.listen(Factory()), CannotListenError)
        self.assertEqual([each.fileno() for each in made], [-1])

    def test_unix(self) -> None:
        """
        All workers share a UNIX socket.  It has the given mode, and is removed when the parent
        closes it.
        """
        path = Path(self.mktemp())
        port = self.bind(f"unix:{path}:mode=600")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(port.getHost(), UNIXAddress(str(path)))
        self.assertIs(port.socketFor(0), port.socketFor(1))
        failing = serverEndpoint(self.binding, f"unix:{path}").listen(Factory())
        self.failureResultOf(failing, CannotListenError)
        port.stopListening()
        self.assertFalse(path.exists())

    def test_passed(self) -> None:
        """
        A socket that systemd has passed is kept under its number.
        """
        passed = socket.socket(socket.AF_UNIX)
        self.addCleanup(passed.close)
        from kaproto.app.unixsockets import UNIXSocketReactor

        reactor = UNIXSocketReactor(self.binding)
        port = cast(BoundPort, reactor.adoptStreamPort(passed.fileno(), socket.AF_UNIX, Factory()))
        self.addCleanup(port.stopListening)
        self.assertEqual(self.binding.passed, {passed.fileno(): port})
        self.assertNotEqual(port.socketFor(1).fileno(), passed.fileno())
        self.assertEqual((self.binding.ports, self.binding.passedNames), ([], "a:b"))

    def test_otherwiseTheReactor(self) -> None:
        """
        Everything but listening is delegated to the reactor.
        """
        self.assertEqual(self.binding.seconds, self.reactor.seconds)
        self.assertEqual(HandedReactor(self.reactor, {}).seconds, self.reactor.seconds)


class HandedTests(SocketsTestCase):
    """
    Tests for the workers' sockets.
    """

    def handed(self, port: BoundPort) -> HandedReactor:
        """
        @return: the reactor of the second worker.
        """
        return HandedReactor(self.reactor, {port.name: [os.dup(port.socketFor(1).fileno())]})

    def test_tcp(self) -> None:
        """
        A worker accepts on its own TCP socket.
        """
        description = "tcp:0:interface=127.0.0.1"
        port = self.bind(description)
        self.patch(
            self.reactor, "adoptStreamPort", lambda fd, family, _: (os.fstat(fd).st_ino, family)
        )
        endpoint: IStreamServerEndpoint = serverEndpoint(self.handed(port), description)
        adopted = self.successResultOf(endpoint.listen(Factory()))
        self.assertEqual(adopted, (os.fstat(port.socketFor(1).fileno()).st_ino, socket.AF_INET))

    def test_unix(self) -> None:
        """
        A worker accepts on the shared UNIX socket, and does not remove it when it stops.
        """
        path = Path(self.mktemp())
        description = f"unix:{path}"
        handed = self.handed(self.bind(description))
        port = self.successResultOf(serverEndpoint(handed, description).listen(Factory()))
        self.assertEqual(port.getHost(), UNIXAddress(str(path)))
        self.assertIn(port, self.reactor.readers)
        port.connectionLost(None)  # type: ignore[attr-defined]
        self.assertTrue(path.exists())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    def test_passed(self) -> None:
        """
        A worker accepts on a socket that systemd has passed.
        """
        handed = HandedReactor(self.reactor, {})
        path = self.mktemp()
        with socket.socket(socket.AF_UNIX) as passed:
            passed.bind(path)
            passed.listen()
            port = handed.adoptStreamPort(passed.fileno(), socket.AF_UNIX, Factory())
        self.assertIn(port, self.reactor.readers)
        port.connectionLost(None)  # type: ignore[attr-defined]
        self.patch(self.reactor, "adoptStreamPort", lambda *arguments: arguments)
        factory = Factory()
        self.assertEqual(
            handed.adoptStreamPort(7, socket.AF_INET, factory), (7, socket.AF_INET, factory)
        )
