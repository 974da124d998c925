"""
Tests for L{kaproto.app.service}.
"""

from __future__ import annotations

import os
import signal
from io import StringIO
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Application, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import FileLogObserver, ILogObserver
from twisted.python.failure import Failure

from kaproto.app import process as processModule
from kaproto.app import service as serviceModule
from kaproto.app.options import Options
from kaproto.app.ports import CannotListen
from kaproto.app.process import OwnProcess
from kaproto.app.service import KaServer, makeService
from kaproto.backends.gateway import Gateway
from kaproto.keepalive.kernelwatch import TCPKeepAlive
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory
from kaproto.policies.rules import RulesPolicy
from kaproto.registry.local import LocalRegistry
from kaproto.registry.redis import RedisRegistry
from kaproto.rpc.protocol import connectionOf
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.security.scramfile import ScramFile
from kaproto.security.scramkeys import ScramKeys
from kaproto.server import KeepAliveServerProtocol
from kaproto.status.daemon import readiness
from tests.pki import Authority, distinguished
from tests.unit.app.test_kaserver import ServiceTestCase
from tests.unit.app.test_process import RecordingNotifier


class MakeServiceTests(ServiceTestCase):
    """
    Tests for L{makeService}.
    """

    def setUp(self) -> None:
        """
        Create a folder with certificates.
        """
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        authority = Authority()
        authority.write(str(self.folder), authority.issue(distinguished("server")))
        self.tls = f"--listen=libvirttls:16514:pki={self.folder}"

    def makeFrom(self, *arguments: str) -> KaServer:
        """
        Create a service from a command line.
        """
        options = Options(self.clock)
        options.parseOptions(list(arguments))
        return makeService(options, cast(IReactorTime, self.clock))

    def listening(self, *arguments: str) -> str:
        """
        Start a service.

        @return: its last log line.
        """
        self.makeFrom(*arguments).privilegedStartService()
        return self.logged()[-1]

    def test_embeddedHost(self) -> None:
        """
        By default the backend is the embedded host.  The flags set the factory, and the log line
        has the settings.
        """
        service = self.makeFrom(
            "--mode=2",
            "--interval=1.5",
            "--count=2",
            "--open-timeout=3",
            "--tcp-keepalive=off",
            "--insecure",
        )
        self.assertEqual(service.factory.policy, Mandatory(KeepAlive(1.5, 2)))
        self.assertEqual(service.factory.tcpKeepAlive, TCPKeepAlive("off", KeepAlive(1.5, 2)))
        self.assertEqual(service.factory.limits.openTimeout, 3)
        self.assertIs(service.factory.clock, self.clock)
        service.privilegedStartService()
        (line,) = self.logged()
        self.assertIn("(mode mandatory, interval 1.5 s, count 2, backend embedded host)", line)
        self.assertEqual(self.clock.tcpServers[0][0], 16509)

    def test_registry(self) -> None:
        """
        By default clients are registered only locally; with C{--registry} in Redis, whose password
        is reloaded with all other files.
        """
        self.assertIsInstance(self.makeFrom("--node=host7").registry, LocalRegistry)
        path = self.folder / "redis"
        path.write_text("secret\n", "utf-8")
        service = self.makeFrom(
            "--registry=redis://192.0.2.9", f"--registry-password-file={path}", "--node=host7"
        )
        self.assertIsInstance(service.registry, RedisRegistry)
        self.assertEqual(service.registry.node, "host7")
        path.unlink()
        (problem,) = self.successResultOf(Deferred.fromCoroutine(service.reload()))
        self.assertIn("No such file", problem)

    def test_connections(self) -> None:
        """
        A connection uses the service's factory, with the access control and the name of its
        listener.
        """
        service = self.makeFrom("--auth=memory:alice:sesame", "--listen=unix:/x", self.tls)
        for each, description in zip(service.ports.places, ("unix:/x", self.tls[9:]), strict=True):
            factory = cast(Any, each.factory)
            factory.doStart()
            protocol = factory.buildProtocol(None)
            self.assertIsInstance(protocol, KeepAliveServerProtocol)
            self.assertIs(protocol.factory, service.factory)
            protocol.makeConnection(StringTransport())
            connection = connectionOf(protocol, ServerConnection)
            self.assertIsNotNone(connection.accessControl.portal)
            self.assertEqual(connection.listener, description)
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(service.factory.numPorts, 2)
        for each in service.ports.places:
            cast(Any, each.factory).doStop()
        self.assertEqual(service.factory.numPorts, 0)

    def test_daemon(self) -> None:
        """
        The service reports its listeners and when certificates expire.  Without a gateway it is
        always ready.
        """
        service = self.makeFrom("--listen=unix:/x", self.tls)
        self.assertEqual(list(service.listeners), ["unix:/x", self.tls[9:]])
        ((listener, expiry),) = service.certificateExpiry().items()
        self.assertEqual(listener, self.tls[9:])
        self.assertGreater(expiry, 1.7e9)
        self.assertIsNone(readiness(service))
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(service.reload())), [])

    def test_admin(self) -> None:
        """
        C{--admin} adds an endpoint with libvirt's administration program and kaproto's own.
        """
        service = self.makeFrom("--admin=/x/admin")
        (place,) = service.operations.places
        factory = cast(Any, place.factory)
        self.assertEqual(sorted(factory.programs), [0x06900690, 0x6B617072])
        self.assertEqual(self.makeFrom().operations.places, [])

    def test_status(self) -> None:
        """
        The status page can be exposed only with C{--insecure}.
        """
        agent = self.makeFrom("--agent=tcp:9165", "--listen=unix:/x")
        self.assertEqual([each.flag for each in agent.operations.places], ["--agent=tcp:9165"])
        service = self.makeFrom("--status=tcp:9164", "--listen=unix:/x")
        with self.assertRaisesRegex(CannotListen, "--status=tcp:9164: .* from other machines"):
            service.operations.start()
        service = self.makeFrom("--status=tcp:9164", "--listen=unix:/x", "--insecure")
        self.successResultOf(service.operations.start())
        self.successResultOf(Deferred.fromCoroutine(service.operations.stop()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_problem(self) -> None:
        """
        A gateway's service is not ready while its upstream is down, and checks it until it stops.
        """
        service = self.makeFrom("--upstream=tcp:127.0.0.1:1", "--listen=unix:/x")
        assert service.gateway is not None
        service.gateway.health.failed("it is away")
        self.assertEqual(readiness(service), "it is away")
        self.assertEqual(len(self.clock.tcpClients), 1)
        self.successResultOf(service.stopService())

    def test_maxClients(self) -> None:
        """
        By default the number of clients is limited by the open files: a gateway needs two per
        client.
        """
        self.patch(serviceModule, "clientsFor", lambda files: 100 // files)
        self.assertEqual(self.makeFrom().factory.limits.maxClients, 100)
        gateway = self.makeFrom("--upstream=unix:/x/y", "--listen=unix:/x")
        self.assertEqual(gateway.factory.limits.maxClients, 50)
        self.assertEqual(self.makeFrom("--max-clients=3").factory.limits.maxClients, 3)

    def test_exposed(self) -> None:
        """
        Other machines may connect with certificates, with passwords over TLS, or with
        C{--insecure}.
        """
        auth = "--auth=memory:alice:sesame"
        self.assertIn("listening on tls (up to 1.2) 0.0.0.0:16514", self.listening(self.tls))
        self.assertIn("0.0.0.0:16514", self.listening(f"{self.tls}:verify=no", auth))
        self.assertIn("0.0.0.0:16514", self.listening(f"{self.tls}:verify=no", "--insecure"))
        for listen in (f"{self.tls}:verify=no", "--listen=tcp:16509"):
            service = self.makeFrom(listen)
            self.assertRaises(CannotListen, service.privilegedStartService)

    def test_gateway(self) -> None:
        """
        With C{--upstream} the service is a gateway, and logs its upstream and how to connect.
        """
        made: list[Gateway] = []

        class Remembered(Gateway):
            def __init__(self, *arguments: Any, **keywords: Any) -> None:
                super().__init__(*arguments, **keywords)
                made.append(self)

        self.patch(serviceModule, "Gateway", Remembered)
        # The path of a socket cannot be long.
        path = os.path.relpath(self.folder / "s")
        service = self.makeFrom(
            "--upstream=unix:/x/y",
            "--upstream-interval=7",
            "--upstream-count=8",
            "--upstream-timeout=9",
            "--tcp-keepalive=on",
            f"--listen=unix:{path}",
        )
        service.privilegedStartService()
        self.assertIn("backend gateway to unix:/x/y)", self.logged()[0])
        self.assertEqual(
            self.logged()[1], f"connect with: virsh -c 'qemu+unix:///system?socket={path}'"
        )
        (gateway,) = made
        self.assertEqual(gateway._keepAlive, KeepAlive(7, 8))
        self.assertEqual(gateway.tcpKeepAlive, TCPKeepAlive("on", KeepAlive(7, 8)))
        self.assertEqual(gateway.limits.openTimeout, 9)
        stopped = service.stopService()
        self.clock.advance(0)
        self.successResultOf(stopped)

    def test_reload(self) -> None:
        """
        A reload reads all files again: the rules, the certificates and the users.
        """
        rules = self.folder / "rules.toml"
        rules.write_text("[default]\nmode = 1")
        keys = self.folder / "keys"
        keys.write_text(f"alice:{ScramKeys.fromPassword('sesame').toText()}\n")
        service = self.makeFrom(f"--mode=rules:{rules}", f"--auth=scram:{keys}", self.tls)
        certificate = self.folder / "libvirt/servercert.pem"
        reloaded: list[type] = []
        for kind in (RulesPolicy, ScramFile):
            self.patch(kind, "reload", lambda each: reloaded.append(type(each)))
        self.successResultOf(Deferred.fromCoroutine(service.reload()))
        self.assertEqual(reloaded, [RulesPolicy, ScramFile])
        self.assertEqual(
            self.logged(),
            [
                f"reloaded the rules in {rules}",
                f"reloaded the certificates of {certificate}",
                f"reloaded the users in {keys}",
            ],
        )

    def test_reactor(self) -> None:
        """
        By default the service uses the global reactor, and has its own process.
        """
        from twisted.internet import reactor

        made: list[object] = []
        self.patch(signal, "signal", lambda *_what: None)
        self.patch(processModule, "takeEnvironment", lambda *_what: RecordingNotifier())

        class Recorded(OwnProcess):
            def __init__(self, reactor: object) -> None:
                made.append(reactor)
                super().__init__(MemoryReactorClock())

        self.patch(serviceModule, "OwnProcess", Recorded)
        options = Options(self.clock)
        options.parseOptions([])
        service = makeService(options)
        self.assertEqual(made, [reactor])
        self.successResultOf(service.stopService())

    def test_log(self) -> None:
        """
        The service gives its log observer to C{twistd}'s application, before logging starts.
        """
        service = self.make()
        service._logObserver = observer = FileLogObserver(StringIO(), lambda _event: "")
        application = Application("test")
        service.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), observer)
        parent = MultiService()
        service.disownServiceParent()  # type: ignore[no-untyped-call]
        service.setServiceParent(parent)
        self.assertEqual(list(parent), [service])
