"""
Tests for L{kaproto.app.ports}.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import LogLevel
from zope.interface import implementer

from kaproto.app.ports import CannotListen, Place, Ports
from tests.support import ClockTestCase

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 16509)


@implementer(IListeningPort)
class FakePort:
    """
    A port that does not listen, but records whether it should.

    @ivar listening: whether it was not stopped.
    @ivar stopped: the result of C{stopListening}.
    """

    def __init__(self, address: IAddress) -> None:
        self.listening = True
        self.stopped: Deferred[None] | None = None
        self._address = address

    def startListening(self) -> None:
        """
        Do nothing: the port listens from the beginning.
        """

    def stopListening(self) -> Deferred[None] | None:
        """
        Stop listening.
        """
        self.listening = False
        return self.stopped

    def getHost(self) -> IAddress:
        """
        @return: the address that the port was made with.
        """
        return self._address


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """
    An endpoint that listens or fails at once.

    @ivar factories: the factories it was given.
    """

    def __init__(self, address: IAddress = LOOPBACK, error: Exception | None = None) -> None:
        self.port = FakePort(address)
        self.factories: list[IProtocolFactory] = []
        self._error = error

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Record the factory.
        """
        self.factories.append(protocolFactory)
        if self._error is not None:
            return fail(self._error)
        return succeed(IListeningPort(self.port))


def place(endpoint: FakeEndpoint, number: int = 0, **more: Any) -> Place:
    """
    @return: a place whose flag has C{number}.
    """
    return Place(f"--listen=fake:{number}", endpoint, Factory(), "mode 2", **more)


class PortsTestCase(ClockTestCase):
    """
    A test case for L{Ports}.

    @ivar failures: how many endpoints failed after the start.
    """

    failures = 0

    def fail1(self) -> None:
        """
        Count a failure.
        """
        self.failures += 1

    def ports(self, places: Sequence[Place]) -> Ports:
        """
        Create the ports.
        """
        return Ports(places, self.fail1)

    def start(self, *endpoints: FakeEndpoint, **more: Any) -> Ports:
        """
        Create ports for the endpoints, and start them.
        """
        ports = self.ports([place(each, number, **more) for number, each in enumerate(endpoints)])
        self.successResultOf(ports.start())
        return ports

    def refused(self, *endpoints: FakeEndpoint, **more: Any) -> str:
        """
        @return: the message that the process ends with.
        """
        ended = self.assertRaises(CannotListen, self.start, *endpoints, **more)
        self.assertIsInstance(ended, SystemExit)
        return str(ended.code)


class StartTests(PortsTestCase):
    """
    Tests for starting to listen.
    """

    def test_listens(self) -> None:
        """
        Each place listens with its own factory, and one line is logged for it.
        """
        endpoints = [FakeEndpoint(), FakeEndpoint(IPv6Address("TCP", "::1", 16509))]
        places = [place(each) for each in endpoints]
        ports = self.ports(places)
        self.successResultOf(ports.start())
        self.assertEqual(
            [each.factories for each in endpoints], [[each.factory] for each in places]
        )
        self.assertEqual(ports.listening, [each.port for each in endpoints])
        self.assertEqual(
            self.logged(),
            [
                "listening on tcp 127.0.0.1:16509 (mode 2)",
                "listening on tcp [::1]:16509 (mode 2)",
            ],
        )

    def test_silent(self) -> None:
        """
        Ports with C{announces} unset, as a worker's are, log nothing.
        """
        ports = self.ports([place(FakeEndpoint())])
        ports.announces = False
        self.successResultOf(ports.start())
        self.assertEqual((len(ports.listening), self.logged()), (1, []))

    def test_names(self) -> None:
        """
        In the log a UNIX socket is named by its path, and an unknown address by its own text.
        """

        @implementer(IAddress)
        class Pigeon:
            def __str__(self) -> str:
                return "pigeon 7"

        self.start(FakeEndpoint(UNIXAddress(b"/x/y")), FakeEndpoint(IAddress(Pigeon())))
        self.assertEqual(
            self.logged(),
            [
                "listening on unix /x/y (mode 2)",
                "listening on pigeon 7 (mode 2)",
            ],
        )

    def test_busy(self) -> None:
        """
        When an address is in use, the process ends with a message that names the flag, gives the
        reason, and says what to do.
        """
        problem = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        busy = FakeEndpoint(error=CannotListenError("127.0.0.1", 16509, problem))
        self.assertEqual(
            self.refused(FakeEndpoint(), busy),
            "kaserver: --listen=fake:1: Address already in use; choose another port or path, or "
            "stop what is listening there",
        )

    def test_firstProblem(self) -> None:
        """
        When several endpoints fail, the first failure is reported.
        """
        bad = [FakeEndpoint(error=OSError(each)) for each in ("first", "second")]
        self.assertEqual(self.refused(*bad), "kaserver: --listen=fake:0: first")

    def test_later(self) -> None:
        """
        The ports are ready when the slowest endpoint listens; if it fails later, that is logged and
        counted.
        """
        for listening in (Deferred[IListeningPort](), Deferred[IListeningPort]()):
            endpoint = FakeEndpoint()
            self.patch(endpoint, "listen", lambda _factory, listening=listening: listening)
            ports = self.ports([place(endpoint), place(FakeEndpoint())])
            started = ports.start()
            self.assertNoResult(started)
            if not self.failures:
                listening.errback(OSError("no more"))
                self.assertNoResult(started)
            else:
                listening.callback(IListeningPort(FakePort(LOOPBACK)))
                self.successResultOf(started)
            self.assertEqual(self.failures, 1)
        self.assertEqual(self.logged(LogLevel.critical), ["kaserver: --listen=fake:0: no more"])

    def test_folder(self) -> None:
        """
        A missing folder is created, but not its parents.
        """
        folder = Path(self.mktemp())
        for _ in range(2):
            self.start(FakeEndpoint(), folder=folder)
        self.assertTrue(folder.is_dir())
        self.assertIn(
            "a socket needs a folder that exists",
            self.refused(FakeEndpoint(), folder=folder / "no" / "such"),
        )

    def test_stop(self) -> None:
        """
        Ports stop listening one after the other, and only once.
        """
        endpoints = [FakeEndpoint(), FakeEndpoint()]
        endpoints[0].port.stopped = waiting = Deferred[None]()
        ports = self.start(*endpoints)
        stopped = Deferred.fromCoroutine(ports.stop())
        self.assertEqual([each.port.listening for each in endpoints], [False, True])
        self.successResultOf(Deferred.fromCoroutine(ports.stop()))
        waiting.callback(None)
        self.successResultOf(stopped)
        self.assertEqual([each.port.listening for each in endpoints], [False, False])


class ExposedTests(PortsTestCase):
    """
    Tests for addresses that other machines can reach.
    """

    def test_refused(self) -> None:
        """
        An address that other machines can reach is refused, and the message suggests what to do.
        """
        for address, shown in (
            (IPv4Address("TCP", "0.0.0.0", 16509), "tcp 0.0.0.0:16509"),
            (IPv4Address("TCP", "192.0.2.7", 1), "tcp 192.0.2.7:1"),
            (IPv6Address("TCP", "::", 16509), "tcp [::]:16509"),
            (IPv6Address("TCP", "fe80::1%eth0", 2), "tcp [fe80::1%eth0]:2"),
        ):
            message = self.refused(FakeEndpoint(address))
            self.assertIn(f"{shown} would accept clients from other machines", message)
            self.assertIn(":interface=127.0.0.1", message)
            self.assertIn("--insecure", message)
        self.assertEqual(self.logged(), [])

    def test_exposable(self) -> None:
        """
        A place that may be exposed, since it authenticates clients or the administrator allows it,
        is accepted.
        """
        self.start(FakeEndpoint(IPv4Address("TCP", "0.0.0.0", 16509)), exposable=True)
        self.assertEqual(self.logged(), ["listening on tcp 0.0.0.0:16509 (mode 2)"])

    def test_loopback(self) -> None:
        """
        The whole loopback network counts as this machine.
        """
        self.start(FakeEndpoint(IPv4Address("TCP", "127.1.2.3", 1)))
        self.assertEqual(len(self.logged()), 1)

    def test_unix(self) -> None:
        """
        The command to connect to a UNIX socket is logged, with a warning if every user may connect.
        """
        path = Path(self.mktemp())
        path.touch()
        for mode, warnings in ((0o660, 0), (0o666, 1)):
            path.chmod(mode)
            self.start(FakeEndpoint(UNIXAddress(str(path))), connect=lambda path: f"virsh {path}")
            self.assertIn(f"connect with: virsh {path}", self.logged())
            self.assertEqual(len(self.logged(LogLevel.warn)), warnings)
        self.start(FakeEndpoint(UNIXAddress(b"\0abstract")), connect=str)
        self.assertEqual(len(self.logged(LogLevel.warn)), 2)
        self.start(FakeEndpoint(), connect=str)
        self.assertEqual(len(self.logged(LogLevel.warn)), 2)
