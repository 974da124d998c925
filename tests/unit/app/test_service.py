"""
Tests for L{kaproto.app.service}.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import weakref
from collections.abc import Sequence
from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from zope.interface import implementer

from kaproto.app import service as serviceModule
from kaproto.app.collector import THRESHOLDS
from kaproto.app.options import Options
from kaproto.app.service import CannotListen, KaServer, makeService
from kaproto.backends.gateway import Gateway
from kaproto.keepalive.clock import monotonicClock
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from tests.support import OPEN, ClockTestCase, Cycle, Probe, Wire

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 16509)


@implementer(IListeningPort)
class FakePort:
    """
    A port that remembers whether it listens.

    @ivar listening: whether it does.
    @ivar stopped: what its C{stopListening} gives.
    """

    def __init__(self, address: IAddress) -> None:
        self.listening = True
        self.stopped: Deferred[None] | None = None
        self._address = address

    def startListening(self) -> None:
        """
        It does so from the beginning.
        """

    def stopListening(self) -> Deferred[None] | None:
        """
        Listen no more.
        """
        self.listening = False
        return self.stopped

    def getHost(self) -> IAddress:
        """
        @return: where it listens.
        """
        return self._address


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """
    An endpoint that listens at once or fails at once.

    @ivar factories: what it listens for.
    """

    def __init__(self, address: IAddress = LOOPBACK, error: Exception | None = None) -> None:
        self.port = FakePort(address)
        self.factories: list[IProtocolFactory] = []
        self._error = error

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        See L{IStreamServerEndpoint.listen}.
        """
        self.factories.append(protocolFactory)
        if self._error is not None:
            return fail(self._error)
        return succeed(IListeningPort(self.port))


class ServiceTestCase(ClockTestCase):
    """
    A test of the service, in which no process is changed.

    @ivar limits: what the limit of open files was set to.
    @ivar bounded: what was made to serve a few at a time.
    """

    def setUp(self) -> None:
        """
        Keep the service off the process.
        """
        super().setUp()
        self.clock: MemoryReactorClock = MemoryReactorClock()
        self.limits: list[tuple[int, tuple[int, int]]] = []
        self.patch(resource, "getrlimit", lambda _which: (1024, 4096))
        self.patch(resource, "setrlimit", lambda *what: self.limits.append(what))
        self.bounded: list[object] = []
        self.patch(serviceModule, "limitEventsPerTurn", self.bounded.append)
        self.probe = Probe()
        self.serverFactory = KeepAliveServerFactory(programs=[self.probe], clock=self.clock)

    def make(
        self,
        endpoints: Sequence[FakeEndpoint] = (),
        *,
        insecure: bool = False,
        grace: float = 5,
        alone: bool = False,
    ) -> KaServer:
        """
        Make a service.
        """
        return KaServer(
            self.serverFactory,
            [(f"fake:{number}", each) for number, each in enumerate(endpoints)],
            "mode 2",
            grace,
            insecure=insecure,
            reactor=cast(IReactorTime, self.clock),
            alone=alone,
        )

    def start(self, endpoints: Sequence[FakeEndpoint] = (), *, grace: float = 5) -> KaServer:
        """
        Make a service and start it, as C{twistd} does.
        """
        service = self.make(endpoints, grace=grace)
        service.privilegedStartService()
        service.startService()
        return service

    def connectOpen(self) -> Wire[KeepAliveServerProtocol]:
        """
        Have a client connect and open.
        """
        wire = self.accept(self.serverFactory)
        wire.ask(OPEN)
        return wire


class StartTests(ServiceTestCase):
    """
    The server listens.
    """

    def test_listens(self) -> None:
        """
        All endpoints serve the one factory, and for each one line is logged.
        """
        endpoints = [FakeEndpoint(), FakeEndpoint(IPv6Address("TCP", "::1", 16509))]
        service = self.start(endpoints)
        self.assertTrue(service.running)
        self.assertEqual(
            [each.factories for each in endpoints], [[self.serverFactory], [self.serverFactory]]
        )
        self.assertEqual(service.ports, [each.port for each in endpoints])
        self.assertEqual(
            self.logged(),
            [
                "listening on tcp 127.0.0.1:16509 (mode 2)",
                "listening on tcp [::1]:16509 (mode 2)",
            ],
        )

    def test_unix(self) -> None:
        """
        A UNIX socket is named by its path, anything else as it names itself.
        """

        @implementer(IAddress)
        class Pigeon:
            def __str__(self) -> str:
                return "pigeon 7"

        self.start(
            [
                FakeEndpoint(UNIXAddress(b"/x/y")),
                FakeEndpoint(UNIXAddress("/x/z")),
                FakeEndpoint(IAddress(Pigeon())),
            ]
        )
        self.assertEqual(
            self.logged(),
            [
                "listening on unix /x/y (mode 2)",
                "listening on unix /x/z (mode 2)",
                "listening on pigeon 7 (mode 2)",
            ],
        )

    def test_process(self) -> None:
        """
        The reactor serves a few events at a time, and the limit of open files is raised to the
        highest allowed.
        """
        self.make().privilegedStartService()
        self.assertEqual(self.bounded, [self.clock])
        self.assertEqual(self.limits, [(resource.RLIMIT_NOFILE, (4096, 4096))])

    def test_collector(self) -> None:
        """
        Python's garbage collector is set for the server, if the process does nothing else, and
        only while it runs.
        """
        before = gc.get_threshold()
        self.start()
        self.assertEqual(gc.get_threshold(), before)
        service = self.make(alone=True)
        service.startService()
        self.addCleanup(gc.unfreeze)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)
        aged = Cycle()
        gc.collect()
        reference = weakref.ref(aged)
        del aged
        wire = self.connectOpen()
        self.clock.advance(60)
        self.assertIsNotNone(reference())
        wire.lose()
        self.clock.advance(60)
        self.assertIsNone(reference())
        self.successResultOf(service.stopService())
        self.assertEqual(gc.get_threshold(), before)

    def test_busy(self) -> None:
        """
        When an endpoint is in use the process ends with a message that says which and why, and
        what to do.
        """
        problem = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        busy = FakeEndpoint(error=CannotListenError("127.0.0.1", 16509, problem))
        service = self.make([FakeEndpoint(), busy])
        ended = self.assertRaises(CannotListen, service.privilegedStartService)
        self.assertIsInstance(ended, SystemExit)
        self.assertEqual(
            ended.code,
            "kaserver: --listen=fake:1: Address already in use; choose another port or path, or "
            "stop what is listening there",
        )

    def test_firstProblem(self) -> None:
        """
        When several cannot listen, the first is told of.
        """
        service = self.make([FakeEndpoint(error=OSError(each)) for each in ("first", "second")])
        ended = self.assertRaises(CannotListen, service.privilegedStartService)
        self.assertEqual(ended.code, "kaserver: --listen=fake:0: first")

    def test_later(self) -> None:
        """
        An endpoint that takes its time and then cannot listen stops the server, which would
        otherwise run and not be there.
        """
        stopped: list[None] = []
        self.patch(self.clock, "stop", lambda: stopped.append(None))
        listening: Deferred[IListeningPort] = Deferred()
        endpoint = FakeEndpoint()
        self.patch(endpoint, "listen", lambda _factory: listening)
        self.start([endpoint])
        self.assertEqual(stopped, [])
        listening.errback(OSError("no more"))
        self.assertEqual(stopped, [None])
        self.assertEqual(self.logged(), ["kaserver: --listen=fake:0: no more"])


class ExposedTests(ServiceTestCase):
    """
    Plain TCP without authentication is for this machine only.
    """

    def test_refused(self) -> None:
        """
        An address that others can reach is refused, with what to do about it.
        """
        for address, shown in (
            (IPv4Address("TCP", "0.0.0.0", 16509), "tcp 0.0.0.0:16509"),
            (IPv4Address("TCP", "192.0.2.7", 1), "tcp 192.0.2.7:1"),
            (IPv6Address("TCP", "::", 16509), "tcp [::]:16509"),
            (IPv6Address("TCP", "fe80::1%eth0", 2), "tcp [fe80::1%eth0]:2"),
        ):
            service = self.make([FakeEndpoint(address)])
            ended = self.assertRaises(CannotListen, service.privilegedStartService)
            self.assertEqual(
                ended.code,
                "kaserver: --listen=fake:0: plain TCP without authentication lets in whoever can "
                f"reach {shown}; add :interface=127.0.0.1 to serve this machine only, or pass "
                "--insecure",
            )
        self.assertEqual(self.logged(), [])

    def test_insecure(self) -> None:
        """
        Who wants to be insecure can.
        """
        service = self.make([FakeEndpoint(IPv4Address("TCP", "0.0.0.0", 16509))], insecure=True)
        service.privilegedStartService()
        self.assertEqual(self.logged(), ["listening on tcp 0.0.0.0:16509 (mode 2)"])

    def test_loopback(self) -> None:
        """
        All of the loopback network is this machine.
        """
        self.make([FakeEndpoint(IPv4Address("TCP", "127.1.2.3", 1))]).privilegedStartService()
        self.assertEqual(len(self.logged()), 1)


class StopTests(ServiceTestCase):
    """
    The server stops in order, and in bounded time.
    """

    def test_idle(self) -> None:
        """
        Without connections it stops at once, without a word, and leaves no timer.
        """
        endpoints = [FakeEndpoint(), FakeEndpoint()]
        service = self.start(endpoints)
        logged = len(self.logged())
        self.successResultOf(service.stopService())
        self.assertFalse(service.running)
        self.assertEqual([each.port.listening for each in endpoints], [False, False])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.logged()), logged)

    def test_order(self) -> None:
        """
        It has stopped listening before it turns to the connections.
        """
        endpoint = FakeEndpoint()
        endpoint.port.stopped = Deferred()
        service = self.start([endpoint])
        wire = self.connectOpen()
        stopped = service.stopService()
        self.assertFalse(wire.closing)
        endpoint.port.stopped.callback(None)
        self.assertTrue(wire.closing)
        self.assertNoResult(stopped)
        wire.lose()
        self.successResultOf(stopped)

    def test_drain(self) -> None:
        """
        Calls that are being answered have the grace to finish, which is logged once.
        """
        service = self.start(grace=2.5)
        wires = [self.connectOpen(), self.connectOpen()]
        wires[0].feed(Probe.message(Probe.LATER))
        stopped = service.stopService()
        wires[1].lose()
        self.clock.advance(2.4)
        self.assertFalse(wires[0].closing)
        self.probe.waiting[0].callback(b"")
        self.assertTrue(wires[0].closing)
        self.assertFalse(wires[0].aborted)
        self.assertNoResult(stopped)
        wires[0].lose()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(
            self.logged(LogLevel.info), ["stopping: 2 connections have up to 2.5 s to finish"]
        )

    def test_grace(self) -> None:
        """
        Connections that have not finished when the grace is over are aborted.
        """
        service = self.start(grace=2.5)
        wire = self.connectOpen()
        wire.feed(Probe.message(Probe.LATER))
        stopped = service.stopService()
        self.clock.advance(2.6)
        self.assertTrue(wire.aborted)
        self.assertNoResult(stopped)
        wire.lose()
        self.successResultOf(stopped)

    def test_noGrace(self) -> None:
        """
        There may be no grace at all.
        """
        service = self.start(grace=0)
        wire = self.connectOpen()
        wire.feed(Probe.message(Probe.LATER))
        service.stopService()
        self.clock.advance(0)
        self.assertTrue(wire.aborted)

    def test_secondSignal(self) -> None:
        """
        When the process begins to shut down, and not before, the next signal ends it at once.
        """
        handlers: list[tuple[int, object]] = []
        self.patch(signal, "signal", lambda *what: handlers.append(what))
        self.start()
        self.assertEqual(handlers, [])
        for trigger, arguments, keywords in self.clock.triggers["before"]["shutdown"]:
            trigger(*arguments, **keywords)
        self.assertEqual(
            handlers, [(signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.SIG_DFL)]
        )


class MakeServiceTests(ServiceTestCase):
    """
    From the command line to the service.
    """

    def makeFrom(self, *arguments: str) -> KaServer:
        """
        Make a service from a command line.
        """
        options = Options(self.clock)
        options.parseOptions(list(arguments))  # type: ignore[no-untyped-call]
        return makeService(options, cast(IReactorTime, self.clock))

    def test_embeddedHost(self) -> None:
        """
        By default the service has an embedded host, and its log line says everything.
        """
        service = self.makeFrom(
            "--mode=2", "--interval=1.5", "--count=2", "--open-timeout=3", "--insecure"
        )
        self.assertEqual(service.factory.policy, Mandatory(KeepAlive(1.5, 2)))
        self.assertEqual(service.factory.limits.openTimeout, 3)
        self.assertIs(service.factory.clock, self.clock)
        service.privilegedStartService()
        (line,) = self.logged()
        self.assertIn("(mode mandatory, interval 1.5 s, count 2, backend embedded host)", line)
        self.assertEqual(self.clock.tcpServers[0][0], 16509)
        self.assertIs(self.clock.tcpServers[0][1], service.factory)

    def test_exposed(self) -> None:
        """
        Without C{--insecure} others are kept out.
        """
        self.assertRaises(CannotListen, self.makeFrom("--listen=tcp:0").privilegedStartService)

    def test_gateway(self) -> None:
        """
        With an upstream the service is a gateway, and says to what.
        """
        made: list[tuple[object, ...]] = []

        class Remembered(Gateway):
            def __init__(self, *arguments: object, **keywords: object) -> None:
                made.append(arguments)
                super().__init__(*arguments, **keywords)  # type: ignore[arg-type]

        self.patch(serviceModule, "Gateway", Remembered)
        service = self.makeFrom(
            "--upstream=unix:/x/y",
            "--upstream-interval=7",
            "--upstream-count=8",
            "--insecure",
        )
        service.privilegedStartService()
        self.assertIn("backend gateway to unix:/x/y)", self.logged()[0])
        (arguments,) = made
        self.assertIn(KeepAlive(7, 8), arguments)

    def test_grace(self) -> None:
        """
        The grace is the command line's.
        """
        service = self.makeFrom("--grace=0.5")
        wire = self.accept(service.factory)
        wire.feed(OPEN)
        service.stopService()
        self.clock.advance(0.6)
        self.assertTrue(wire.aborted)

    def test_reactor(self) -> None:
        """
        By default it runs on the reactor.
        """
        from twisted.internet import reactor

        options = Options(self.clock)
        options.parseOptions([])  # type: ignore[no-untyped-call]
        service = makeService(options)
        self.assertIs(service.factory.clock, monotonicClock(IReactorTime(reactor)))
        self.assertTrue(service._alone)
        self.successResultOf(service.stopService())
