"""
Tests for L{kaproto.interfaces}, and for all classes that implement an interface.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from twisted.application.service import IServiceMaker
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.portal import IRealm
from twisted.cred.strcred import ICheckerFactory
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, MemoryReactorClock
from twisted.logger import ILogObserver
from twisted.plugin import IPlugin, getPlugins
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

import kaproto
from kaproto.backends.gateway import Gateway
from kaproto.backends.host import HOST_NAME, EmbeddedHost
from kaproto.backends.relayreader import RelayReader, _Reading
from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.endpointplugins import ServerParser
from kaproto.interfaces import (
    ADMITTED,
    Admission,
    IBackend,
    IKeepAlivePolicy,
    IProgram,
    ISession,
    OpenRequest,
    Refused,
)
from kaproto.keepalive.clock import MonotonicClock
from kaproto.keepalive.idlereader import IdleReader
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import Pacemaker
from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer
from kaproto.policies import MODES, Policy
from kaproto.policies.rules import RulesPolicy
from kaproto.program import ApplicationBackend, Program
from kaproto.registry.interfaces import IRegistry
from kaproto.registry.link import RedisFactory
from kaproto.registry.local import LocalRegistry
from kaproto.registry.location import Location, Password
from kaproto.registry.redis import RedisRegistry
from kaproto.rpc.remote import RemoteProgram
from kaproto.security.authplugin import ScramFileFactory
from kaproto.security.endpoints import TLSClientEndpoint
from kaproto.security.handshake import ICertificateChecker
from kaproto.security.loginqueue import ILoginQueue, ITurn, LoginQueue
from kaproto.security.mechanism import IKnown
from kaproto.security.passwordfile import PasswordFile
from kaproto.security.pki import clientFiles, serverFiles
from kaproto.security.plain import _Password
from kaproto.security.scram import IScramCredentials, _Proof
from kaproto.security.scramfile import ScramFile
from kaproto.security.scramkeys import ScramKeys
from kaproto.security.tls import ClientContextFactory, ServerContextFactory
from kaproto.security.users import IUser, Realm, User
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.status.events import _Viewer
from kaproto.status.page import View
from kaproto.testing import connectedPair
from tests.pki import Authority, distinguished

VERIFIED = {
    "AMPCodec",
    "ApplicationBackend",
    "BoundPort",
    "ClientContextFactory",
    "Connection",
    "DirectReader",
    "EmbeddedHost",
    "Exceptions",
    "Gateway",
    "GatewaySession",
    "GuardedAlarm",
    "HostEndpoint",
    "IntNCodec",
    "KeepAliveClientProtocol",
    "KeepAliveProtocol",
    "KeepAliveServerProtocol",
    "LineCodec",
    "LocalRegistry",
    "LogBounds",
    "LoginQueue",
    "MonotonicClock",
    "MemoryEndpoint",
    "NetstringCodec",
    "Parser",
    "PasswordFile",
    "Policy",
    "Program",
    "ProxyEndpoint",
    "Realm",
    "RedisRegistry",
    "RulesPolicy",
    "ScramFile",
    "ScramFileFactory",
    "ServerContextFactory",
    "ServerParser",
    "TCPKeepAliveClientEndpoint",
    "TCPKeepAliveServerEndpoint",
    "TLSClientEndpoint",
    "TLSServerEndpoint",
    "TunnelClientEndpoint",
    "TunnelMessages",
    "TunnelServerEndpoint",
    "User",
    "_HostSession",
    "_NoSession",
    "_Password",
    "_Proof",
    "_Reading",
    "_Turn",
    "_Viewer",
    "WatchedEndpoint",
}
"""
The classes whose instances are verified below.
"""

IMPLEMENTER = re.compile(
    r"""
    ^ [ ]* @ implementer \( [^()]* \) \n
    (?: ^ [ ]* @ .* \n )*
    ^ [ ]* class [ ] (\w+)
    """,
    re.MULTILINE | re.VERBOSE,
)
"""
Finds the classes that implement an interface, whatever else they are decorated with below that.
"""


@implementer(IStreamClientEndpoint)
class ServerInMemory:
    """
    An endpoint that connects to an in-memory server.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect to a new server.
        """
        assert isinstance(factory, KeepAliveClientFactory)
        return succeed(connectedPair(KeepAliveServerFactory(clock=self._clock), factory).client)


class ProvidersTests(SynchronousTestCase):
    """
    Tests for the classes that implement an interface.
    """

    def test_nobodyIsLeftOut(self) -> None:
        """
        Every class in kaproto that implements an interface is verified here.
        """
        implementers = set()
        for path in Path(kaproto.__file__).parent.rglob("*.py"):
            implementers.update(IMPLEMENTER.findall(path.read_text("utf-8")))
        self.assertEqual(implementers, VERIFIED)

    def test_registries(self) -> None:
        """
        The registries provide L{IRegistry}.
        """
        clock, location = Clock(), Location("redis.example")
        factory = RedisFactory(location, Password(None), clock)
        endpoint = location.endpoint(MemoryReactorClock())
        for registry in (
            LocalRegistry("host1"),
            RedisRegistry("host1", str(location), endpoint, factory, clock),
        ):
            self.assertTrue(verifyObject(IRegistry, registry))

    def test_policies(self) -> None:
        """
        The three modes, also once configured, and L{Policy} are policies and plugins.
        """
        self.assertTrue(verifyObject(IKeepAlivePolicy, RulesPolicy()))
        for policy in (Policy(), *MODES):
            for each in (policy, policy.configured(None, KeepAlive(1, 1))):
                self.assertTrue(verifyObject(IKeepAlivePolicy, each))
                self.assertTrue(verifyObject(IPlugin, each))

    def test_installedPolicies(self) -> None:
        """
        Twisted finds the plugins of the three modes.
        """
        installed = list(getPlugins(IKeepAlivePolicy))
        for mode in MODES:
            self.assertIn(mode, installed)

    def test_installedService(self) -> None:
        """
        Twisted finds the plugin of kaserver.
        """
        (maker,) = (each for each in getPlugins(IServiceMaker) if each.tapname == "kaserver")
        self.assertTrue(verifyObject(IServiceMaker, maker))

    def test_backends(self) -> None:
        """
        The embedded host and the application's backend are backends, and open sessions.
        """
        for backend in (EmbeddedHost(), ApplicationBackend()):
            self.assertTrue(verifyObject(IBackend, backend))
            session = backend.open(Peer(), OpenRequest(HOST_NAME, 0))
            self.assertTrue(verifyObject(ISession, session))

    def test_gateway(self) -> None:
        """
        The gateway is a backend, and opens sessions.
        """
        clock = Clock()
        gateway = Gateway(ServerInMemory(clock), "memory", KeepAlive(0, 0), clock)
        self.assertTrue(verifyObject(IBackend, gateway))
        session = self.successResultOf(gateway.open(Peer(), OpenRequest(HOST_NAME, 0)))
        self.assertTrue(verifyObject(ISession, session))
        session.closed(Exception("over"))
        clock.advance(0)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_idleReader(self) -> None:
        """
        A reactor can poll the readers of idle connections and of relays.
        """
        reactor, pacemaker = cast(IReactorFDSet, MemoryReactor()), Pacemaker(Clock())
        for reader in (IdleReader(reactor, pacemaker), RelayReader(reactor, pacemaker)):
            self.assertTrue(verifyObject(IReadDescriptor, reader))

    def test_logBounds(self) -> None:
        """
        The bounds of the log are a log observer.
        """
        self.assertTrue(verifyObject(ILogObserver, BOUNDS))

    def test_viewer(self) -> None:
        """
        A viewer of the live status page is a push producer.
        """
        viewer = _Viewer(cast(Any, None), View())
        self.assertTrue(verifyObject(IPushProducer, viewer))
        viewer.stopProducing()

    def test_clock(self) -> None:
        """
        The monotonic clock provides L{IReactorTime}, and a reactor can poll its alarm.
        """
        reactor = MemoryReactorClock()
        clock = MonotonicClock(reactor)
        self.assertTrue(verifyObject(IReactorTime, clock))
        clock.callLater(1, clock.seconds)
        (alarm,) = reactor.getReaders()
        self.assertTrue(verifyObject(IReadDescriptor, alarm))
        alarm.connectionLost(Failure(ConnectionDone()))

    def test_programs(self) -> None:
        """
        L{Program} and the remote program provide L{IProgram}.
        """
        numbered = type("Numbered", (Program,), {"number": 7})
        for program in (numbered(), RemoteProgram(ApplicationBackend())):
            self.assertTrue(verifyObject(IProgram, program))

    def test_protocols(self) -> None:
        """
        The protocols, factories and connections provide the interfaces that Twisted expects.
        """
        for protocol in (KeepAliveServerProtocol(), KeepAliveClientProtocol()):
            self.assertTrue(verifyObject(IFileDescriptorReceiver, protocol))
            self.assertTrue(verifyObject(IHandshakeListener, protocol))
        pair = connectedPair(
            KeepAliveServerFactory(clock=(clock := Clock())), KeepAliveClientFactory(clock=clock)
        )
        for connection in (pair.server._kaproto, pair.client._kaproto):
            self.assertTrue(verifyObject(IPushProducer, connection))
            direct = _Reading(*cast(Any, (None, connection, None, None, None)))
            self.assertTrue(verifyObject(IPushProducer, direct))
        self.assertTrue(verifyObject(ICertificateChecker, KeepAliveServerProtocol()))
        clock = Clock()
        for factory in (KeepAliveServerFactory(clock=clock), KeepAliveClientFactory(clock=clock)):
            self.assertTrue(verifyObject(IProtocolFactory, factory))

    def test_tls(self) -> None:
        """
        The TLS context factories and endpoints provide the interfaces that Twisted expects.
        """
        authority = Authority()
        directory = Path(self.mktemp())
        authority.write(str(directory), authority.issue(distinguished("server")))
        server = ServerContextFactory(lambda: serverFiles(directory))
        client = ClientContextFactory(clientFiles(directory=directory, home=directory), "host")
        self.assertTrue(verifyObject(IOpenSSLServerConnectionCreator, server))
        self.assertTrue(verifyObject(IOpenSSLClientConnectionCreator, client))
        parser = ServerParser("libvirttls", "kaproto.security.endpoints")
        self.assertTrue(verifyObject(IStreamServerEndpointStringParser, parser))
        endpoint = parser.parseStreamServer(MemoryReactor(), pki=str(directory))
        self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))
        place: Any = None
        self.assertTrue(verifyObject(IStreamClientEndpoint, TLSClientEndpoint(place, client)))

    def test_credentials(self) -> None:
        """
        The checkers, credentials and login queue provide the interfaces that cred and kaproto
        expect.
        """
        path = Path(self.mktemp())
        path.write_text(f"alice:{ScramKeys.fromPassword('sesame').toText()}\n")
        self.assertTrue(verifyObject(IRealm, Realm()))
        self.assertTrue(verifyObject(IUser, User("alice")))
        self.assertTrue(verifyObject(ICredentialsChecker, ScramFile(path)))
        self.assertTrue(verifyObject(ICheckerFactory, ScramFileFactory()))
        path.write_text("alice:sesame\n")
        self.assertTrue(verifyObject(ICredentialsChecker, PasswordFile(path)))
        self.assertTrue(verifyObject(IUsernamePassword, _Password(b"alice", b"sesame", known=True)))
        for interface in (IScramCredentials, IUsernameHashedPassword):
            self.assertTrue(verifyObject(interface, _Proof(b"alice", known=True)))
        for known in (_Password(b"alice", b"sesame", known=True), _Proof(b"alice", known=True)):
            self.assertTrue(verifyObject(IKnown, known))
        queue = LoginQueue(Clock(), Limits)
        self.assertTrue(verifyObject(ILoginQueue, queue))
        turn = self.successResultOf(queue.enter("192.0.2.1", "alice"))
        self.assertTrue(verifyObject(ITurn, turn))

    def test_notEverythingPasses(self) -> None:
        """
        An object that only declares an interface fails verification.
        """
        for interface in (IKeepAlivePolicy, IBackend, ISession, IProgram):
            self.assertRaises(Invalid, verifyObject, interface, self.pretender(interface))

    def pretender(self, interface: type[Interface]) -> object:
        """
        @return: an object that only declares the interface.
        """

        @implementer(interface)
        class Pretender:
            pass

        return Pretender()


class OpenRequestTests(SynchronousTestCase):
    """
    Tests for L{OpenRequest}, the arguments of C{CONNECT_OPEN}.
    """

    def test_readOnly(self) -> None:
        """
        Bit 0 of the flags requests a read-only connection; the other bits do not.
        """
        for flags, readOnly in [(0, False), (1, True), (2, False), (3, True), (4, False)]:
            self.assertIs(OpenRequest("", flags).readOnly, readOnly)


class AnswersTests(SynchronousTestCase):
    """
    Tests for a policy's answers to a client that opens.
    """

    def test_admission(self) -> None:
        """
        An admission has no warning by default.
        """
        self.assertIsNone(ADMITTED.warning)
        self.assertEqual(ADMITTED, Admission())
        self.assertNotEqual(ADMITTED, Admission("but"))

    def test_refusal(self) -> None:
        """
        A refusal needs a message.
        """
        self.assertEqual(Refused("why").message, "why")
        self.assertRaises(TypeError, Refused)

    def test_answersAreFinal(self) -> None:
        """
        Admissions and refusals are immutable, so a policy can share them among peers.
        """
        self.assertRaises(AttributeError, setattr, ADMITTED, "warning", "changed")
        self.assertRaises(AttributeError, setattr, Refused("why"), "message", "changed")
