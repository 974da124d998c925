"""
Tests for L{kaproto.app.kaserver}.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel

from kaproto.app import process as processModule
from kaproto.app.ports import CannotListen, Ports
from kaproto.app.process import OwnProcess
from kaproto.app.reloading import Reloader
from kaproto.app.service import KaServer
from kaproto.app.tuning import GCTuning
from kaproto.registry.local import LocalRegistry
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from tests.support import OPEN, ClockTestCase, Probe, Wire, errorOf
from tests.unit.app.test_ports import FakeEndpoint, place
from tests.unit.app.test_process import RecordingNotifier


class ServiceTestCase(ClockTestCase):
    """
    A test case with a service that does not change the process.

    @ivar stopped: how often the reactor was stopped.
    """

    stopped = 0

    def setUp(self) -> None:
        """
        Create a server on a reactor in memory, and count how often it is stopped.
        """
        super().setUp()
        self.clock: MemoryReactorClock = MemoryReactorClock()
        self.patch(self.clock, "stop", self.stop)
        self.probe = Probe()
        self.serverFactory = KeepAliveServerFactory(programs=[self.probe], clock=self.clock)

    def stop(self) -> None:
        """
        Count the call.
        """
        self.stopped += 1

    def make(
        self,
        endpoints: Sequence[FakeEndpoint] = (),
        *,
        grace: float = 5,
        process: OwnProcess | None = None,
    ) -> KaServer:
        """
        Create a service that listens on fake endpoints.
        """
        return KaServer(
            self.serverFactory,
            Ports([place(each) for each in endpoints], self.stop),
            Reloader([]),
            cast(IReactorTime, self.clock),
            grace=grace,
            drainTimeout=300,
            process=process,
        )

    def start(self, endpoints: Sequence[FakeEndpoint] = (), *, grace: float = 5) -> KaServer:
        """
        Create a service and start it, as C{twistd} does.
        """
        service = self.make(endpoints, grace=grace)
        service.privilegedStartService()
        service.startService()
        return service

    def connectOpen(self) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client and open its connection.
        """
        wire = self.accept(self.serverFactory)
        wire.ask(OPEN)
        return wire


class StartTests(ServiceTestCase):
    """
    Tests for starting the service.
    """

    def test_twistd(self) -> None:
        """
        Under C{twistd} the service listens once, in C{privilegedStartService}, while it is still
        root.
        """
        endpoint = FakeEndpoint()
        service = self.make([endpoint])
        service.privilegedStartService()
        self.assertEqual(len(endpoint.factories), 1)
        service.startService()
        self.assertTrue(service.running)
        self.assertEqual(len(endpoint.factories), 1)

    def test_registry(self) -> None:
        """
        The service registers itself when it starts, and leaves the registry after its last client.
        """
        service, told = self.make([FakeEndpoint()]), []
        stopped = succeed("stop")
        registry = LocalRegistry("host1")
        self.patch(registry, "start", lambda node: told.append(node.numbers()))
        self.patch(registry, "stop", lambda: stopped.addCallback(told.append))
        service.registry = registry
        service.startService()
        self.assertEqual(told, [{}.keys()])
        wire = self.connectOpen()
        service.stopService()
        self.assertEqual(len(told), 1)
        wire.lose()
        self.assertEqual(told[1:], ["stop"])

    def test_twist(self) -> None:
        """
        Under C{twist}, which calls only C{startService}, the service listens too.
        """
        endpoint = FakeEndpoint()
        self.make([endpoint]).startService()
        self.assertEqual(len(endpoint.factories), 1)
        self.assertEqual(len(self.logged()), 1)

    def test_cannotListen(self) -> None:
        """
        If an endpoint cannot listen, C{privilegedStartService} and C{startService} end the process
        with a message.
        """
        for start in ("privilegedStartService", "startService"):
            service = self.make([FakeEndpoint(error=OSError("no"))])
            self.assertRaises(CannotListen, getattr(service, start))


class OwnProcessTests(ServiceTestCase):
    """
    Tests for a service with its own process.
    """

    def setUp(self) -> None:
        """
        Replace everything that would change the process.
        """
        super().setUp()
        self.handlers: dict[int, Any] = {}
        self.patch(signal, "signal", self.handlers.__setitem__)
        # The parent process may ignore some signals, as nohup does SIGHUP.
        self.patch(signal, "getsignal", lambda _number: signal.SIG_DFL)
        self.patch(processModule, "_raiseFileLimit", lambda: None)
        self.notifier = RecordingNotifier()
        self.patch(processModule, "takeEnvironment", lambda *_what: self.notifier)
        vars(self.clock)["callFromThread"] = lambda work: work()
        self.patch(GCTuning, "_sweep", lambda _tuning: None)
        self.process = OwnProcess(self.clock)

    def test_lifetime(self) -> None:
        """
        systemd is notified once all endpoints listen and the reactor runs, then of the number of
        clients, and when the service stops.
        """
        slow: Deferred[IListeningPort] = Deferred()
        endpoint = FakeEndpoint()
        self.patch(endpoint, "listen", lambda _factory: slow)
        service = self.make([endpoint, FakeEndpoint()], process=self.process)
        service.privilegedStartService()
        service.startService()
        self.assertEqual(self.notifier.sent, ["STATUS=0 clients"])
        slow.callback(IListeningPort(FakeEndpoint().port))
        self.assertEqual(self.notifier.sent, ["STATUS=0 clients"])
        self.clock.run()
        self.assertEqual(self.notifier.sent[1:], ["READY=1"])
        wire = self.connectOpen()
        self.clock.advance(10)
        self.assertEqual(self.notifier.sent[2:], ["STATUS=1 client"])
        service.stopService()
        self.assertEqual(self.notifier.sent[3:], ["STOPPING=1"])
        wire.lose()
        self.assertEqual(self.process._loops, [])

    def test_hangUp(self) -> None:
        """
        SIGHUP reloads, even while the service stops and after it has stopped.
        """
        service = self.make([FakeEndpoint()], process=self.process)
        service.startService()
        wire = self.connectOpen()
        wire.feed(Probe.message(Probe.LATER))
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        stopped = service.stopService()
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertNoResult(stopped)
        wire.lose()
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        nothing = [each for each in self.logged() if each.startswith("nothing to reload")]
        self.assertEqual(len(nothing), 3)


class StopTests(ServiceTestCase):
    """
    Tests for stopping: cleanly, and in bounded time.
    """

    def test_idle(self) -> None:
        """
        Without connections the service stops at once, logs nothing, and leaves no timer.
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
        The service stops listening before it closes connections.
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

    def test_calls(self) -> None:
        """
        Pending calls may finish within the grace period, which is logged once.
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
        When the grace period ends, or if it is 0, pending calls are answered with an error that has
        the reason.  A client that does not read the answer is aborted.
        """
        for grace in (2.5, 0):
            service = self.start(grace=grace)
            wire = self.connectOpen()
            wire.feed(Probe.message(Probe.LATER))
            stopped = service.stopService()
            self.assertFalse(wire.closing)
            self.clock.advance(grace)
            self.assertEqual(
                errorOf(wire.takeOne())[3], "operation failed: the server is shutting down"
            )
            self.assertTrue(wire.closing)
            self.assertFalse(wire.aborted)
            self.clock.advance(0.5)
            self.assertTrue(wire.aborted)
            self.assertNoResult(stopped)
            wire.lose()
            self.successResultOf(stopped)


class DrainTests(ServiceTestCase):
    """
    Tests for draining: the server accepts no new clients, and stops when the last one leaves.
    """

    def test_left(self) -> None:
        """
        Existing clients are served as before; when the last one leaves, the process stops.
        """
        endpoint = FakeEndpoint()
        service = self.start([endpoint])
        wires = [self.connectOpen(), self.connectOpen()]
        self.assertEqual(service.status(), "2 clients")
        service.drain()
        service.drain()
        self.assertTrue(service.draining)
        self.assertFalse(endpoint.port.listening)
        self.assertEqual(
            self.logged()[1:],
            ["draining: no new clients; 2 connections have up to 300 s to leave"],
        )
        wires[0].lose()
        self.assertEqual(service.status(), "draining, 1 client left")
        self.assertFalse(wires[1].closing)
        self.assertEqual(self.stopped, 0)
        wires[1].lose()
        self.assertEqual(self.stopped, 1)
        self.successResultOf(service.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bound(self) -> None:
        """
        The process stops after C{within} seconds, even if clients are left.
        """
        service = self.start()
        wire = self.connectOpen()
        self.assertTrue(service.busy())
        self.assertEqual(service.connections(), (1, 0))
        service.drain(within=7)
        self.clock.advance(6.9)
        self.assertEqual(self.stopped, 0)
        self.clock.advance(0.1)
        self.assertEqual(self.stopped, 1)
        stopped = service.stopService()
        wire.lose()
        self.successResultOf(stopped)
        self.assertFalse(service.busy())
        self.assertEqual(service.connections(), (0, 1))

    def test_empty(self) -> None:
        """
        A server without clients stops at once.
        """
        service = self.start()
        self.assertFalse(service.busy())
        service.drain()
        self.assertEqual(self.stopped, 1)
        self.successResultOf(service.stopService())

    def test_stoppedMeanwhile(self) -> None:
        """
        The reactor is not stopped a second time when a draining service is stopped.
        """
        service = self.start()
        wire = self.connectOpen()
        service.drain()
        stopped = service.stopService()
        wire.lose()
        self.successResultOf(stopped)
        self.assertEqual(self.stopped, 0)
