"""
Tests for how a server lets clients in and a client gets in: with TLS, and with SASL.
"""

from __future__ import annotations

import gc
import weakref
from functools import partial
from pathlib import Path
from typing import Any, cast

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect

from kaproto.client import (
    KeepAliveClientFactory,
    KeepAliveClientProtocol,
    connecting,
    endpointFor,
)
from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    RemoteError,
    RemoteProtocolError,
    TooManyClients,
)
from kaproto.interfaces import ADMITTED, Admission, Refused
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import Policy
from kaproto.rpc.entrance import Entrance
from kaproto.security.admission import AccessControl
from kaproto.security.clientauth import Authentication
from kaproto.security.handshake import CertificateRefused
from kaproto.security.pki import CertificateFiles, clientFiles, serverFiles
from kaproto.security.saslclient import Login
from kaproto.security.tls import ClientContextFactory, ServerContextFactory
from kaproto.security.users import makePortal
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import PING, PONG, Message
from kaproto.wire.programs import Procedure
from kaproto.wire.sasl import packStart
from tests.pki import Authority, Identity, distinguished
from tests.support import OPEN, ClockTestCase, Wire, call, errorOf

ALICE = Login("alice", "sesame")
DONE = Failure(ConnectionDone())
REFUSED = (45, 7, 2, "authentication failed: authentication failed")


def entranceOf(wire: Wire[KeepAliveServerProtocol]) -> Entrance:
    """
    @return: what has yet to let a client in.
    """
    entrance = wire.protocol._kaproto._entrance
    assert entrance is not None
    return entrance


class Watching(Policy):
    """
    A policy that remembers whom it admitted.
    """

    name = "watching"

    def __init__(self, seen: list[Peer]) -> None:
        super().__init__()
        object.__setattr__(self, "seen", seen)

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Remember.
        """
        seen: list[Peer] = getattr(self, "seen")  # noqa: B009
        seen.append(peer)
        return ADMITTED


class AdmissionTestCase(ClockTestCase):
    """
    Has a server, and whoever wants to get in.
    """

    def setUp(self) -> None:
        """
        Make it.
        """
        super().setUp()
        self.peers: list[Peer] = []
        self.accessControl = AccessControl()
        self.factory = KeepAliveServerFactory(
            Watching(self.peers),
            clock=self.clock,
            accessControl=self.accessControl,
            limits=Limits(maxAnonymousClients=0),
        )

    def wantPasswords(self) -> None:
        """
        Have clients log in; there is Alice.
        """
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")
        self.accessControl.portal = makePortal([checker])


class Ends:
    """
    Two ends that talk TLS in memory.
    """

    def __init__(
        self, case: AdmissionTestCase, server: Any, client: Any, *, connected: bool = True
    ) -> None:
        self.case = case
        self.server: KeepAliveServerProtocol = server.wrappedProtocol
        self.client: KeepAliveClientProtocol = client.wrappedProtocol
        self.closed: list[Exception] = []
        self.pump: IOPump = connect(
            server,
            FakeTransport(server, isServer=True),
            client,
            FakeTransport(client, isServer=False),
        )
        self.opened = self.client.whenOpen()
        self.client.whenClosed().addCallback(self.closed.append)
        self.flush()

    def flush(self) -> None:
        """
        Let all happen that can.
        """
        for _ in range(30):
            self.case.clock.advance(0)
            self.pump.flush()

    def end(self) -> None:
        """
        End the connection, if it has not ended.
        """
        for io in (self.pump.serverIO, self.pump.clientIO):
            io.abortConnection()
        self.flush()


class TLSTests(AdmissionTestCase):
    """
    A client and a server over TLS.
    """

    def setUp(self) -> None:
        """
        Make their certificates.
        """
        super().setUp()
        self.authority = Authority()
        self.directory = Path(self.mktemp())
        self.authority.write(
            str(self.directory), self.authority.issue(distinguished("server"), hosts=["host.test"])
        )
        self.alice = self.authority.issue(distinguished("alice"))

    def connect(
        self,
        identity: Identity | None,
        login: Login | None = None,
        *,
        verify: bool = True,
        host: str = "host.test",
    ) -> Ends:
        """
        Connect a client.
        """
        flat = Path(self.mktemp())
        self.authority.writeFlat(str(flat), identity)
        server: Any = TLSMemoryBIOFactory(
            ServerContextFactory(partial(serverFiles, self.directory), verify=verify),
            False,
            self.factory,
            clock=self.clock,
        )
        client: Any = TLSMemoryBIOFactory(
            ClientContextFactory(clientFiles(flat), host),
            True,
            KeepAliveClientFactory(
                "test:///default", clock=self.clock, authentication=Authentication(login)
            ),
            clock=self.clock,
        )
        ends = Ends(self, server.buildProtocol(None), client.buildProtocol(None))
        self.addCleanup(ends.end)
        return ends

    def refused(self, ends: Ends, words: str) -> None:
        """
        Check that the server has refused a client, and said why in its log.
        """
        self.assertEqual(self.factory.counters.unauthenticated, 1)
        self.assertEqual(self.factory.counters.opened, 0)
        (line,) = [line for line in self.logged(LogLevel.warn) if "refused tls " in line]
        self.assertIn(words, line)

    def test_letIn(self) -> None:
        """
        With a good certificate the client gets in, and the server's policy knows who it is.
        """
        ends = self.connect(self.alice)
        self.assertIs(self.successResultOf(ends.opened), ends.client)
        (peer,) = self.peers
        self.assertEqual(peer.transport, "tls")
        self.assertEqual(peer.tlsDN, "C=GB,ST=London,L=London,O=Red Hat,CN=alice")
        self.assertEqual(len(peer.tlsFingerprint or ""), 64)
        self.assertIsNone(peer.user)

    def test_noCertificate(self) -> None:
        """
        Without one it does not, and each end says so.
        """
        ends = self.connect(None)
        error = self.failureResultOf(ends.opened, AuthenticationFailed).value
        self.assertIn("it wants another certificate, or one at all", str(error))
        self.refused(ends, "it has no certificate")
        self.assertEqual(ends.closed, [error])

    def test_allowed(self) -> None:
        """
        Where only certain names are let in, it has to have one of them.
        """
        self.accessControl.tlsAllowedDNs = ["*,CN=alice"]
        self.successResultOf(self.connect(self.alice).opened)

    def test_notAllowed(self) -> None:
        """
        With another name it does not get in.
        """
        self.accessControl.tlsAllowedDNs = ["*,CN=bob"]
        ends = self.connect(self.alice)
        self.failureResultOf(ends.opened, AuthenticationFailed)
        self.refused(ends, "CN=alice', is not allowed")

    def test_password(self) -> None:
        """
        A password may be wanted as well, or instead.
        """
        self.wantPasswords()
        for identity, verify in ((self.alice, True), (None, False)):
            ends = self.connect(identity, ALICE, verify=verify)
            self.successResultOf(ends.opened)
            self.assertEqual(self.peers.pop().user, "alice")

    def test_plain(self) -> None:
        """
        TLS is good enough for passwords as they are.
        """
        self.wantPasswords()
        ends = self.connect(self.alice, Login("alice", "sesame", "PLAIN"))
        self.successResultOf(ends.opened)

    def test_slowHandshake(self) -> None:
        """
        A client that does not complete its handshake in time is dropped.
        """
        wrapper: Any = TLSMemoryBIOFactory(
            ServerContextFactory(partial(serverFiles, self.directory)),
            False,
            self.factory,
            clock=self.clock,
        ).buildProtocol(None)
        wrapper.makeConnection(FakeTransport(wrapper, isServer=True))
        self.advance(9.9)
        self.assertEqual(len(self.factory.connections), 1)
        self.advance(0.1)
        wrapper.connectionLost(DONE)
        (line,) = self.logged(LogLevel.warn)
        self.assertIn("it did not complete the TLS handshake within 10 s", line)
        self.assertEqual(self.factory.counters.deadlinesMissed, 1)

    def broken(self, data: bytes) -> Any:
        """
        Connect to the server and send something.
        """
        wrapper: Any = TLSMemoryBIOFactory(
            ServerContextFactory(partial(serverFiles, self.directory)),
            False,
            self.factory,
            clock=self.clock,
        ).buildProtocol(None)
        transport = FakeTransport(wrapper, isServer=True)
        wrapper.makeConnection(transport)
        if data:
            wrapper.dataReceived(data)
        wrapper.connectionLost(DONE)
        return wrapper

    def test_noTLS(self) -> None:
        """
        A client that does not speak TLS is refused, and the log says what it did.
        """
        self.broken(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(self.factory.counters.unauthenticated, 1)
        (line,) = self.logged(LogLevel.warn)
        self.assertIn("TLS failed: the other end sent an HTTP request", line)

    def test_portScan(self) -> None:
        """
        One that says nothing is not worth a line.
        """
        self.broken(b"")
        self.assertEqual(self.logged(LogLevel.warn), [])
        self.assertEqual(self.factory.counters.unauthenticated, 0)

    def test_lateHandshake(self) -> None:
        """
        A handshake that completes when the connection is closing already lets nobody in.
        """
        wire = self.accept(self.factory)
        wire.protocol._kaproto.disconnect(ConnectionClosed("enough"))
        wire.protocol.handshakeCompleted()
        self.assertEqual(wire.taken(), b"")

    def test_otherServer(self) -> None:
        """
        A client that has connected to another server than it wanted says so.
        """
        ends = self.connect(self.alice, host="other.test")
        error = self.failureResultOf(ends.opened, CertificateRefused).value
        self.assertIn("not for other.test", str(error))

    def clientOf(self) -> Any:
        """
        Make a client's end, with the test in the place of the server.
        """
        flat = Path(self.mktemp())
        self.authority.writeFlat(str(flat), self.alice)
        wrapper: Any = TLSMemoryBIOFactory(
            ClientContextFactory(clientFiles(flat), "host.test"),
            True,
            KeepAliveClientFactory(clock=self.clock),
            clock=self.clock,
        ).buildProtocol(None)
        wrapper.makeConnection(FakeTransport(wrapper, isServer=False))
        return wrapper

    def test_plainServer(self) -> None:
        """
        A client that has connected to a server without TLS says so.
        """
        wrapper = self.clientOf()
        opened = wrapper.wrappedProtocol.whenOpen()
        wrapper.dataReceived(PING * 2)
        wrapper.connectionLost(DONE)
        error = self.failureResultOf(opened, RemoteProtocolError).value
        self.assertIn("TLS failed: ", str(error))

    def test_serverGone(self) -> None:
        """
        One whose server goes away in the middle of the handshake does not blame certificates.
        """
        wrapper = self.clientOf()
        closed = wrapper.wrappedProtocol.whenClosed()
        wrapper.connectionLost(DONE)
        self.assertIsInstance(self.successResultOf(closed), ConnectionLost)

    def confirm(self, data: bytes) -> KeepAliveClientProtocol:
        """
        Have a server say something as its first.
        """
        client: KeepAliveClientProtocol = self.clientOf().wrappedProtocol
        client.handshakeCompleted()
        client.dataReceived(data)
        return client

    def test_noConfirmation(self) -> None:
        """
        A server that does not begin as libvirt's do is no such server.
        """
        client = self.confirm(b"220 ready")
        self.assertIsInstance(client._kaproto.closing.reason, RemoteProtocolError)
        self.assertIn(
            "b'2' over TLS where libvirt's servers first send b'\\x01'",
            str(client._kaproto.closing.reason),
        )
        client.connectionLost(DONE)

    def test_confirmationAndMore(self) -> None:
        """
        What comes together with the confirmation is taken in.
        """
        written: list[bytes] = []
        client = self.clientOf().wrappedProtocol
        self.patch(client.transport, "write", written.append)
        client.dataReceived(b"\1" + PING)
        self.assertEqual(written[-1], PONG)
        client.connectionLost(DONE)


class SASLTests(AdmissionTestCase):
    """
    A client that logs in to a server.
    """

    def setUp(self) -> None:
        """
        Have the server want it.
        """
        super().setUp()
        self.wantPasswords()

    def clientWith(self, login: Login | None = ALICE) -> KeepAliveClientFactory:
        """
        Make a client.
        """
        return KeepAliveClientFactory(clock=self.clock, authentication=Authentication(login))

    def test_letIn(self) -> None:
        """
        With the right password it gets in, and the policy knows who it is.
        """
        pair = self.pair(self.factory, self.clientWith())
        self.assertTrue(pair.client.isAlive())
        self.assertEqual([peer.user for peer in self.peers], ["alice"])

    def test_wrong(self) -> None:
        """
        With a wrong one it does not, after a time.
        """
        pair = self.pair(self.factory, self.clientWith(Login("alice", "other")))
        opened = pair.client.whenOpen()
        self.assertNoResult(opened)
        pair.advance(1.1)
        self.failureResultOf(opened, AuthenticationFailed)
        self.assertEqual(self.factory.counters.unauthenticated, 1)

    def test_noLogin(self) -> None:
        """
        A client without a password says that one is wanted.
        """
        pair = self.pair(self.factory, self.clientWith(None), flush=False)
        opened = pair.client.whenOpen()
        pair.flush()
        error = self.failureResultOf(opened, AuthenticationFailed).value
        self.assertIn("authentication by sasl", str(error))

    def test_tooManyTries(self) -> None:
        """
        Who fails too often is dropped, after the answer.
        """
        self.factory.limits = Limits(loginTries=2)
        wire = self.accept(self.factory)
        for number in range(2):
            wire.ask(call(Procedure.AUTH_SASL_INIT))
            wire.feed(call(Procedure.AUTH_SASL_START, packStart("CRAM-MD5", None)))
            self.assertEqual(wire.take(), [])
            self.advance(1)
            self.assertEqual(errorOf(wire.takeOne()), REFUSED)
            self.assertEqual(wire.closing, number == 1)
        wire.lose()
        self.assertIn("failed to log in 2 times", self.logged(LogLevel.warn)[-1])
        self.assertEqual(self.factory.counters.unauthenticated, 2)

    def test_tooLate(self) -> None:
        """
        Who does not log in in time is dropped.
        """
        wire = self.accept(self.factory)
        self.advance(59.9)
        self.assertFalse(wire.closing)
        self.advance(0.2)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.assertIn(
            "it did not log in within 60 s (--auth-timeout)", self.logged(LogLevel.warn)[0]
        )

    def guess(self, password: bytes) -> Wire[KeepAliveServerProtocol]:
        """
        Connect, where a password may be sent as it is, and send one after 3 s.
        """
        wire = self.accept(self.factory, UNIXAddress(None))
        wire.ask(call(Procedure.AUTH_SASL_INIT))
        self.advance(3)
        data = packStart("PLAIN", b"\0alice\0" + password)
        wire.feed(call(Procedure.AUTH_SASL_START, data))
        return wire

    def test_oneAfterAnother(self) -> None:
        """
        A client that does not wait for the answers has its messages answered in order, each after
        the one before.  When it leaves, only the guess that was being checked counts.
        """
        wire = self.accept(self.factory, UNIXAddress(None))
        for password in (b"wrong", b"wrong again", b"sesame"):
            wire.feed(call(Procedure.AUTH_SASL_INIT))
            data = packStart("PLAIN", b"\0alice\0" + password)
            wire.feed(call(Procedure.AUTH_SASL_START, data))
        wire.feed(call(Procedure.CONNECT_OPEN, OPEN.payload))
        for answers in (1, 2, 4):
            self.assertEqual(len(wire.take()), answers)
            self.advance(1)
        self.assertEqual([peer.user for peer in self.peers], ["alice"])
        hasty = self.accept(self.factory, UNIXAddress(None))
        for _ in range(3):
            hasty.feed(call(Procedure.AUTH_SASL_INIT))
            hasty.feed(call(Procedure.AUTH_SASL_START, packStart("PLAIN", b"\0alice\0no")))
        hasty.lose()
        self.advance(10)
        failures = [line for line in self.logged(LogLevel.warn) if "failed to log in" in line]
        self.assertEqual(len(failures), 2 + 1)

    def test_turn(self) -> None:
        """
        While a login waits for its turn, the client's time to log in does not run.  Afterwards it
        has as much left as it had before.
        """
        self.factory.limits = Limits(loginGuesses=1, failureDelay=20, loginTimeout=10)
        self.guess(b"wrong")
        right, wrong = self.guess(b"sesame"), self.guess(b"wrong again")
        self.advance(13.75)
        self.assertEqual(right.take(), [])
        self.advance(0.5)
        self.assertEqual(len(right.take()), 1)
        self.advance(19.75)
        self.assertFalse(wrong.closing)
        self.advance(7.25)
        self.assertTrue(wrong.aborted)
        wrong.lose()
        self.assertIn("did not log in within 10 s (--auth-timeout)", self.logged()[-1])

    def test_endsWhileWaiting(self) -> None:
        """
        A connection that ends while its login waits leaves nothing behind, whoever ends it.
        """
        self.factory.limits = Limits(loginGuesses=1, failureDelay=20)
        for how in (Wire.lose, lambda wire: wire.protocol.abort(ConnectionClosed("enough"))):
            self.guess(b"wrong").lose()
            how(self.guess(b"sesame"))
            self.factory.abort()

    def test_stopsWhileWaiting(self) -> None:
        """
        A server that stops answers who is waiting, and closes.
        """
        self.factory.limits = Limits(loginGuesses=1)
        self.guess(b"wrong")
        wire = self.guess(b"sesame")
        self.factory.drain()
        self.advance(4)
        self.assertTrue(wire.closing)

    def test_tooLong(self) -> None:
        """
        A password above 1,024 bytes is wrong; a message above 16 KiB, which has 4,080 bytes of
        data, ends the connection.  The log has the length.
        """
        for size, words in (
            (4060, "cannot be a password: it is longer than 1,024 bytes"),
            (4090, "a message of 16408 bytes, where 28 to 16384 are allowed"),
        ):
            wire = self.accept(self.factory, UNIXAddress(None))
            wire.ask(call(Procedure.AUTH_SASL_INIT))
            data = b"\0alice\0".ljust(size, b"x")
            wire.feed(call(Procedure.AUTH_SASL_START, packStart("PLAIN", data)))
            wire.lose()
            self.assertIn(words, self.logged(LogLevel.warn)[-1])

    def test_freed(self) -> None:
        """
        A connection that ends is freed at once, without the garbage collector, however far its
        login has come.
        """
        gc.disable()
        self.addCleanup(gc.enable)
        self.factory.limits = Limits(loginGuesses=3)
        scram = packStart("SCRAM-SHA-256", b"n,,n=alice,r=abc")
        plain = packStart("PLAIN", b"\0alice\0wrong")
        for name, data, seconds in [
            ("begun", None, 0.0),
            ("malformed", packStart("PLAIN", b"\0"), 0.0),
            ("challenged", scram, 0.0),
            ("failed", plain, 0.0),
            ("refused", plain, 1.25),
            ("waiting", plain, 0.0),
            ("waiting", scram, 0.0),
        ]:
            protocol: Any = self.factory.buildProtocol(None)
            wire: Wire[KeepAliveServerProtocol] = Wire(protocol, UNIXAddress(None))
            del protocol
            wire.feed(call(Procedure.AUTH_SASL_INIT))
            if data is not None:
                wire.feed(call(Procedure.AUTH_SASL_START, data))
            self.advance(seconds)
            freed = weakref.ref(wire.protocol)
            wire.lose()
            wire.transport.unregisterProducer()
            # The log that the test keeps has the objects that logged.
            cast(list[Any], self._log).clear()
            del wire
            self.assertIsNone(freed(), name)

    def test_nothingBefore(self) -> None:
        """
        Before that there is nothing to be had.
        """
        wire = self.accept(self.factory)
        for message in (OPEN, call(Procedure.CONNECT_CLOSE), call(Procedure.CONNECT_GET_TYPE)):
            reply = wire.ask(message)
            self.assertEqual(errorOf(reply)[0], 39)
        self.assertEqual(wire.ask(call(Procedure.AUTH_LIST)).payload, b"\0\0\0\1\0\0\0\1")

    def test_nothingTwice(self) -> None:
        """
        Who has logged in cannot do it again, as somebody else say.
        """
        pair = self.pair(self.factory, self.clientWith())
        for procedure in (
            Procedure.AUTH_SASL_INIT,
            Procedure.AUTH_SASL_START,
            Procedure.AUTH_SASL_STEP,
        ):
            failed = pair.client.call(0x20008086, procedure)
            pair.flush()
            error = self.failureResultOf(failed, RemoteError).value
            assert isinstance(error, RemoteError)
            self.assertEqual(error.code, 45)
        types = pair.client.call(0x20008086, Procedure.AUTH_LIST)
        pair.flush()
        self.assertEqual(self.successResultOf(types), b"\0\0\0\1\0\0\0\0")

    def test_gone(self) -> None:
        """
        Who goes away in the middle leaves nothing behind.
        """
        wire = self.accept(self.factory)
        wire.ask(call(Procedure.AUTH_SASL_INIT))
        wire.feed(call(Procedure.AUTH_SASL_START, packStart("CRAM-MD5", None)))
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unix(self) -> None:
        """
        On a UNIX socket passwords are taken as they are.
        """
        wire = self.accept(self.factory, UNIXAddress(""))
        wire.ask(call(Procedure.AUTH_SASL_INIT))
        wire.ask(call(Procedure.AUTH_SASL_START, packStart("PLAIN", b"\0alice\0sesame")))
        wire.ask(OPEN)
        self.assertEqual(self.peers[0].user, "alice")


class LimitTests(AdmissionTestCase):
    """
    A server that has many clients.
    """

    def replyOf(self, wire: Any) -> Message:
        """
        Ask the first that every client asks.
        """
        reply: Message = wire.ask(call(Procedure.AUTH_LIST))
        return reply

    def test_displaced(self) -> None:
        """
        When there are too many that are not known, the oldest of them goes, and the others and
        those who are known stay.
        """
        self.wantPasswords()
        self.factory.limits = Limits(maxAnonymousClients=2)
        known = self.accept(self.factory)
        entranceOf(known).authenticated("alice")
        first, second, third = (self.accept(self.factory) for _ in range(3))
        self.assertTrue(first.aborted)
        self.assertIsInstance(first.protocol._kaproto.closing.reason, TooManyClients)
        for wire in (known, second, third):
            self.replyOf(wire)
        first.lose()
        self.assertEqual(self.factory.counters.displaced, 1)
        self.assertIn("too many clients", self.logged(LogLevel.warn)[0])

    def test_full(self) -> None:
        """
        When all are open, the newcomer is told so and dropped, and takes no place with it: there
        is none either for who comes before it has gone.
        """
        self.factory.limits = Limits(maxClients=1)
        first = self.accept(self.factory)
        first.ask(OPEN)
        second, third = (self.accept(self.factory) for _ in range(2))
        self.assertEqual(errorOf(third.ask(OPEN))[0], 9)
        third.lose()
        code, _domain, _level, message = errorOf(self.replyOf(second))
        self.assertEqual(code, 9)
        self.assertIn("the server has its 1 clients (--max-clients)", message)
        self.assertTrue(second.closing)
        second.lose()
        self.assertTrue(
            all("one more than 1 clients" in line for line in self.logged(LogLevel.warn))
        )
        kinds = [each.kind for each in self.factory.journal.endings]
        self.assertEqual(kinds, ["too_many_clients"] * 2)
        self.assertFalse(first.closing)
        first.lose()
        self.replyOf(self.accept(self.factory))

    def test_fullOfIdlers(self) -> None:
        """
        When some have not opened, one of them goes.
        """
        self.factory.limits = Limits(maxClients=2)
        self.accept(self.factory).ask(OPEN)
        idle = self.accept(self.factory)
        newcomer = self.accept(self.factory)
        self.assertTrue(idle.aborted)
        newcomer.ask(OPEN)


class EndpointTests(ClockTestCase):
    """
    Tests for C{+tls} in a URI.
    """

    def setUp(self) -> None:
        """
        Make a client's files.
        """
        super().setUp()
        self.flat = Path(self.mktemp()).absolute()
        self.authority = Authority()
        self.authority.writeFlat(str(self.flat), self.authority.issue(distinguished("alice")))
        self.reactor = MemoryReactorClock()

    def test_port(self) -> None:
        """
        Without a port libvirt's is connected to.
        """
        places: list[tuple[object, ...]] = []

        def endpoint(reactor: object, *place: object) -> None:
            places.append(place)

        self.patch(connecting, "HostEndpoint", endpoint)
        for port in ("", ":1234"):
            _endpoint, name = endpointFor(
                self.reactor, f"qemu+tls://192.0.2.1{port}/system?pkipath={self.flat}"
            )
            self.assertEqual(name, "qemu:///system")
        self.assertEqual(places, [("192.0.2.1", 16514), ("192.0.2.1", 1234)])

    def test_default(self) -> None:
        """
        A URI with a host and no transport means TLS; the files may be libvirt's.
        """
        self.patch(Path, "home", lambda: self.flat)
        with self.assertRaisesRegex(ValueError, "/cacert.pem: there is no such file"):
            endpointFor(self.reactor, "qemu://192.0.2.1/system")

    def test_unverified(self) -> None:
        """
        The server's certificate need not be checked.
        """
        verified: list[bool] = []

        def contextFactory(
            files: CertificateFiles, host: str, *, verify: bool
        ) -> ClientContextFactory:
            verified.append(verify)
            return ClientContextFactory(files, host, verify=verify)

        self.patch(connecting, "ClientContextFactory", contextFactory)
        for parameter in ("", "&no_verify=0", "&no_verify=1"):
            endpointFor(self.reactor, f"qemu+tls://192.0.2.1/system?pkipath={self.flat}{parameter}")
        self.assertEqual(verified, [True, True, False])
